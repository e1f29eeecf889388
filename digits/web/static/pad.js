// The pad: drawing with mouse, finger, pen and keyboard, and showing a chosen picture instead. It fires `stroke` while
// a stroke changes, `end` when there is something complete to read, `picture` when a picture comes, and `blank`.

import { $ } from "./dom.js";
import { decode } from "./picture.js";

export const SIDE = 560; // size of the pad in pixels, independent of the size at which it is shown
// these give MNIST's stroke width to a digit that fills the pad, or a fifth of it
const PENS = { digit: 36, number: 15 };

export const events = new EventTarget();
const fire = (name) => events.dispatchEvent(new Event(name));

const pad = $("pad");
// keep the pad in memory instead of on the graphics card, because every request reads it
const paper = pad.getContext("2d", { willReadFrequently: true });
const half = document.createElement("canvas");
half.width = half.height = SIDE / 2;

let width = PENS.digit;
let strokes = []; // each a list of points {x, y} in pixels of the pad
let picture = null; // a file or sample instead of strokes: {blob, bitmap}
let decoding = 0; // number of the latest picture or stroke; the one that comes last is kept
let pointer = null; // the pointer that draws; a second finger or a palm is ignored
let pen = { x: SIDE / 2, y: SIDE / 2, down: false, shown: false }; // moved by the keyboard

function paint() {
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, SIDE, SIDE);
  if (picture?.bitmap) {
    const { width, height } = picture.bitmap;
    const scale = Math.min(SIDE / width, SIDE / height);
    const [w, h] = [width * scale, height * scale];
    paper.drawImage(picture.bitmap, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
  }
  paper.strokeStyle = paper.fillStyle = "#000";
  paper.lineWidth = width;
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
  $("undo").disabled = $("clear").disabled = isBlank();
  $("hint").hidden = !isBlank() || pen.shown;
}

export function isBlank() {
  return strokes.length === 0 && !picture;
}

// the keyboard's pen is shown on the pad, but must not be sent
function paintPen() {
  if (!pen.shown) return;
  paper.lineWidth = 3;
  paper.strokeStyle = pen.down ? "#c00" : "#06c";
  paper.beginPath();
  paper.arc(pen.x, pen.y, width / 2, 0, 2 * Math.PI);
  paper.stroke();
}

// what to send: the chosen picture, or the pad as a PNG without the keyboard's pen, in half the size for a digit
export function content(mode) {
  if (picture) return picture.blob;
  paint();
  half.getContext("2d", { willReadFrequently: true }).drawImage(pad, 0, 0, SIDE / 2, SIDE / 2);
  // toBlob would wait until the browser is idle, but toDataURL does not
  const url = (mode === "number" ? pad : half).toDataURL("image/png");
  paintPen();
  const bytes = atob(url.split(",")[1]);
  return new Blob([Uint8Array.from(bytes, (c) => c.charCodeAt(0))], { type: "image/png" });
}

// whether the pad shows what is sent, and the size of the picture that is shown
export const shows = () => !picture || picture.bitmap !== null;

export async function show(blob) {
  const number = ++decoding;
  strokes = [];
  picture = null;
  liftPen();
  fire("picture");
  const decoded = await decode(blob);
  // a stroke or another picture has come since
  if (number !== decoding) return;
  picture = decoded;
  paint();
  fire("end");
}

export function setPen(mode) {
  width = PENS[mode];
  liftPen();
}

function place(event) {
  const { left, top } = pad.getBoundingClientRect();
  const scale = SIDE / pad.clientWidth;
  // clientLeft and clientTop are the widths of the border
  return { x: (event.clientX - left - pad.clientLeft) * scale, y: (event.clientY - top - pad.clientTop) * scale };
}

function begin(point) {
  decoding++;
  picture = null;
  strokes.push([point]);
  fire("begin");
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
  const moves = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(moves.length ? moves : [event]).map(place));
  paint();
  fire("stroke");
});

for (const kind of ["pointerup", "pointercancel"]) {
  pad.addEventListener(kind, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    fire("end");
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
    if (pen.down) strokes.at(-1).push({ x: pen.x, y: pen.y });
  } else if (event.key === " ") {
    pen.down = !pen.down;
    pen.shown = true;
    if (pen.down) begin({ x: pen.x, y: pen.y });
  } else if (event.key === "Backspace" || (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey))) {
    undo();
  } else if (event.key === "Escape") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  paint();
  if (pen.down) fire("stroke");
  else if (event.key === " ") fire("end");
  paintPen();
});

pad.addEventListener("focus", () => {
  // show the pen to keyboard users
  pen.shown = pointer === null && pad.matches(":focus-visible");
  paint();
  paintPen();
});

pad.addEventListener("blur", () => {
  const drew = pen.down;
  pen.shown = pen.down = false;
  paint();
  if (drew) fire("end");
});

function undo() {
  decoding++;
  if (strokes.length) strokes.pop();
  else picture = null;
  liftPen();
  fire(isBlank() ? "blank" : "end");
}

function clear() {
  decoding++;
  strokes = [];
  picture = null;
  liftPen();
  fire("blank");
}

// end an unfinished stroke
function liftPen() {
  pointer = null;
  pen.down = false;
  paint();
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);
paint();
