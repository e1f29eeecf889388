// What was read on a page, and what people correct in it. It has no part in how either is shown.

// Fires `corrected` after each correction, with its detail: {kind, reading, digit, was, box}. kind: "changed", "removed",
// "added", "confirmed" (it was right), or "undone". digit, was: the digit now and as it was read, or null. box: its
// place in the picture reading.source, {blob, name, page, pages}.
export const corrections = new EventTarget();

const middle = ([, y, , height]) => y + height / 2;

// A line has {probability, unsure, alternatives, confirmed, removed, words}, each word a list of digits, and a digit
// {digit, was, probability, unsure, checked, box, column}. column: the index of its word's column on the page. Neither
// is ever changed, so that a list of them can be put back.
export class Reading extends EventTarget {
  #past = [];

  // answer: of POST /read for a page
  constructor(answer, source) {
    super();
    this.source = source;
    this.size = answer.size;
    this.marks = answer.marks;
    this.lines = answer.lines.map(({ probability, unsure, alternatives = [], words, digits }) => {
      const known = digits.map((digit) => ({ ...digit, was: digit.digit, checked: false }));
      const parted = words.map(({ digits, column }) => known.splice(0, digits.length).map((digit) => ({ ...digit, column })));
      return { probability, unsure, alternatives, confirmed: false, removed: 0, words: parted };
    });
  }

  get digits() {
    return this.lines.flatMap((line) => line.words.flat());
  }

  get text() {
    return this.lines.map(textOf).join("\n");
  }

  get corrected() {
    return this.#past.length > 0;
  }

  lineOf(digit) {
    return this.lines.find((line) => line.words.flat().includes(digit));
  }

  // the digits to look at: those in doubt, or the least probable one of a line that is unsure without saying where
  get doubts() {
    return this.lines.flatMap((line) => {
      const digits = line.words.flat();
      const doubts = line.confirmed ? [] : digits.filter(inDoubt);
      if (doubts.length || !isUnsure(line)) return doubts;
      return [digits.reduce((a, b) => (a.probability <= b.probability ? a : b))];
    });
  }

  // each returns the digit to select next

  change(digit, value) {
    const changed = { ...digit, digit: value, checked: true };
    this.#put(digit, [changed]);
    this.#tell(value === digit.was ? "confirmed" : "changed", changed);
    return changed;
  }

  remove(digit) {
    const all = this.digits;
    const next = all[all.indexOf(digit) + 1] ?? all[all.indexOf(digit) - 1] ?? null;
    this.#put(digit, []);
    this.#tell("removed", { ...digit, digit: null });
    return next;
  }

  add(box, value) {
    const added = { digit: value, was: null, probability: null, unsure: false, checked: true, box, column: columnAt(box, this.lines) };
    const line = this.lines.find(({ words }) => {
      const boxes = words.flat().map((digit) => digit.box);
      return boxes.some(([, y, , height]) => middle(box) > y && middle(box) < y + height);
    });
    if (line) {
      this.#set(this.lines.map((each) => (each === line ? { ...line, words: withDigit(line.words, added) } : each)));
    } else {
      const made = { probability: null, unsure: false, alternatives: [], confirmed: false, removed: 0, words: [[added]] };
      const below = this.lines.findIndex(({ words }) => middle(words[0][0].box) > middle(box));
      this.#set(this.lines.toSpliced(below < 0 ? this.lines.length : below, 0, made));
    }
    this.#tell("added", added);
    return added;
  }

  // all of the line is right
  confirm(line) {
    if (line.confirmed) return;
    const confirmed = { ...line, confirmed: true };
    this.#set(this.lines.map((each) => (each === line ? confirmed : each)));
    for (const digit of line.words.flat()) if (digit.was === digit.digit) this.#tell("confirmed", digit);
  }

  // take another reading of a line, which must have as many digits
  replace(line, text) {
    const values = [...text.replaceAll(" ", "")].map(Number);
    let i = 0;
    const words = line.words.map((word) => word.map((digit) => ({ ...digit, digit: values[i++], checked: true })));
    const before = line.words.flat();
    this.#set(this.lines.map((each) => (each === line ? { ...line, words } : each)));
    words.flat().forEach((digit, k) => {
      if (digit.digit !== before[k].digit) this.#tell("changed", digit);
    });
  }

  // returns whether there was something to undo
  undo() {
    if (!this.#past.length) return false;
    this.lines = this.#past.pop();
    this.dispatchEvent(new Event("change"));
    corrections.dispatchEvent(new CustomEvent("corrected", { detail: { kind: "undone", reading: this } }));
    return true;
  }

  #set(lines) {
    this.#past.push(this.lines);
    this.lines = lines;
    this.dispatchEvent(new Event("change"));
  }

  #put(digit, instead) {
    const line = this.lineOf(digit);
    const words = line.words.map((word) => word.flatMap((each) => (each === digit ? instead : [each])));
    const removed = line.removed + 1 - instead.length;
    const changed = { ...line, removed, words: words.filter((word) => word.length) };
    this.#set(this.lines.flatMap((each) => (each !== line ? [each] : changed.words.length ? [changed] : [])));
  }

  #tell(kind, { digit, was, box }) {
    const detail = { kind, reading: this, digit, was, box };
    corrections.dispatchEvent(new CustomEvent("corrected", { detail }));
  }
}

function withDigit(words, added) {
  const height = added.box[3];
  // the word whose digits are nearest, if they are no further away than digits of a word mostly are
  const distance = (word) => gap(word, added.box);
  const near = words.reduce((a, b) => (distance(a) <= distance(b) ? a : b));
  const byPlace = (a, b) => a.box[0] - b.box[0];
  if (distance(near) <= height * 0.8) {
    added.column = near[0].column;
    return words.map((word) => (word === near ? [...word, added].sort(byPlace) : word));
  }
  return [...words, [added]].sort((a, b) => byPlace(a[0], b[0]));
}

// how far a word is to the side of a box
const gap = (word, [x, , width]) => Math.min(...word.map(({ box: [left, , wide] }) => Math.max(left - x - width, x - left - wide, 0)));

// the column of a word above or below a box, or else beside it
function columnAt(box, lines) {
  const away = (word) => Math.abs(middle(word[0].box) - middle(box));
  const [nearest] = lines.flatMap(({ words }) => words).sort((a, b) => gap(a, box) - gap(b, box) || away(a) - away(b));
  return nearest?.[0].column ?? 0;
}

export const wordText = (word) => word.map(({ digit }) => digit).join("");
export const textOf = (line) => line.words.map(wordText).join(" ");
export const isCorrected = (line) => line.removed > 0 || line.words.flat().some(({ digit, was }) => digit !== was);
const inDoubt = (digit) => digit.unsure && !digit.checked;

// whether to mark a digit: it is in doubt, or its line is and does not say where
export function isDoubtful(line, digit) {
  return !line.confirmed && (inDoubt(digit) || (isUnsure(line) && !line.words.flat().some(inDoubt)));
}

// whether someone should look at the line: until it is confirmed, or all of its digits in doubt are
export function isUnsure(line) {
  const digits = line.words.flat();
  if (!line.unsure || line.confirmed) return false;
  return digits.some(inDoubt) || (line.removed === 0 && !digits.some((digit) => digit.checked));
}
