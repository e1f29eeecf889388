// Shows the answer of POST /predict: the digit, the probability of each, and the pixels that the network saw.

import { $, make, percent } from "./dom.js";
import * as say from "./say.js";

export const PATH = "predict?detail=1";

const bars = Array.from({ length: 10 }, (_, digit) => {
  const filled = make("span", { className: "fill" });
  const share = make("span", { className: "share", textContent: "–" });
  const row = make("li", {}, make("span", { textContent: digit }), make("span", { className: "track" }, filled), share);
  $("bars").append(row);
  return { row, filled, share };
});

function fill(probabilities) {
  const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  bars.forEach(({ row, filled, share }, digit) => {
    const probability = probabilities?.[digit];
    row.classList.toggle("best", digit === best);
    // a bar of less than a pixel would only show its round end
    filled.style.width = probability > 0.002 ? `${probability * 100}%` : 0;
    share.textContent = probability === undefined ? "–" : percent(probability);
  });
}

// returns the state and what to say. source: the picture
export function show(found, source) {
  say.offerDigit(source.blob);
  const { predicted_digit: digit, predicted_probability: probability, unsure } = found;
  $("as-number").hidden = !unsure;
  $("digit").textContent = unsure ? "?" : digit;
  fill(found.probabilities);
  const seen = $("seen").getContext("2d");
  const pixels = seen.createImageData(28, 28);
  found.image.flat().forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  seen.putImageData(pixels, 0, 0);
  if (!unsure) return ["read", `It is a ${digit}, ${percent(probability)} sure.`];
  const guess = make("small", { textContent: `Best guess: ${digit} (${percent(probability)})` });
  // in one change, so that a screen reader announces both
  return ["unsure", ["This does not look like one digit. ", guess]];
}

// the terminal sends the pixels that the network saw
export const command = () => ({ path: "predict?prepare=none", data: $("seen").toDataURL("image/png").split(",")[1] });

export function clear() {
  say.hide();
  $("digit").textContent = "?";
  $("as-number").hidden = true;
  $("seen").getContext("2d").clearRect(0, 0, 28, 28);
  fill(null);
}
