// "Wrong? Say what it is": sends what a picture shows to POST /corrections, if the service keeps answers. Most answers
// are not kept, so the picture is sent again with keep=1; a scan only if its answer is not kept.

import { $, button, count } from "./dom.js";
import { correct, get, post, reason } from "./api.js";
import { corrections } from "./corrections.js";

const collects = get("./").then(({ body }) => body.collects === true);
let shown = null; // what is shown: {path, blob}
let reading = null; // the corrected reading
// of each file of scans, by its blob, {id, pages, waits}: the request that read it, the readings that were corrected, and
// whether the service does not know that yet
const scans = new Map();

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

// offer to keep the corrections that are made in a file of scans. id: of the request that read it
export function offerScan(blob, id) {
  scans.set(blob, { id, pages: new Set(), waits: false });
}

export function forget(blob) {
  scans.delete(blob);
  showWaiting();
}

corrections.addEventListener("corrected", async ({ detail }) => {
  const scan = scans.get(detail.reading.source.blob);
  if (scan) {
    scan.pages.add(detail.reading);
    scan.waits = true;
    $("say-scans-said").textContent = "";
    showWaiting();
  }
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
$("say-reading").addEventListener("click", () => send(linesOf(reading)));

function linesOf(reading) {
  return { text: reading.text, boxes: reading.digits.map(({ box }) => box) };
}

// --- scans ---------------------------------------------------------------------------------------------------

const waiting = () => [...scans].filter(([, { waits }]) => waits);

async function showWaiting() {
  const wanted = await collects;
  $("say-scans").hidden = !wanted || !waiting().length;
}

// what a file shows, or null if that can't be said: that a page among several shows no digit
function saidOf(readings) {
  const [first] = readings;
  if (first.source.pages === 1) return first.digits.length ? linesOf(first) : "no digit";
  const pages = readings.filter(({ digits }) => digits.length);
  return pages.length ? pages.map((each) => ({ page: each.source.page, ...linesOf(each) })) : null;
}

// returns the service's answer
async function sendScan(blob, scan) {
  const said = saidOf([...scan.pages]);
  if (!said) return { ok: true };
  const answer = await correct(scan.id, said, true);
  if (answer.status !== 404) return answer;
  const again = await post("read?keep=1", blob);
  if (!again.ok) return again;
  scan.id = again.id;
  return correct(scan.id, said, true);
}

$("say-scans").addEventListener("click", async () => {
  const all = waiting();
  const problems = [];
  $("say-scans").disabled = true;
  for (const [i, [blob, scan]] of all.entries()) {
    $("say-scans-said").textContent = `Sending ${i + 1} of ${count(all.length, "file")}…`;
    // what is corrected meanwhile waits again
    scan.waits = false;
    const answer = await sendScan(blob, scan);
    if (answer.ok) continue;
    scan.waits = true;
    problems.push(reason(answer));
  }
  const kept = all.length - problems.length;
  const thanks = kept ? `Thank you. The service has kept your corrections of ${count(kept, "file")}.` : "";
  $("say-scans-said").textContent = [thanks, ...new Set(problems)].join(" ").trim();
  $("say-scans").disabled = false;
  showWaiting();
});
