// The scans: a row for each page of the files that were chosen, with what was read in it. A row opens to its picture,
// where digits can be corrected.

import { Reading, isDoubtful, isUnsure } from "./corrections.js";
import { $, button, copy, count, make } from "./dom.js";
import { csv, json, tsv } from "./export.js";
import { ofInput } from "./files.js";
import { ofDataUrl, thumbnail } from "./picture.js";
import * as queue from "./queue.js";
import { ReadingView } from "./reading.js";
import * as say from "./say.js";

const THUMB = 96; // width of a thumbnail in pixels
const SHOWN = 6; // lines of a page that are shown in its row
const ZOOMS = [1, 1.5, 2, 3, 4];

const list = $("rows");
let scans = []; // in the order of the rows: {name, blob, shown, page, pages, reading, error, state, row, ...}
let open = null; // the scan whose row is open
let unsaved = false;

// --- rows ----------------------------------------------------------------------------------------------------

// after: the scan behind whose row it is put; null for the end
function makeScan(name, blob, page, after = null) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  const thumb = make("canvas", { width: THUMB, height: THUMB * 0.75, className: "thumb", "aria-hidden": "true" });
  const scan = { name, blob, page, pages: 1, reading: null, error: null, state: "waiting", thumb };
  scan.title = make("span", { className: "name", textContent: name });
  scan.status = make("span", { className: "status" });
  scan.text = make("span", { className: "lines" });
  scan.opener = button("", () => toggle(scan), { className: "opener", "aria-expanded": "false" });
  scan.opener.append(thumb, make("span", { className: "words" }, scan.title, scan.status, scan.text));
  scan.retry = button("Try again", () => read(scan), { className: "retry", hidden: true });
  scan.row = make("li", { id: `scan-${id}` }, make("div", { className: "head" }, scan.opener, scan.retry));
  if (after) {
    scans.splice(scans.indexOf(after) + 1, 0, scan);
    after.row.after(scan.row);
  } else {
    scans.push(scan);
    list.append(scan.row);
  }
  return scan;
}

function setState(scan, state, text) {
  scan.state = scan.row.dataset.state = state;
  scan.status.textContent = text;
  scan.error = state === "failed" ? text : null;
  scan.opener.disabled = state !== "done";
  scan.retry.hidden = state !== "failed";
  progress();
}

function read(scan) {
  let picture = null; // small; stays null if the browser can't show the file, or not all its pages
  scan.job = {
    blob: scan.blob,
    cancelled: false,
    query: async () => {
      if (!/tiff/.test(scan.blob.type)) picture ??= await thumbnail(scan.blob, THUMB);
      return picture ? "" : "&page_image=1";
    },
    onState: (state, text) => setState(scan, state, text),
    onAnswer: async (readings, id) => {
      say.offerScan(scan.blob, id);
      let last = scan;
      for (const [i, answer] of readings.entries()) {
        const page = answer.page ?? i + 1;
        const each = i ? makeScan(scan.name, scan.blob, page, last) : scan;
        last = each;
        each.pages = readings.length;
        each.page = page;
        each.shown = answer.page_image ? ofDataUrl(answer.page_image) : scan.blob;
        delete answer.page_image;
        each.reading = new Reading(answer, { blob: scan.blob, name: scan.name, page, pages: readings.length });
        each.reading.addEventListener("change", () => {
          unsaved = true;
          describe(each);
        });
        unsaved = true;
        if (readings.length > 1) each.title.textContent = `${scan.name}, page ${page}`;
        setState(each, "done", "");
        describe(each);
        drawThumb(each.thumb, picture ?? (await thumbnail(each.shown, THUMB)));
      }
    },
  };
  queue.add(scan.job);
}

