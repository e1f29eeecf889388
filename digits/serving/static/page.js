// The drawing page. It sends the drawing or a chosen picture to POST /predict?detail=1, or to POST /read for a number,
// like any other client, and shows the answer. It uses no framework and no other host.

import { clearReading, showReading } from "./reading.js";

const SIDE = 560; // size of the pad in pixels, independent of the size at which it is shown
const PENS = { digit: 36, number: 15 }; // gives MNIST's stroke width to a digit that fills the pad, or a fifth of it
const PAUSE = 120; // minimum ms between two requests during a stroke
const AGAIN = 2000; // ms before retrying when the server can't be reached
const LARGE = 1 << 20; // bytes; larger pictures, such as a phone's photographs, are reduced before sending
const REDUCED = 2560; // their longer side in pixels after that
const TYPES = ["image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff"];

const $ = (id) => document.getElementById(id);
const pad = $("pad");
// keep the pad in memory instead of on the graphics card, because every request reads it
const paper = pad.getContext("2d", { willReadFrequently: true });

let mode = "digit"; // or "number"
let strokes = []; // each a list of points {x, y} in pixels of the pad
let picture = null; // a file or sample instead of strokes: {blob, bitmap, width, height}; the size is that of the blob
let pointer = null; // the pointer that draws; a second finger or a palm is ignored
let pen = { x: SIDE / 2, y: SIDE / 2, down: false, shown: false }; // moved by the keyboard

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
  paper.lineWidth = PENS[mode];
  paper.lineCap = paper.lineJoin = "round";
  for (const points of strokes) {
    paper.beginPath();
    paper.moveTo(points[0].x, points[0].y);
    // curves between the middles of neighbouring points, which look smooth even with few points
    for (let i = 1; i < points.length - 1; i++) {
      const [a, b] = [points[i], points[i + 1]];
      paper.quadraticCurveTo(a.x, a.y, (a.x + b.x) / 2, (a.y + b.y) / 2);
    }
    const last = points[points.length - 1];
    paper.lineTo(last.x, last.y + (points.length === 1 ? 0.01 : 0));
    paper.stroke();
  }
  $("undo").disabled = $("clear").disabled = blank();
  $("hint").hidden = !blank() || pen.shown;
}

function blank() {
  return strokes.length === 0 && !picture;
}

// the keyboard's pen is shown on the pad, but must not be sent
function paintPen() {
  if (!pen.shown) return;
  paper.lineWidth = 3;
  paper.strokeStyle = pen.down ? "#c00" : "#06c";
  paper.beginPath();
  paper.arc(pen.x, pen.y, PENS[mode] / 2, 0, 2 * Math.PI);
  paper.stroke();
}

function place(event) {
  const { left, top } = pad.getBoundingClientRect();
  const scale = SIDE / pad.clientWidth;
  // clientLeft and clientTop are the widths of the border
  return { x: (event.clientX - left - pad.clientLeft) * scale, y: (event.clientY - top - pad.clientTop) * scale };
}

pad.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || pointer !== null) return;
  event.preventDefault();
  pointer = event.pointerId;
  pad.setPointerCapture(pointer);
  pad.focus({ preventScroll: true, focusVisible: false });
  pen.shown = pen.down = false;
  begin(place(event));
  paint();
});

pad.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(events.length ? events : [event]).map(place));
  paint();
  soon();
});

for (const kind of ["pointerup", "pointercancel"]) {
  pad.addEventListener(kind, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    end();
  });
}

function begin(point) {
  picture = null;
  strokes.push([point]);
  // a screen reader announces the answer after the stroke, not those during it
  $("said").ariaBusy = true;
}

function end() {
  $("said").ariaBusy = false;
  now();
}

pad.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 8 : 20;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) {
    const [dx, dy] = moves[event.key];
    pen.x = Math.min(Math.max(pen.x + dx, 0), SIDE);
    pen.y = Math.min(Math.max(pen.y + dy, 0), SIDE);
    pen.shown = true;
    if (pen.down) strokes.at(-1).push({ x: pen.x, y: pen.y });
  } else if (event.key === " ") {
    pen.down = !pen.down;
    pen.shown = true;
    if (pen.down) begin({ x: pen.x, y: pen.y });
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
  else if (event.key === " ") end();
  paintPen();
});

pad.addEventListener("focus", () => {
  // show the pen to keyboard users
  pen.shown = pointer === null && pad.matches(":focus-visible");
  paint();
  paintPen();
});

