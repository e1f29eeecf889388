// Asks the service about the pad: while a stroke is drawn, after it, and after a picture was chosen. It shows the state
// of the answer, and digit.js or number.js show the answer.

import { $, copy } from "./dom.js";
import { askForKey, complain, hasKey, onKey, post, reason, settle } from "./api.js";
import * as digit from "./digit.js";
import * as number from "./number.js";
import * as pad from "./pad.js";

const PAUSE = 120; // minimum ms between two requests during a stroke
const VIEWS = { digit, number };

let mode = "digit"; // or "number", or null while something else than the pad is shown
let latest = 0; // number of the latest request, the only one whose answer is shown
let pending = null; // the running request
let timer = null; // for the next request
let waits = false; // whether the drawing has changed since the running request
let last = 0; // time of the last request

// name: blank, reading, read, unsure, nothing or refused
function state(name, text) {
  document.body.dataset.state = name;
  $("said").replaceChildren(...[text].flat());
}

// during a stroke, send one request at a time, so that the answers of a slow server are shown too
function soon() {
  waits = pending !== null;
  if (timer === null && !waits) timer = setTimeout(now, Math.max(0, last + PAUSE - performance.now()));
}

function again(seconds) {
  clearTimeout(timer);
  timer = setTimeout(now, seconds * 1000);
}

function stop() {
  clearTimeout(timer);
  timer = null;
  waits = false;
  pending?.abort();
  pending = null;
}

async function now() {
  stop();
  if (!mode || pad.isBlank()) return;
  const mine = ++latest;
  const abort = (pending = new AbortController());
  const begun = (last = performance.now());
  const blob = pad.content(mode);
  let answer;
  try {
    answer = await post(VIEWS[mode].PATH, blob, abort.signal);
  } catch {
    return;
  }
  if (mine !== latest) return;
  pending = null;
  if (!answer.ok) return refused(answer);
  settle();
  if (answer.body.readings) return events.dispatchEvent(new CustomEvent("pages", { detail: blob }));
  $("time").textContent = `${(performance.now() - begun).toFixed(0)} ms`;
  state(...VIEWS[mode].show(answer.body, { blob, page: 1 }));
  curl(await VIEWS[mode].command(blob), mine);
  if (waits) soon();
}

function refused(answer) {
  if (answer.status === 422 && answer.body.found === "an empty picture") {
    forget("nothing", "Nothing to read yet.");
  } else {
    empty("refused", "No answer.");
    if (answer.status === 401) return askForKey();
    const kept = answer.status ? "" : " Your drawing is kept.";
    complain(reason(answer) + kept + (answer.wait ? " Trying again…" : ""));
    if (answer.wait) again(answer.wait);
  }
  if (waits) soon();
}

function empty(name, text) {
  state(name, text);
  $("time").textContent = "–";
  $("curl").textContent = "Draw something first.";
  $("copy").disabled = true;
  digit.clear();
  number.clear();
}

// remove the answer, and let go of a running request
function forget(name = "blank", text = "Nothing drawn yet.") {
  stop();
  latest++;
  $("said").ariaBusy = false;
  $("problem").hidden = true;
  empty(name, text);
}

// command: {path, data}; data: a picture in base64, or null to read a file instead
function curl({ path, data }, mine) {
  if (mine !== latest) return;
  const key = hasKey() ? ` -H "X-API-Key: YOUR_KEY"` : "";
  const kind = data ? "application/json" : "image/jpeg";
  const body = data ? `-d '{"image":"${data}"}'` : "--data-binary @picture.jpg";
  $("curl").textContent = `curl -H "Content-Type: ${kind}"${key} ${body} "${new URL(path, location.href)}"`;
  $("copy").disabled = false;
}

export const events = new EventTarget(); // fires `pages` with a blob that turned out to have several pages

export function choose(newMode) {
  mode = newMode;
  if (mode) pad.setPen(mode);
  if (mode && !pad.isBlank()) {
    forget("reading", "Reading…");
    now();
  } else {
    forget();
  }
}

// a screen reader announces the answer after the stroke, not those during it
pad.events.addEventListener("begin", () => ($("said").ariaBusy = true));
pad.events.addEventListener("stroke", soon);
pad.events.addEventListener("end", () => {
  $("said").ariaBusy = false;
  now();
});
pad.events.addEventListener("picture", () => forget("reading", "Reading…"));
pad.events.addEventListener("blank", () => forget());
onKey(now);
$("copy").addEventListener("click", () => copy($("copy"), $("curl").textContent, $("curl")));
