// Shows the model card: its facts, and the confusion matrix of the test images.

import { askForKey, complain, get, onKey } from "./api.js";
import { $, make, percent } from "./dom.js";

const AGAIN = 2000; // ms before it is asked again

async function load() {
  const { ok, status, body: card } = await get("model");
  if (status === 401) return askForKey();
  if (status === 0) complain("The server can't be reached.");
  if (!ok) return setTimeout(load, AGAIN);
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
    $("card").append(make("dt", { textContent: name }), make("dd", { textContent: value ?? "unknown" }));
  }
  if (card.confusion_matrix) mistakes(card.confusion_matrix, tests);
}

function mistakes(matrix, tests) {
  const wrong = matrix
    .flatMap((row, is) => row.map((count, said) => ({ count, is, said })))
    .filter(({ is, said }) => is !== said)
    .sort((a, b) => b.count - a.count);
  const [worst] = wrong;
  const all = wrong.reduce((sum, { count }) => sum + count, 0);
  const often = all ? `, most often a ${worst.is} as a ${worst.said} (${worst.count} times)` : "";
  $("wrong").textContent = `The model misread ${all} of ${tests.toLocaleString("en")} test images${often}.`;
  const digits = matrix.map((_, digit) => make("th", { scope: "col", textContent: digit }));
  $("confusion").createTHead().insertRow().append(make("td"), ...digits);
  const body = $("confusion").createTBody();
  matrix.forEach((counts, is) => {
    const row = body.insertRow();
    row.append(make("th", { scope: "row", textContent: is }));
    counts.forEach((count, said) => {
      const cell = make("td", { textContent: count || "·", className: is === said ? "right" : count ? "wrong" : "none" });
      cell.style.setProperty("--part", count / worst.count);
      row.append(cell);
    });
  });
  $("mistakes").hidden = false;
}

onKey(() => {
  if (!$("card").hasChildNodes()) load();
});
load();
