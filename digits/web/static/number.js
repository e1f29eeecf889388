// Shows the answer of POST /read for the pad: boxes on the pad, and beside it the digits, which can be corrected.

import { $, copy, percent } from "./dom.js";
import { Reading } from "./corrections.js";
import * as pad from "./pad.js";
import { ReadingView } from "./reading.js";
import * as say from "./say.js";

export const PATH = "read?alternatives=3";

const view = new ReadingView($("boxes"), (context, [x, y, width, height], side) => {
  // the picture is centred on the pad
  const [w, h] = view.reading.size;
  const scale = Math.min(pad.SIDE / w, pad.SIDE / h);
  const [left, top] = [(pad.SIDE - w * scale) / 2, (pad.SIDE - h * scale) / 2];
  if (pad.shows()) context.drawImage($("pad"), left + x * scale, top + y * scale, width * scale, height * scale, 0, 0, side, side);
});
view.text.id = "text";
$("reading").append(view.element);

// returns the state and what to say. source: the picture
export function show(found, source) {
  say.offerReading(source.blob);
  view.show(new Reading(found, source));
  const [line] = found.lines;
  const unsure = found.lines.filter((each) => each.unsure).length;
  $("reading").hidden = !line;
  if (!line) return ["nothing", "No digit was found."];
  const state = unsure ? "unsure" : "read";
  if (found.lines.length > 1) return [state, `It reads ${found.lines.length} lines, ${unsure || "none"} of them unsure.`];
  const probability = percent(line.probability);
  return [state, unsure ? `It may read ${line.text} (${probability}).` : `It reads ${line.text}, ${probability} sure.`];
}

export async function command(blob) {
  // a larger picture would not fit on a command line
  if (blob.size > 1 << 16) return { path: "read", data: null };
  return { path: "read", data: btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer()))) };
}

export function clear() {
  say.hide();
  view.clear();
  $("reading").hidden = true;
}

// begin again with the first
view.addEventListener("end", () => {
  const [doubt] = view.reading.doubts;
  if (doubt) view.select(doubt);
});
$("copy-text").addEventListener("click", () => copy($("copy-text"), view.reading.text, view.text));