pad.addEventListener("blur", () => {
  if (pen.down) end();
  pen.shown = pen.down = false;
  paint();
});

function undo() {
  if (strokes.length) strokes.pop();
  else picture = null;
  liftPen();
  if (blank()) forget();
  else end();
}

function clear() {
  strokes = [];
  picture = null;
  liftPen();
  forget();
}

// end an unfinished stroke
function liftPen() {
  pointer = null;
  pen.down = false;
  paint();
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);

// --- pictures ------------------------------------------------------------------------------------------------

async function show(blob) {
  let bitmap;
  let scale = 1;
  try {
    bitmap = await createImageBitmap(blob);
    if (blob.size > LARGE) {
      scale = Math.min(1, REDUCED / Math.max(bitmap.width, bitmap.height));
      blob = await reduced(bitmap, scale);
    }
  } catch {
    // the server may support a format that the browser does not
    bitmap = new OffscreenCanvas(1, 1);
  }
  strokes = [];
  pen.shown = pen.down = false;
  picture = { blob, bitmap, width: bitmap.width * scale, height: bitmap.height * scale };
  paint();
  end();
}

function reduced(bitmap, scale) {
  const small = new OffscreenCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
  const context = small.getContext("2d");
  // JPEG has no transparency, so transparent parts must become white
  context.fillStyle = "#fff";
  context.fillRect(0, 0, small.width, small.height);
  context.drawImage(bitmap, 0, 0, small.width, small.height);
  return small.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) show(file);
    event.target.value = "";
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (file) show(file);
});
// on the whole page, because a browser would open a picture that is dropped beside the pad
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) show(file);
});

function sample(name, what, newMode) {
  const button = document.createElement("button");
  button.type = "button";
  button.classList.toggle("wide", newMode === "number");
  const image = document.createElement("img");
  image.src = `static/samples/${name}.png`;
  image.alt = `Sample of a ${what}`;
  button.append(image);
  button.addEventListener("click", async () => {
    let blob;
    try {
      blob = await (await fetch(image.src)).blob();
    } catch {
      return complain("The server can't be reached. Try again in a moment.");
    }
    choose(newMode);
    show(blob);
  });
  $("samples").append(button);
}

for (let digit = 0; digit < 10; digit++) sample(digit, digit, "digit");
sample("number", "number", "number");

// --- one digit or a number -----------------------------------------------------------------------------------

const modes = document.querySelectorAll("[name=mode]");

function choose(newMode) {
  mode = newMode;
  modes.forEach((radio) => (radio.checked = radio.value === mode));
  document.body.classList.toggle("number", mode === "number");
  liftPen();
  forget(blank() ? undefined : "Reading…");
}

function read(newMode) {
  choose(newMode);
  if (!blank()) end();
}

modes.forEach((radio) => radio.addEventListener("change", () => read(radio.value)));
$("as-number").addEventListener("click", () => {
  read("number");
  pad.focus();
});

// --- requests ------------------------------------------------------------------------------------------------

let latest = 0; // number of the latest request, the only one whose answer is shown
let pending = null; // the running request
let timer = null; // for the next request
let waits = false; // whether the drawing has changed since the running request
let last = 0; // time of the last request

// during a stroke, send one request at a time, so that the answers of a slow server are shown too
function soon() {
  waits = pending !== null;
  if (timer === null && !waits) timer = setTimeout(now, Math.max(0, last + PAUSE - performance.now()));
}

function again(seconds) {
  clearTimeout(timer);
  timer = setTimeout(now, seconds * 1000);
}

// the pad as a PNG, without the keyboard's pen, and in half the size for a digit; toBlob would wait until the browser
// is idle, but toDataURL does not
const half = document.createElement("canvas");
half.width = half.height = SIDE / 2;
function drawing() {
  paint();
  half.getContext("2d", { willReadFrequently: true }).drawImage(pad, 0, 0, SIDE / 2, SIDE / 2);
  const url = (mode === "number" ? pad : half).toDataURL("image/png");
  paintPen();
  const bytes = atob(url.split(",")[1]);
  return new Blob([Uint8Array.from(bytes, (c) => c.charCodeAt(0))], { type: "image/png" });
}

function stop() {
  clearTimeout(timer);
  timer = null;
  waits = false;
  pending?.abort();
  pending = null;
}

function withKey(headers) {
  const key = sessionStorage.getItem("key");
  return key ? { ...headers, "X-API-Key": key } : headers;
}

