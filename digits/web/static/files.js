// Finds the pictures in what was chosen or dropped: files, and everything in folders.

// the files that are taken from a folder; the service refuses those that it can't read
const SUFFIXES = [
  ".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .gif .tif .tiff .pdf .heic .heif .avif",
  ".jp2 .j2k .jpx .jpf .j2c .ico .ppm .pgm .pbm .pnm .pfm .tga",
].flatMap((suffixes) => suffixes.split(" "));
// what a file dialog offers
export const ACCEPT = ["image/*", ...SUFFIXES].join();
const SYSTEM = ["@eaDir", "__MACOSX"];

const visible = (name) => !name.startsWith(".") && !SYSTEM.includes(name);

// whether a folder is dropped; only known during the event
export const hasFolder = (transfer) => [...transfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);

// each of these returns {files, skipped}: files: a list of {name, blob}; skipped: the number of other files in folders

export function ofInput(input) {
  const chosen = [...input.files].map((blob) => ({ name: blob.webkitRelativePath || blob.name, blob }));
  return input.webkitdirectory ? sorted(chosen) : { files: chosen, skipped: 0 };
}

export async function ofDrop(transfer) {
  // entries are only there during the event, so all are taken before the first is awaited
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), blob: item.getAsFile() }));
  const all = { files: [], skipped: 0 };
  for (const { entry, blob } of entries) {
    const { files, skipped } = entry?.isDirectory ? sorted(await inFolder(entry)) : { files: [{ name: blob.name, blob }], skipped: 0 };
    all.files.push(...files);
    all.skipped += skipped;
  }
  return all;
}

function sorted(found) {
  const shown = found.filter(({ name }) => name.split("/").every(visible));
  const files = shown.filter(({ name }) => SUFFIXES.some((suffix) => name.toLowerCase().endsWith(suffix)));
  files.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { files, skipped: shown.length - files.length };
}

async function inFolder(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // a hundred at a time
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const entry of entries) {
      if (!visible(entry.name)) continue;
      if (entry.isDirectory) found.push(...(await inFolder(entry)));
      else found.push({ name: entry.fullPath.slice(1), blob: await new Promise((resolve, reject) => entry.file(resolve, reject)) });
    }
  }
}
