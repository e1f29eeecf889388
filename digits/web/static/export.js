// What leaves the page of the scans that were read: CSV, TSV and JSON.

import { isCorrected, isUnsure, textOf } from "./corrections.js";

const COLUMNS = ["file", "page", "line", "text", "words", "probability", "unsure", "corrected", "error"];

// a row for each line; one without a line for a page without digits and for a file that failed
function rows(scans) {
  return scans.flatMap(({ name, page, reading, error }) => {
    if (!reading) return [{ file: name, error: error ?? "not read yet" }];
    const lines = reading.lines.map((line, i) => ({
      file: name,
      page,
      line: i + 1,
      text: textOf(line),
      words: line.words.length,
      probability: line.probability,
      unsure: isUnsure(line),
      corrected: isCorrected(line),
    }));
    return lines.length ? lines : [{ file: name, page, corrected: reading.corrected || "" }];
  });
}

// RFC 4180
export function csv(scans) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return table(scans, cell, ",", "\r\n");
}

// for pasting into a spreadsheet, which begins a new cell at a tab or a new line
export function tsv(scans) {
  return table(scans, (value) => value.replace(/[\t\r\n]/g, " "), "\t", "\n");
}

function table(scans, cell, comma, end) {
  const line = (values) => values.map((value) => cell(String(value ?? ""))).join(comma) + end;
  return line(COLUMNS) + rows(scans).map((row) => line(COLUMNS.map((name) => row[name]))).join("");
}

// everything, as in the answer of POST /read; a digit that was changed has `was`, which is null if it was added
export function json(scans) {
  const digit = ({ digit, was, probability, unsure, box }) => ({ digit, probability, unsure, box, ...(digit === was ? {} : { was }) });
  const pages = scans.map(({ name, page, reading, error }) => {
    if (!reading) return { file: name, error: error ?? "not read yet" };
    const lines = reading.lines.map((line) => ({
      text: textOf(line),
      probability: line.probability,
      unsure: isUnsure(line),
      corrected: isCorrected(line),
      words: line.words.map((word) => ({ text: word.map((each) => each.digit).join(""), digits: word.map(digit) })),
    }));
    return { file: name, page, size: reading.size, text: reading.text, lines, marks: reading.marks };
  });
  return JSON.stringify(pages, null, 1);
}
