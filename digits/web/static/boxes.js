// Draws a box with the value around each digit of a reading, in an SVG that lies on the picture. Digits in doubt have
// another colour, dashed boxes and a question mark. Digits can be picked by pointer, and new boxes drawn.

import { isDoubtful } from "./corrections.js";

// in parts of 560 of the picture's longer side
const LARGEST = 26; // maximum font size of a value
const NEAR = 16; // a pointer picks a digit up to this far away
// in pixels of the window
const FINE = 30; // digits that are less high get thin boxes, which leave them legible
const READABLE = 8; // values whose font would mostly be smaller are not shown
const FONT = 0.6; // font size of a value, in heights of its digit

function draw(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

export class Boxes {
  #svg;
  #reading = null;
  #begun = null; // where a new box was begun

  // onPick(digit), onBox(box): called if a digit is picked, and if the box of a new one is drawn
  constructor(svg, { onPick, onBox }) {
    this.#svg = svg;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.#reading || !this.adding) return;
      event.preventDefault();
      svg.setPointerCapture(event.pointerId);
      this.#begun = this.#point(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (this.#begun) onBox(this.#between(this.#begun, this.#point(event)));
    });
    svg.addEventListener("pointerup", (event) => {
      if (this.#begun) onBox(this.#between(this.#begun, this.#point(event)));
      this.#begun = null;
    });
    // not when the pointer goes down, because a finger may scroll
    svg.addEventListener("click", (event) => {
      const digit = this.#reading && !this.adding && this.#nearest(this.#point(event));
      if (digit) onPick(digit);
    });
    svg.addEventListener("pointercancel", () => (this.#begun = null));
    new ResizeObserver(() => this.#fit()).observe(svg);
  }

  get adding() {
    return this.#svg.classList.contains("adding");
  }

  set adding(on) {
    this.#svg.classList.toggle("adding", on);
  }

  // selected: a digit or null. made: the box of a new digit, or null
  show(reading, selected, made) {
    this.clear();
    this.#reading = reading;
    const [width, height] = reading.size;
    const unit = Math.max(width, height) / 560;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const rect = ([x, y, width, height], parent, more) => draw("rect", { x, y, width, height, ...more }, parent);
    for (const box of reading.marks) rect(box, this.#svg, { class: "mark" });
    for (const line of reading.lines) {
      for (const digit of line.words.flat()) {
        const doubt = isDoubtful(line, digit);
        const kinds = [doubt && "doubt", digit.checked && "checked", digit === selected && "selected"];
        const group = draw("g", { class: kinds.filter(Boolean).join(" ") }, this.#svg);
        rect(digit.box, group);
        const [x, y, w, h] = digit.box;
        const size = Math.min(LARGEST * unit, h * FONT);
        // above the box, or below it if it is at the top
        const top = y > size ? y - size * 0.2 : y + h + size;
        const at = `translate(${x + w / 2} ${top}) scale(${size})`;
        draw("text", { transform: at }, group).textContent = doubt ? `${digit.digit}?` : digit.digit;
      }
    }
    if (made) rect(made, draw("g", { class: "made" }, this.#svg));
    this.#fit();
  }

  clear() {
    this.#reading = null;
    this.#svg.replaceChildren();
  }

  // how the boxes look depends on how large the picture is shown
  #fit() {
    if (!this.#reading) return;
    const height = this.usual()[1] * (this.#svg.getScreenCTM()?.a ?? 1);
    this.#svg.classList.toggle("fine", height < FINE);
    this.#svg.classList.toggle("bare", height * FONT < READABLE);
  }

  #point(event) {
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(this.#svg.getScreenCTM().inverse());
  }

  #between(a, b) {
    const [width, height] = this.#reading.size;
    const [left, right] = [a.x, b.x].sort((p, q) => p - q).map((x) => Math.round(Math.min(Math.max(x, 0), width)));
    const [top, bottom] = [a.y, b.y].sort((p, q) => p - q).map((y) => Math.round(Math.min(Math.max(y, 0), height)));
    if (right - left > 2 && bottom - top > 2) return [left, top, right - left, bottom - top];
    // a click instead of a line: a box of the usual size around it
    const [w, h] = this.usual();
    const [x, y] = [Math.max(Math.round(a.x - w / 2), 0), Math.max(Math.round(a.y - h / 2), 0)];
    return [Math.min(x, width - 1), Math.min(y, height - 1), w, h];
  }

  // the median width and height of a digit's box
  usual() {
    const boxes = this.#reading.digits.map(({ box }) => box);
    const side = Math.ceil(Math.max(...this.#reading.size) / 20);
    const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    return boxes.length ? [2, 3].map((i) => median(boxes.map((box) => box[i]))) : [side, side];
  }

  #nearest({ x, y }) {
    const away = ({ box: [left, top, w, h] }) =>
      Math.hypot(Math.max(left - x, 0, x - left - w), Math.max(top - y, 0, y - top - h));
    let found = null;
    let least = (NEAR * Math.max(...this.#reading.size)) / 560;
    for (const digit of this.#reading.digits) {
      if (away(digit) < least) [found, least] = [digit, away(digit)];
    }
    return found;
  }
}
