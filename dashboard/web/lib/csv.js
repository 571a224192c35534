// @ts-check
/** Tables for spreadsheets, which must not take a name for a formula. */

/** @typedef {{title: string, value: (row: any) => unknown}} CsvColumn */

/** One value: a text that a spreadsheet would calculate gets an apostrophe in front. @param {unknown} value */
export function csvValue(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  let text = String(value);
  if (/^\s*[=+\-@\t\r\n]/.test(text)) text = `'${text}`;
  return /[",\r\n;]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** RFC 4180, a line of titles first. @param {CsvColumn[]} columns @param {readonly any[]} rows */
export function csv(columns, rows) {
  const lines = [columns.map((column) => csvValue(column.title))];
  for (const row of rows) lines.push(columns.map((column) => csvValue(column.value(row))));
  return `${lines.map((line) => line.join(",")).join("\r\n")}\r\n`;
}

/** Have the browser save it. @param {string} filename @param {string} text */
export function download(filename, text) {
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
