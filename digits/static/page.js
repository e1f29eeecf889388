// The drawing page. What is drawn or chosen goes as a picture to POST /predict?detail=1, the same way as any
// client's; the answer fills the page. No framework, no other host.

const SIDE = 560; // pixels of the pad, whatever size it is shown at
const PEN = 36; // its stroke: as wide, for a digit that fills the pad, as MNIST's
const PAUSE = 120; // ms between two requests while a stroke goes on
const UNSURE = 0.7; // below this probability the answer is called a guess
const TYPES = ["image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff"];

const $ = (id) => document.getElementById(id);
const pad = $("pad");
// read back at every stroke: kept in memory, not on the graphics card
const paper = pad.getContext("2d", { willReadFrequently: true });

let strokes = []; // each a list of points {x, y} in pixels of the pad
let picture = null; // a file or sample instead of strokes: {blob, bitmap}
let pen = { x: SIDE / 2, y: SIDE / 2, down: false, shown: false }; // the keyboard's

// --- drawing -------------------------------------------------------------------------------------------------

function paint() {
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, SIDE, SIDE);
  if (picture) {
    const { width, height } = picture.bitmap;
    const scale = Math.min(SIDE / width, SIDE / height);
    const [w, h] = [width * scale, height * scale];
    paper.drawImage(picture.bitmap, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
  }
  paper.strokeStyle = paper.fillStyle = "#000";
  paper.lineWidth = PEN;
  paper.lineCap = paper.lineJoin = "round";
  for (const points of strokes) {
    paper.beginPath();
    paper.moveTo(points[0].x, points[0].y);
    // through the middles of neighbours, bent by the points: smooth however few there are
    for (let i = 1; i < points.length - 1; i++) {
      const [a, b] = [points[i], points[i + 1]];
      paper.quadraticCurveTo(a.x, a.y, (a.x + b.x) / 2, (a.y + b.y) / 2);
    }
    const last = points[points.length - 1];
    paper.lineTo(last.x, last.y + (points.length === 1 ? 0.01 : 0));
    paper.stroke();
  }
  $("undo").disabled = strokes.length === 0;
  $("clear").disabled = strokes.length === 0 && !picture;
}

// the keyboard's pen is shown on the pad, but must not be sent
function paintPen() {
  if (!pen.shown) return;
  paper.lineWidth = 3;
  paper.strokeStyle = pen.down ? "#c00" : "#06c";
  paper.beginPath();
  paper.arc(pen.x, pen.y, PEN / 2, 0, 2 * Math.PI);
  paper.stroke();
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return { x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE };
}

pad.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  pad.focus({ preventScroll: true, focusVisible: false });
  pad.setPointerCapture(event.pointerId);
  pen.shown = pen.down = false;
  picture = null;
  strokes.push([place(event)]);
  paint();
});

pad.addEventListener("pointermove", (event) => {
  if (!pad.hasPointerCapture(event.pointerId)) return;
  const points = strokes[strokes.length - 1];
  const events = event.getCoalescedEvents?.() ?? [];
  points.push(...(events.length ? events : [event]).map(place));
  paint();
  soon();
});

for (const kind of ["pointerup", "pointercancel"]) {
  pad.addEventListener(kind, (event) => {
    if (!pad.hasPointerCapture(event.pointerId)) return;
    pad.releasePointerCapture(event.pointerId);
    now();
  });
}

pad.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 8 : 20;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) {
    const [dx, dy] = moves[event.key];
    pen.x = Math.min(Math.max(pen.x + dx, 0), SIDE);
    pen.y = Math.min(Math.max(pen.y + dy, 0), SIDE);
    pen.shown = true;
    if (pen.down) strokes[strokes.length - 1].push({ x: pen.x, y: pen.y });
  } else if (event.key === " ") {
    pen.down = !pen.down;
    pen.shown = true;
    if (pen.down) {
      picture = null;
      strokes.push([{ x: pen.x, y: pen.y }]);
    }
  } else if (event.key === "Backspace" || (event.key === "z" && (event.ctrlKey || event.metaKey))) {
    undo();
  } else if (event.key === "Escape") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  paint();
  if (pen.down) soon();
  else if (event.key === " ") now();
  paintPen();
});

