// Shows what was read on a page as text in which each digit can be selected and corrected, with the boxes on its
// picture. The number mode and the scans use it.

import { Boxes } from "./boxes.js";
import { isDoubtful, isUnsure, textOf } from "./corrections.js";
import { button, count, make, percent } from "./dom.js";

const CROP = 112; // side of the picture of the selected digit, in pixels
let views = 0;

export class ReadingView extends EventTarget {
  reading = null;
  #selected = null;
  #made = null; // the box of a digit that is added, until its value is typed
  #boxes;
  #crop;
  #change = () => this.#render();

  // svg: lies on the picture. crop(context, box, side): draws a part of the picture. Fires `select` when another digit
  // or box is shown as selected, `end` when there is no further digit in doubt, and `close` on Escape
  constructor(svg, crop) {
    super();
    this.#crop = crop;
    this.name = `view${++views}`;
    this.#boxes = new Boxes(svg, {
      onPick: (digit) => {
        this.select(digit);
        // after the event, which would move the focus
        setTimeout(() => this.text.focus({ preventScroll: true }));
      },
      onBox: (box) => {
        this.#made = box;
        this.#render();
        setTimeout(() => this.text.focus({ preventScroll: true }));
      },
    });
    this.text = make("pre", { className: "text", tabIndex: 0 });
    this.detail = make("p", { className: "detail" });
    this.closeup = make("canvas", { className: "crop", width: CROP, height: CROP, "aria-hidden": "true" });
    const digits = Array.from({ length: 10 }, (_, value) => button(value, () => this.#type(value)));
    this.keys = make("div", { className: "digits", role: "group", "aria-label": "Correct the digit" }, ...digits);
    this.actions = {
      remove: button("Delete", () => this.#remove()),
      add: button("Add…", () => this.#add(), { title: "Add a digit that was missed" }),
      confirm: button("Line is right", () => this.#confirm()),
      undo: button("Undo", () => this.#undo(), { "aria-label": "Undo the correction" }),
      next: button("Next unsure", () => this.next()),
    };
    this.actions.add.setAttribute("aria-pressed", "false");
    const actions = make("div", { className: "actions" }, ...Object.values(this.actions));
    this.others = make("p", { className: "others" });
    this.marks = make("p", { className: "note" });
    this.status = make("p", { className: "hidden", role: "status" });
    const chosen = make("div", { className: "chosen" }, this.closeup, make("div", {}, this.detail, this.others));
    this.element = make("div", { className: "reading-view" }, this.text, chosen, this.keys, actions, this.marks, this.status);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.text.addEventListener("click", (event) => {
      const at = event.target.closest("[data-at]")?.dataset.at;
      if (at !== undefined) this.select(this.reading.digits[at]);
    });
  }

  show(reading, selected = null) {
    this.clear();
    this.reading = reading;
    this.#selected = selected ?? reading.doubts[0] ?? reading.digits[0] ?? null;
    reading.addEventListener("change", this.#change);
    this.#render();
  }

  get selected() {
    return this.#selected;
  }

  clear() {
    this.reading?.removeEventListener("change", this.#change);
    this.reading = this.#selected = this.#made = null;
    this.#boxes.adding = false;
    this.#boxes.clear();
    this.text.replaceChildren();
  }

  select(digit) {
    this.#selected = digit;
    this.#made = null;
    this.#render();
  }

  // select the next digit in doubt; false, and `end` is fired, if there is none after the selected one
  next() {
    const { digits, doubts } = this.reading;
    const here = digits.indexOf(this.#selected);
    const found = doubts.find((digit) => digits.indexOf(digit) > here);
    if (found) this.select(found);
    else this.dispatchEvent(new Event("end"));
    this.text.focus({ preventScroll: true });
    return Boolean(found);
  }

  #render() {
    const { reading } = this;
    // after a correction was made or undone
    if (!reading.digits.includes(this.#selected)) {
      const [box] = [this.#selected?.box];
      this.#selected = reading.digits.find((digit) => digit.box === box) ?? reading.digits[0] ?? null;
    }
    this.#boxes.show(reading, this.#selected, this.#made);
    this.#renderText();
    const line = this.#selected && reading.lineOf(this.#selected);
    this.detail.textContent = this.#made ? "Type the digit in the new box." : this.#selected ? this.#describe(line) : "No digit.";
    this.#renderOthers(line);
    for (const key of this.keys.children) key.disabled = !this.#selected && !this.#made;
    this.actions.remove.disabled = !this.#selected || this.#made !== null;
    this.actions.confirm.disabled = !line || line.confirmed || this.#made !== null;
    this.actions.undo.disabled = !reading.corrected;
    this.actions.add.setAttribute("aria-pressed", this.#boxes.adding);
    const marks = reading.marks.length;
    this.marks.textContent = marks ? `${count(marks, "mark")} that ${marks === 1 ? "is no digit has a dotted box" : "are no digits have dotted boxes"}.` : "";
    const context = this.closeup.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, CROP, CROP);
    const box = this.#made ?? this.#selected?.box;
    this.closeup.hidden = !box;
    if (box) this.#crop(context, around(box), CROP);
    this.dispatchEvent(new Event("select"));
  }

  #renderText() {
    this.text.replaceChildren();
    let at = 0;
    let active = "";
    for (const [i, line] of this.reading.lines.entries()) {
      if (i) this.text.append("\n");
      const label = `Line ${i + 1}${isUnsure(line) ? ", unsure" : ""}`;
      const group = make("span", { className: isUnsure(line) ? "unsure-line" : "", role: "group", "aria-label": label });
      for (const [k, word] of line.words.entries()) {
        if (k) group.append(" ");
        for (const digit of word) {
          const doubt = isDoubtful(line, digit);
          const option = make("span", { id: `${this.name}-${at}`, textContent: digit.digit, role: "option", "data-at": at++ });
          option.classList.toggle("doubt", doubt);
          option.classList.toggle("corrected", digit.digit !== digit.was);
          option.setAttribute("aria-label", `${digit.digit}${doubt ? ", unsure" : ""}${digit.digit !== digit.was ? ", corrected" : ""}`);
          option.setAttribute("aria-selected", digit === this.#selected);
          if (digit === this.#selected) active = option.id;
          group.append(option);
        }
      }
      this.text.append(group);
    }
    this.text.setAttribute("role", at ? "listbox" : "group");
    this.text.setAttribute("aria-label", at ? "Digits read" : "No digits read");
    if (active) this.text.setAttribute("aria-activedescendant", active);
    else this.text.removeAttribute("aria-activedescendant");
    this.text.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  #describe(line) {
    const { digit, was, probability } = this.#selected;
    const [i, k] = [this.reading.lines.indexOf(line), line.words.flat().indexOf(this.#selected)];
    const place = `Line ${i + 1}, digit ${k + 1}: ${digit}`;
    if (was === null) return `${place}, added.`;
    if (was !== digit) return `${place}, was read as ${was} (${percent(probability)}).`;
    const more = line.confirmed || this.#selected.checked ? ", confirmed" : isDoubtful(line, this.#selected) ? ", unsure" : "";
    return `${place} (${percent(probability)})${more}.`;
  }

  // the other readings of the line; those with as many digits can be taken
  #renderOthers(line) {
    const others = line?.alternatives.filter(({ text }) => text !== textOf(line)) ?? [];
    this.others.replaceChildren(others.length ? "Or: " : "");
    for (const { text, probability } of others) {
      const label = `${text} (${percent(probability)})`;
      const fits = text.replaceAll(" ", "").length === line.words.flat().length;
      this.others.append(fits ? button(label, () => this.reading.replace(this.reading.lineOf(this.#selected), text)) : make("span", { textContent: label }));
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "z") return;
      this.#undo();
    } else if (event.altKey) {
      return;
    } else if (/^[0-9]$/.test(event.key)) {
      this.#type(Number(event.key));
    } else if (event.key === "n") {
      this.next();
    } else if (event.key === "Insert" || event.key === "+") {
      this.#add();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.#remove();
    } else if (event.key === "Escape") {
      if (this.#boxes.adding) this.#stopAdding();
      else this.dispatchEvent(new Event("close"));
    } else if (event.target !== this.text) {
      return;
    } else if (event.key === "Enter") {
      this.#confirm();
    } else if (!this.#move(event.key, event.shiftKey)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // returns whether the key moves the selection, or the box of a new digit (its size with Shift)
  #move(key, shift) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(key in moves) && key !== "Home" && key !== "End") return false;
    const [dx, dy] = moves[key] ?? [0, 0];
    if (this.#made) {
      const step = Math.ceil(Math.max(...this.reading.size) / 100);
      const [x, y, w, h] = this.#made;
      const [right, bottom] = this.reading.size;
      const within = (value, least, most) => Math.max(Math.min(value, most), least);
      this.#made = shift
        ? [x, y, within(w + dx * step, 1, right - x), within(h + dy * step, 1, bottom - y)]
        : [within(x + dx * step, 0, right - w), within(y + dy * step, 0, bottom - h), w, h];
      this.#render();
      return true;
    }
    const { digits, lines } = this.reading;
    let there = null;
    if (key === "Home") there = digits[0];
    else if (key === "End") there = digits.at(-1);
    else if (dx) there = digits[digits.indexOf(this.#selected) + dx];
    else if (this.#selected) {
      const line = lines[lines.indexOf(this.reading.lineOf(this.#selected)) + dy];
      const away = ({ box }) => Math.abs(box[0] + box[2] / 2 - this.#selected.box[0] - this.#selected.box[2] / 2);
      there = line?.words.flat().reduce((a, b) => (away(a) <= away(b) ? a : b));
    }
    if (there) this.select(there);
    return true;
  }

  #type(value) {
    if (this.#made) {
      const box = this.#made;
      this.#stopAdding();
      this.#selected = this.reading.add(box, value);
    } else if (this.#selected) {
      this.#selected = this.reading.change(this.#selected, value);
    } else {
      return;
    }
    this.#render();
    this.#say();
  }

  #remove() {
    if (!this.#selected || this.#made) return;
    this.#selected = this.reading.remove(this.#selected);
    this.#render();
    this.#say("Deleted. ");
  }

  #confirm() {
    const line = this.#selected && !this.#made && this.reading.lineOf(this.#selected);
    if (!line) return;
    this.reading.confirm(line);
    this.#say("Line confirmed. ");
  }

  #undo() {
    const before = new Set(this.reading.digits);
    if (!this.reading.undo()) return;
    const back = this.reading.digits.find((digit) => !before.has(digit));
    if (back) this.select(back);
    this.#say("Undone. ");
  }

  // a new box is drawn by pointer, or begins right of the selected digit and is moved by the arrow keys
  #add() {
    if (this.#boxes.adding) return this.#stopAdding();
    this.#boxes.adding = true;
    const [w, h] = this.#boxes.usual();
    const [width, height] = this.reading.size;
    const [x, y] = this.#selected ? [this.#selected.box[0] + this.#selected.box[2] * 1.2, this.#selected.box[1]] : [width / 2, height / 2];
    this.#made = [Math.max(Math.min(Math.round(x), width - w), 0), Math.max(Math.min(Math.round(y), height - h), 0), w, h];
    this.#render();
    this.text.focus({ preventScroll: true });
    this.status.textContent = "Draw a box on the picture, or move it with the arrow keys, then type the digit.";
    this.detail.textContent = this.status.textContent;
  }

  #stopAdding() {
    this.#boxes.adding = false;
    this.#made = null;
    this.#render();
  }

  #say(what = "") {
    this.status.textContent = what + this.detail.textContent;
  }
}

// a square with some of the picture around a digit
function around([x, y, width, height]) {
  const side = Math.max(width, height) * 2;
  return [x + width / 2 - side / 2, y + height / 2 - side / 2, side, side];
}