async function now() {
  stop();
  if (blank()) return;
  const number = ++latest;
  const abort = (pending = new AbortController());
  const begun = (last = performance.now());
  const blob = picture ? picture.blob : drawing();
  const headers = withKey({ "Content-Type": TYPES.includes(blob.type) ? blob.type : "image/png" });
  let response;
  let body = {};
  try {
    response = await fetch(mode === "number" ? "read" : "predict?detail=1", { method: "POST", headers, body: blob, signal: abort.signal });
    // a proxy may answer in HTML
    if (/json/.test(response.headers.get("Content-Type"))) body = await response.json();
  } catch {
    response = null;
  }
  if (number !== latest) return;
  pending = null;
  if (!response) {
    complain("The server can't be reached. Your drawing is kept. Trying again…");
    again(AGAIN / 1000);
  } else if (response.ok) {
    $("problem").hidden = $("key-form").hidden = true;
    $("time").textContent = `${(performance.now() - begun).toFixed(0)} ms`;
    if (mode === "number") answerNumber(body, blob);
    else answer(body);
    if (waits) soon();
  } else {
    refused(response, body);
  }
}

function refused(response, body) {
  const status = response.status;
  if (status === 401) return askForKey();
  if (status === 503 || status === 429) {
    complain("The service is busy. Trying again…");
    again(Number(response.headers.get("Retry-After")) || 1);
  } else if (status === 422 && body.found === "an empty picture") {
    forget("Nothing to read yet.");
  } else {
    complain(body.detail ?? `The service answered ${status}.`);
  }
  if (waits) soon();
}

function askForKey() {
  complain(sessionStorage.getItem("key") ? "This key is not accepted." : "Enter an API key to continue.");
  $("key-form").hidden = false;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  // fetch throws if a header contains other characters
  if (!/^[\x21-\x7e]+$/.test(key)) return complain("This is not an API key: it contains invalid characters.");
  sessionStorage.setItem("key", key);
  $("problem").hidden = $("key-form").hidden = true;
  now();
  if (!$("card").hasChildNodes()) model();
});

// --- answers -------------------------------------------------------------------------------------------------

const bars = Array.from({ length: 10 }, (_, digit) => {
  const row = document.createElement("li");
  row.innerHTML = `<span>${digit}</span><span class="track"><span class="fill"></span></span><span class="share">–</span>`;
  $("bars").append(row);
  return row;
});

function fill(probabilities) {
  const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  bars.forEach((row, digit) => {
    const share = probabilities?.[digit];
    row.classList.toggle("best", digit === best);
    // a bar of less than a pixel would only show its round end
    row.querySelector(".fill").style.width = share > 0.002 ? `${share * 100}%` : 0;
    row.querySelector(".share").textContent = share === undefined ? "–" : percent(share, 1);
  });
}

function percent(share, places) {
  // a no-break space keeps the sign with its number
  return `${(share * 100).toFixed(places)}\u00a0%`;
}

function answer(found) {
  const share = percent(found.predicted_probability, 1);
  document.body.classList.remove("empty");
  document.body.classList.toggle("unsure", found.unsure);
  $("as-number").hidden = !found.unsure;
  $("digit").textContent = found.unsure ? "?" : found.predicted_digit;
  if (found.unsure) {
    const guess = document.createElement("small");
    guess.textContent = `Best guess: ${found.predicted_digit} (${share})`;
    // in one change, so that a screen reader announces both
    $("said").replaceChildren("This does not look like one digit. ", guess);
  } else {
    $("said").textContent = `It is a ${found.predicted_digit}, with ${share}.`;
  }
  fill(found.probabilities);
  const seen = $("seen").getContext("2d");
  const pixels = seen.createImageData(28, 28);
  found.image.flat().forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  seen.putImageData(pixels, 0, 0);
  curl("predict?prepare=none", $("seen").toDataURL("image/png").split(",")[1]);
}

async function answerNumber(found, blob) {
  const { width, height } = picture ?? { width: SIDE, height: SIDE };
  const unsure = found.lines.filter((line) => line.unsure).length;
  document.body.classList.toggle("empty", !found.text);
  document.body.classList.toggle("unsure", unsure > 0);
  showReading(found, width, height);
  const [line] = found.lines;
  if (!line) $("said").textContent = "No digit was found.";
  else if (found.lines.length > 1) $("said").textContent = `It reads ${found.lines.length} lines, ${unsure || "none"} of them unsure.`;
  else $("said").textContent = `It ${unsure ? "may read" : "reads"} ${line.text}, with ${percent(line.probability, 1)}.`;
  // a larger picture would not fit on a command line
  if (blob.size > 1 << 16) return curl("read");
  const number = latest;
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (number === latest) curl("read", btoa(String.fromCharCode(...bytes)));
}