// what was read, with the digits in doubt marked
function describe(scan) {
  const { reading } = scan;
  const unsure = reading.lines.filter(isUnsure).length;
  const doubts = reading.doubts.length;
  scan.row.classList.toggle("unsure", doubts > 0);
  const lines = reading.lines.length ? count(reading.lines.length, "line") : "No digit found";
  const which = unsure ? `, ${unsure} unsure` : doubts ? `, ${count(doubts, "digit")} unsure` : "";
  scan.status.textContent = lines + which + (reading.corrected ? ", corrected" : "");
  scan.text.replaceChildren();
  for (const line of reading.lines.slice(0, SHOWN)) {
    const shown = make("span", { className: isUnsure(line) ? "line unsure-line" : "line" });
    for (const [k, word] of line.words.entries()) {
      if (k) shown.append(" ");
      for (const digit of word) {
        const doubt = isDoubtful(line, digit);
        shown.append(doubt ? make("span", { className: "doubt", textContent: digit.digit }) : String(digit.digit));
      }
    }
    scan.text.append(shown, " ");
  }
  if (reading.lines.length > SHOWN) scan.text.append(`and ${count(reading.lines.length - SHOWN, "more line", "more lines")}`);
  progress();
}

// closes the picture
function drawThumb(thumb, picture) {
  const scale = Math.min(thumb.width / picture.width, thumb.height / picture.height);
  // on the graphics card, hundreds of small canvases would be slow
  const context = thumb.getContext("2d", { willReadFrequently: true });
  const [w, h] = [picture.width * scale, picture.height * scale];
  const [left, top] = [(thumb.width - w) / 2, (thumb.height - h) / 2];
  context.clearRect(0, 0, thumb.width, thumb.height);
  context.fillStyle = "#fff";
  context.fillRect(left, top, w, h);
  context.drawImage(picture, left, top, w, h);
  picture.close();
}

// --- progress ------------------------------------------------------------------------------------------------

let scheduled = false;
let announced = "";

// once a frame, whatever has changed
function progress() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const number = (...states) => scans.filter(({ state }) => states.includes(state)).length;
    const [done, failed] = [number("done"), number("failed")];
    const unsure = scans.filter(({ row }) => row.classList.contains("unsure")).length;
    const left = scans.length - done - failed;
    const parts = [`${done} of ${count(scans.length, "page")} read`];
    if (left) parts.push(`${left} waiting`);
    if (failed) parts.push(`${failed} failed`);
    if (number("busy")) parts.push("the service is busy");
    parts.push(unsure ? `${unsure} unsure` : "none unsure");
    const text = `${parts.join(", ")}.`;
    $("scans-count").textContent = text;
    $("scans-bar").max = Math.max(scans.length, 1);
    $("scans-bar").value = done + failed;
    $("scans-list").hidden = $("scans-tools").hidden = !scans.length;
    for (const id of ["csv", "tsv", "json"]) $(id).disabled = !done && !failed;
    $("retry-all").hidden = !failed;
    // a screen reader is told the end, not each step
    if (!left && scans.length && text !== announced) $("scans-said").textContent = announced = text;
  });
}

// --- the open row ----------------------------------------------------------------------------------------------

const picture = make("img", { alt: "" });
const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
svg.classList.add("boxes");
svg.setAttribute("aria-hidden", "true");
const sheet = make("div", { className: "sheet" }, picture, svg);
const frame = make("div", { className: "frame", tabIndex: 0, role: "region", "aria-label": "The picture" }, sheet);
const zoom = (step) => {
  const at = ZOOMS.indexOf(Number(sheet.dataset.zoom)) + step;
  sheet.dataset.zoom = ZOOMS[Math.min(Math.max(at, 0), ZOOMS.length - 1)];
  sheet.style.width = `${sheet.dataset.zoom * 100}%`;
};
sheet.dataset.zoom = 1;
const view = new ReadingView(svg, (context, [x, y, width, height], side) => {
  const scale = picture.naturalWidth / open.reading.size[0];
  if (scale) context.drawImage(picture, x * scale, y * scale, width * scale, height * scale, 0, 0, side, side);
});
const removeButton = button("Remove from the list", () => remove(open));
const zooms = make("div", { className: "actions" }, button("Smaller", () => zoom(-1)), button("Larger", () => zoom(1)), removeButton);
const editor = make("div", { className: "editor" }, make("div", { className: "picture" }, frame, zooms), view.element);
picture.addEventListener("load", () => open && view.select(view.selected));
// show the selected digit
view.addEventListener("select", () => {
  const group = svg.querySelector(".selected, .made");
  if (!group) return;
  const [outer, inner] = [frame.getBoundingClientRect(), group.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom) frame.scrollTop += (inner.top + inner.bottom - outer.top - outer.bottom) / 2;
  if (inner.left < outer.left || inner.right > outer.right) frame.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
});

