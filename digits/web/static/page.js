// The page: one digit, a number, or scans. It sends pictures to POST /predict and POST /read like any other client. This
// module chooses between the three, and gives pictures that come from anywhere to the right one. It uses no framework
// and no other host.

import { complain } from "./api.js";
import { $, button, make } from "./dom.js";
import { ACCEPT, hasFolder, ofDrop } from "./files.js";
import * as live from "./live.js";
import "./card.js";
import * as pad from "./pad.js";
import * as scans from "./scans.js";

for (const id of ["file", "scan-files"]) $(id).accept = ACCEPT;

const modes = document.querySelectorAll("[name=mode]");
let mode = "digit"; // or "number" or "scans"

function choose(newMode) {
  mode = newMode;
  modes.forEach((radio) => (radio.checked = radio.value === mode));
  document.body.classList.toggle("number", mode === "number");
  document.body.classList.toggle("scanning", mode === "scans");
  live.choose(mode === "scans" ? null : mode);
}

modes.forEach((radio) => radio.addEventListener("change", () => choose(radio.value)));
$("as-number").addEventListener("click", () => {
  choose("number");
  $("pad").focus();
});

// found: {files, skipped}, of files.js. Several pictures are scans
function take(found) {
  if (mode !== "scans" && found.files.length === 1) return pad.show(found.files[0].blob);
  if (mode !== "scans") choose("scans");
  scans.add(found);
}

// so are those of a file of several pages
live.events.addEventListener("pages", ({ detail: blob }) => {
  choose("scans");
  take({ files: [{ name: blob.name ?? "picture", blob }], skipped: 0 });
});

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => {
    take({ files: [...event.target.files].map((blob) => ({ name: blob.name, blob })), skipped: 0 });
    event.target.value = "";
  });
}
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files].map((blob) => ({ name: blob.name, blob }));
  if (files.length) take({ files, skipped: 0 });
});
// on the whole page, because a browser would open a picture that is dropped beside the pad
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const { dataTransfer } = event;
  if (hasFolder(dataTransfer) && mode !== "scans") choose("scans");
  take(await ofDrop(dataTransfer));
});

function sample(name, what, newMode) {
  const image = make("img", { src: `static/samples/${name}.png`, alt: `Sample of a ${what}` });
  const made = button("", async () => {
    let blob;
    try {
      blob = await (await fetch(image.src)).blob();
    } catch {
      return complain("The server can't be reached. Try again in a moment.");
    }
    if (mode !== newMode) choose(newMode);
    pad.show(blob);
  });
  made.classList.toggle("wide", newMode === "number");
  made.append(image);
  $("samples").append(made);
}

for (let digit = 0; digit < 10; digit++) sample(digit, digit, "digit");
sample("number", "number", "number");

// browsers keep the choice when the page is reloaded
choose(document.querySelector("[name=mode]:checked").value);