// data: a picture in base64; without it, the command reads a file
function curl(path, data) {
  const key = sessionStorage.getItem("key") ? ` -H "X-API-Key: YOUR_KEY"` : "";
  const kind = data ? "application/json" : "image/jpeg";
  const body = data ? `-d '{"image":"${data}"}'` : "--data-binary @picture.jpg";
  $("curl").textContent = `curl -H "Content-Type: ${kind}"${key} ${body} "${new URL(path, location.href)}"`;
  $("copy").disabled = false;
}

// remove the previous answer, and show a problem
function complain(text) {
  empty("No answer.");
  $("problem").textContent = text;
  $("problem").hidden = false;
}

function forget(text = "Nothing drawn yet.") {
  stop();
  latest++;
  $("said").ariaBusy = false;
  $("problem").hidden = true;
  empty(text);
}

function empty(text) {
  document.body.classList.remove("unsure");
  document.body.classList.add("empty");
  $("digit").textContent = "?";
  $("said").textContent = text;
  $("time").textContent = "–";
  $("seen").getContext("2d").clearRect(0, 0, 28, 28);
  $("curl").textContent = "Draw something first.";
  $("copy").disabled = true;
  $("as-number").hidden = true;
  clearReading();
  fill(null);
}

function copies(button, source) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // without HTTPS or permission there is no clipboard, so select the text for copying with the keyboard
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = label), 1500);
  });
}
copies($("copy"), $("curl"));
copies($("copy-text"), $("text"));

// --- the model -----------------------------------------------------------------------------------------------

async function model() {
  let card;
  try {
    const response = await fetch("model", { headers: withKey({}) });
    if (response.status === 401) return askForKey();
    card = response.ok && (await response.json());
  } catch {
    complain("The server can't be reached.");
  }
  if (!card) return setTimeout(model, AGAIN);
  const origin = { mnist: "MNIST", synthetic: "synthetic digits" };
  const tests = card.confusion_matrix?.flat().reduce((a, b) => a + b);
  const facts = {
    Version: card.version,
    Accuracy: card.test && `${percent(card.test.accuracy, 2)} of ${tests?.toLocaleString("en") ?? "its"} test images`,
    Data: origin[card.trained_on] ?? card.trained_on,
    Parameters: card.parameters?.toLocaleString("en"),
    With: card.libraries && `TensorFlow ${card.libraries.tensorflow}, Keras ${card.libraries.keras}`,
  };
  for (const [name, value] of Object.entries(facts)) {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    description.textContent = value ?? "unknown";
    $("card").append(term, description);
  }
  if (card.confusion_matrix) mistakes(card.confusion_matrix, tests);
}

function mistakes(matrix, tests) {
  const cell = (row, kind, text, scope) => {
    const made = document.createElement(kind);
    made.textContent = text;
    if (scope) made.scope = scope;
    row.append(made);
    return made;
  };
  const wrong = matrix
    .flatMap((row, is) => row.map((count, said) => ({ count, is, said })))
    .filter(({ is, said }) => is !== said)
    .sort((a, b) => b.count - a.count);
  const [worst] = wrong;
  const all = wrong.reduce((sum, { count }) => sum + count, 0);
  const often = all ? `, most often a ${worst.is} as a ${worst.said} (${worst.count} times)` : "";
  $("wrong").textContent = `The model misread ${all} of ${tests.toLocaleString("en")} test images${often}.`;
  const head = $("confusion").createTHead().insertRow();
  cell(head, "td", "");
  for (let said = 0; said < 10; said++) cell(head, "th", said, "col");
  const body = $("confusion").createTBody();
  matrix.forEach((counts, is) => {
    const row = body.insertRow();
    cell(row, "th", is, "row");
    counts.forEach((count, said) => {
      const made = cell(row, "td", count || "·");
      made.className = is === said ? "right" : count ? "wrong" : "none";
      made.style.setProperty("--part", count / worst.count);
    });
  });
  $("mistakes").hidden = false;
}

paint();
// browsers keep the choice when the page is reloaded
choose(document.querySelector("[name=mode]:checked").value);
model();
