// What leaves the page of the scans that were read: CSV, TSV and JSON.

import { isCorrected, isUnsure, textOf, wordText } from "./corrections.js";

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
      cells: cellsOf(line),
    }));
    return lines.length ? lines : [{ file: name, page, corrected: reading.corrected || "" }];
  });
}

// the words of a line in each column
function cellsOf(line) {
  const cells = [];
  for (const word of line.words) (cells[word[0].column] ??= []).push(wordText(word));
  return cells.map((words) => words.join(" "));
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

// with a cell for each column of numbers, if any page has several
function table(scans, cell, comma, end) {
  const line = (values) => values.map((value) => cell(String(value ?? ""))).join(comma) + end;
  const all = rows(scans);
  const most = all.reduce((most, { cells = [] }) => Math.max(most, cells.length), 0);
  const columns = Array.from({ length: most > 1 ? most : 0 }, (_, k) => k);
  const head = line([...COLUMNS, ...columns.map((k) => `column ${k + 1}`)]);
  return head + all.map((row) => line([...COLUMNS.map((name) => row[name]), ...columns.map((k) => row.cells?.[k])])).join("");
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
      words: line.words.map((word) => ({ text: wordText(word), column: word[0].column, digits: word.map(digit) })),
    }));
    return { file: name, page, size: reading.size, text: reading.text, lines, marks: reading.marks };
  });
  return JSON.stringify(pages, null, 1);
}