function toggle(scan) {
  if (open === scan) close();
  else show(scan);
}

function show(scan, digit = null) {
  close();
  open = scan;
  scan.row.classList.add("open");
  scan.opener.setAttribute("aria-expanded", "true");
  const [width, height] = scan.reading.size;
  sheet.style.aspectRatio = `${width} / ${height}`;
  picture.src = URL.createObjectURL(scan.shown);
  scan.row.append(editor);
  view.show(scan.reading, digit);
  scan.row.scrollIntoView({ block: "nearest" });
}

function close() {
  if (!open) return;
  view.clear();
  editor.remove();
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.removeAttribute("src");
  open.row.classList.remove("open");
  open.opener.setAttribute("aria-expanded", "false");
  open = null;
}

view.addEventListener("close", () => {
  const { opener } = open;
  close();
  opener.focus();
});
view.addEventListener("end", nextUnsure);

// open the next row with a digit in doubt, behind the open one or from the beginning
function nextUnsure() {
  const here = scans.indexOf(open);
  const found = [...scans.slice(here + 1), ...scans.slice(0, here + 1)].find(({ reading }) => reading?.doubts.length);
  if (!found) {
    $("scans-said").textContent = announced = "Nothing is unsure.";
    return;
  }
  if (found === open) view.select(found.reading.doubts[0]);
  else show(found, found.reading.doubts[0]);
  view.text.focus({ preventScroll: true });
}

function remove(scan) {
  const next = scans[scans.indexOf(scan) + 1] ?? scans[scans.indexOf(scan) - 1];
  close();
  scan.job && (scan.job.cancelled = true);
  scans = scans.filter((each) => each !== scan);
  scan.row.remove();
  if (scans.every(({ blob }) => blob !== scan.blob)) say.forget(scan.blob);
  progress();
  (next?.opener ?? $("scan-files")).focus();
}

list.addEventListener("keydown", (event) => {
  if (!event.target.matches(".opener") || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
  const shown = scans.filter(({ row }) => row.checkVisibility());
  const at = shown.findIndex(({ opener }) => opener === event.target);
  shown[at + (event.key === "ArrowDown" ? 1 : -1)]?.opener.focus();
  event.preventDefault();
});

$("scans").addEventListener("keydown", (event) => {
  if (event.key !== "n" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (open) view.next();
  else nextUnsure();
  event.preventDefault();
});

// --- in and out ------------------------------------------------------------------------------------------------

// found: {files, skipped}, of files.js
export async function add({ files, skipped }) {
  $("scans-skipped").textContent = skipped ? `${count(skipped, "other file")} skipped.` : "";
  for (const [i, { name, blob }] of files.entries()) {
    // leave the browser time to show what there is
    if (i % 20 === 19) await new Promise((resolve) => setTimeout(resolve));
    read(makeScan(name, blob, 1));
  }
}

for (const id of ["scan-files", "scan-folder"]) {
  $(id).addEventListener("change", (event) => {
    add(ofInput(event.target));
    event.target.value = "";
  });
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  unsaved = false;
}

$("csv").addEventListener("click", () => download("digits.csv", "text/csv;charset=utf-8", csv(scans)));
$("json").addEventListener("click", () => download("digits.json", "application/json", json(scans)));
$("tsv").addEventListener("click", () => {
  copy($("tsv"), tsv(scans));
  unsaved = false;
});
$("next-unsure").addEventListener("click", () => (open ? view.next() : nextUnsure()));
$("only-unsure").addEventListener("change", (event) => list.classList.toggle("only-unsure", event.target.checked));
$("retry-all").addEventListener("click", () => scans.filter(({ state }) => state === "failed").forEach(read));
addEventListener("beforeunload", (event) => {
  const busy = scans.some(({ state }) => !["done", "failed"].includes(state));
  if (unsaved || busy) event.preventDefault();
});
list.classList.toggle("only-unsure", $("only-unsure").checked);
