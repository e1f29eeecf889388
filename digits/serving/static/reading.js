// Shows the answer of POST /read: a box with the value around each digit on the pad, and the text for copying. Unsure
// digits have another colour and dashed boxes.

const SIDE = 560; // size of the pad and of the SVG with the boxes
const LARGEST = 26; // maximum font size of a value
const READABLE = 7; // values that would be smaller are not shown

const boxes = document.getElementById("boxes");
const text = document.getElementById("text");

function make(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// width, height: size of the picture as it was sent, which is centred on the pad
export function showReading(reading, width, height) {
  clearReading();
  document.getElementById("reading").hidden = !reading.text;
  reading.lines.forEach((line, i) => {
    if (i) text.append("\n");
    line.words.forEach((word, k) => {
      if (k) text.append(" ");
      for (const digit of word.digits) {
        const shown = document.createElement("span");
        shown.textContent = digit.digit;
        shown.classList.toggle("doubt", line.unsure || digit.unsure);
        text.append(shown);
      }
    });
  });
  // the browser can't show the picture's format
  if (width <= 1) return;
  const scale = Math.min(SIDE / width, SIDE / height);
  const [left, top] = [(SIDE - width * scale) / 2, (SIDE - height * scale) / 2];
  const place = ([x, y, w, h]) => ({ x: left + x * scale, y: top + y * scale, width: w * scale, height: h * scale });
  for (const box of reading.marks) make("rect", { ...place(box), class: "mark" }, boxes);
  for (const line of reading.lines) {
    for (const digit of line.digits) {
      const doubt = line.unsure || digit.unsure;
      const group = make("g", { class: doubt ? "doubt" : "" }, boxes);
      const box = place(digit.box);
      make("rect", box, group);
      const size = Math.min(LARGEST, box.height * 0.6);
      if (size < READABLE) continue;
      // above the box, or below it if it is at the top
      const y = box.y > size ? box.y - size * 0.2 : box.y + box.height + size;
      const at = `translate(${box.x + box.width / 2} ${y}) scale(${size})`;
      make("text", { transform: at }, group).textContent = doubt ? `${digit.digit}?` : digit.digit;
    }
  }
}

export function clearReading() {
  boxes.replaceChildren();
  text.replaceChildren();
  document.getElementById("reading").hidden = true;
}