pad.addEventListener("blur", () => {
  pen.shown = pen.down = false;
  paint();
});

function undo() {
  strokes.pop();
  pen.down = false;
  paint();
  if (strokes.length) now();
  else forget();
}

function clear() {
  strokes = [];
  picture = null;
  pen.down = false;
  paint();
  forget();
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);

// --- pictures ------------------------------------------------------------------------------------------------

async function show(blob) {
  if (!blob) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    // the server may know a format that the browser does not
    bitmap = new OffscreenCanvas(1, 1);
  }
  strokes = [];
  pen.shown = pen.down = false;
  picture = { blob, bitmap };
  paint();
  now();
}

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => {
    show(event.target.files[0]);
    event.target.value = "";
  });
}
document.addEventListener("paste", (event) => {
  show([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
});
pad.addEventListener("dragover", (event) => {
  event.preventDefault();
  pad.classList.add("over");
});
pad.addEventListener("dragleave", () => pad.classList.remove("over"));
pad.addEventListener("drop", (event) => {
  event.preventDefault();
  pad.classList.remove("over");
  show(event.dataTransfer.files[0]);
});

for (let digit = 0; digit < 10; digit++) {
  const button = document.createElement("button");
  button.type = "button";
  const image = document.createElement("img");
  image.src = `/static/samples/${digit}.png`;
  image.alt = `Sample of a ${digit}`;
  button.append(image);
  button.addEventListener("click", async () => {
    try {
      show(await (await fetch(image.src)).blob());
    } catch {
      complain("The server can't be reached.");
    }
  });
  $("samples").append(button);
}

// --- asking --------------------------------------------------------------------------------------------------

let asked = 0; // counts requests; an answer older than what is shown is dropped
let shown = 0;
let timer = null;
let last = 0; // when the last request went out
let pending = null;

function soon() {
  if (timer === null) timer = setTimeout(now, Math.max(0, last + PAUSE - performance.now()));
}

// the pad as a PNG. Half its size is enough; toBlob would wait until the browser is idle, toDataURL does not
const half = document.createElement("canvas");
half.width = half.height = SIDE / 2;
function drawn() {
  half.getContext("2d", { willReadFrequently: true }).drawImage(pad, 0, 0, SIDE / 2, SIDE / 2);
  const bytes = atob(half.toDataURL("image/png").split(",")[1]);
  return new Blob([Uint8Array.from(bytes, (c) => c.charCodeAt(0))], { type: "image/png" });
}

async function now() {
  clearTimeout(timer);
  timer = null;
  last = performance.now();
  const number = ++asked;
  pending?.abort();
  const abort = (pending = new AbortController());
  const begun = performance.now();
  const blob = picture ? picture.blob : drawn();
  const headers = { "Content-Type": TYPES.includes(blob.type) ? blob.type : "image/png" };
  const key = sessionStorage.getItem("key");
  if (key) headers["X-API-Key"] = key;
  let response;
  let body;
  try {
    response = await fetch("/predict?detail=1", { method: "POST", headers, body: blob, signal: abort.signal });
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError" || number < asked) return;
    return complain("The server can't be reached. What you drew is kept; draw on or press Undo to try again.");
  }
  if (number < shown || (number < asked && !response.ok)) return;
  shown = number;
  if (response.ok) return answer(body, performance.now() - begun);
  $("key-form").hidden = response.status !== 401;
  if (response.status === 401) return complain(key ? "That key is not accepted." : "Enter a key to go on.");
  if (response.status === 503 || response.status === 429) {
    complain("The service is busy. Trying again…");
    setTimeout(() => number === asked && now(), 1000 * (Number(response.headers.get("Retry-After")) || 1));
    return;
  }
  if (response.status === 422 && body.found === "an empty picture") return forget("There is nothing to read in it yet.");
  complain(body.detail ?? `The service answered ${response.status}.`);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  now();
});

// --- answering -----------------------------------------------------------------------------------------------

const bars = Array.from({ length: 10 }, (_, digit) => {
  const row = document.createElement("li");
  row.innerHTML = `<span>${digit}</span><span class="track"><span class="fill"></span></span><span class="share">–</span>`;
  row.querySelector(".fill").style.display = "block";
  $("bars").append(row);
  return row;
});

function fill(probabilities) {
  const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  bars.forEach((row, digit) => {
    const share = probabilities?.[digit];
    row.classList.toggle("best", digit === best);
    row.querySelector(".fill").style.width = `${(share ?? 0) * 100}%`;
    row.querySelector(".share").textContent = share === undefined ? "–" : `${(share * 100).toFixed(1)} %`;
  });
}

function answer(found, ms) {
  $("problem").hidden = $("key-form").hidden = true;
  const sure = found.predicted_probability >= UNSURE;
  const percent = `${(found.predicted_probability * 100).toFixed(1)} %`;
  document.body.classList.toggle("unsure", !sure);
  $("digit").textContent = sure ? found.predicted_digit : `${found.predicted_digit}?`;
  const second = found.probabilities
    .map((share, digit) => ({ share, digit }))
    .sort((a, b) => b.share - a.share)[1].digit;
  $("said").textContent = sure
    ? `It is a ${found.predicted_digit}, with ${percent}.`
    : `Not sure: perhaps a ${found.predicted_digit} (${percent}), perhaps a ${second}.`;
  fill(found.probabilities);
  $("time").textContent = `${ms.toFixed(0)} ms`;
  const seen = $("seen").getContext("2d");
  const pixels = seen.createImageData(28, 28);
  found.image.flat().forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  seen.putImageData(pixels, 0, 0);
  const url = `${location.origin}/predict?prepare=none`;
  const data = $("seen").toDataURL("image/png").split(",")[1];
  const key = sessionStorage.getItem("key") ? ` -H "X-API-Key: YOUR_KEY"` : "";
  $("curl").textContent = `curl -H "Content-Type: application/json"${key} -d '{"image":"${data}"}' "${url}"`;
  $("copy").disabled = false;
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

function forget(text = "Nothing drawn yet.") {
  clearTimeout(timer);
  timer = null;
  pending?.abort();
  shown = ++asked;
  document.body.classList.remove("unsure");
  $("problem").hidden = true;
  $("digit").textContent = "?";
  $("said").textContent = text;
  $("time").textContent = "–";
  $("seen").getContext("2d").clearRect(0, 0, 28, 28);
  $("curl").textContent = "Draw something first.";
  $("copy").disabled = true;
  fill(null);
}

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
  } catch {
    // no clipboard without https or permission: select it, so that the keys copy it
    getSelection().selectAllChildren($("curl"));
    return;
  }
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

// --- the model -----------------------------------------------------------------------------------------------

async function model() {
  let card;
  try {
    card = await (await fetch("/model")).json();
  } catch {
    return complain("The server can't be reached.");
  }
  const percent = (share) => (share === undefined ? "unknown" : `${(share * 100).toFixed(2)} %`);
  const facts = {
    Version: card.version,
    "Trained on": card.trained_on ?? "unknown",
    "Trained at": card.created ?? "unknown",
    "Accuracy on its test images": percent(card.test?.accuracy),
    Parameters: card.parameters?.toLocaleString("en") ?? "unknown",
  };
  for (const [name, value] of Object.entries(facts)) {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    description.textContent = value;
    $("card").append(term, description);
  }
  if (!card.confusion_matrix) return;
  const cell = (row, kind, text, scope) => {
    const made = document.createElement(kind);
    made.textContent = text;
    if (scope) made.scope = scope;
    row.append(made);
    return made;
  };
  const head = $("confusion").createTHead().insertRow();
  cell(head, "td", "");
  for (let said = 0; said < 10; said++) cell(head, "th", said, "col");
  const body = $("confusion").createTBody();
  card.confusion_matrix.forEach((counts, is) => {
    const row = body.insertRow();
    cell(row, "th", is, "row");
    counts.forEach((count, said) => {
      cell(row, "td", count || "·").className = is === said ? "right" : count ? "wrong" : "none";
    });
  });
}

paint();
fill(null);
model();
