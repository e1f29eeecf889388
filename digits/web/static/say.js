// "Wrong? Say what it is": sends what a picture shows to POST /corrections, if the service keeps answers. Most answers
// are not kept, so the picture is sent again with keep=1.

import { $, button } from "./dom.js";
import { correct, get, post, reason } from "./api.js";
import { corrections } from "./corrections.js";

const collects = get("./").then(({ body }) => body.collects === true);
let shown = null; // what is shown: {path, blob}
let reading = null; // the corrected reading

function hide() {
  shown = reading = null;
  $("say").open = false;
  $("say").hidden = $("say-reading").hidden = true;
  $("say-said").textContent = "";
}

// offer to say which digit the picture shows
export async function offerDigit(blob) {
  hide();
  const mine = (shown = { path: "predict?keep=1", blob });
  const wanted = await collects;
  if (shown === mine) $("say").hidden = !wanted;
}

// offer to keep the corrections that are made in a reading of the picture
export function offerReading(blob) {
  hide();
  shown = { path: "read?keep=1", blob };
}

export { hide };

corrections.addEventListener("corrected", async ({ detail }) => {
  if (!shown || detail.reading.source.blob !== shown.blob) return;
  reading = detail.reading;
  $("say-said").textContent = "";
  if (await collects) $("say-reading").hidden = !reading?.digits.length;
});

async function send(said) {
  const { path, blob } = shown;
  $("say-said").textContent = "Sending…";
  let answer = await post(path, blob);
  if (answer.ok) answer = await correct(answer.id, said);
  if (shown?.blob !== blob) return;
  $("say-said").textContent = answer.ok ? "Thank you. The service has kept it." : reason(answer);
}

for (let digit = 0; digit < 10; digit++) $("say-digits").append(button(digit, () => send(digit)));
$("say-digits").append(button("No digit", () => send("no digit")));
$("say-reading").addEventListener("click", () => {
  send({ text: reading.text, boxes: reading.digits.map(({ box }) => box) });
});
