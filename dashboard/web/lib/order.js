// @ts-check
/** The order of a table's rows, and the headers that tell and change it. */

import { el } from "./dom.js";

/** @typedef {import("./table.js").Column} Column */

export class Order {
  /** @param {Column[]} columns @param {{key: string, descending?: boolean}|undefined} first @param {() => void} changed */
  constructor(columns, first, changed) {
    this.columns = columns;
    this.key = first?.key ?? "";
    this.descending = first?.descending ?? false;
    this.changed = changed;
    this.heads = columns.map((column) => this.head(column));
  }

  /** The rows, in order. @param {readonly any[]} rows @returns {any[]} */
  of(rows) {
    const column = this.columns.find((one) => one.key === this.key);
    if (!column?.value) return [...rows];
    const sign = this.descending ? -1 : 1;
    const keyed = rows.map((row) => /** @type {const} */ ([column.value?.(row), row]));
    keyed.sort(([a], [b]) => compare(a, b, sign));
    return keyed.map(([, row]) => row);
  }

  /** @param {Column} column */
  head(column) {
    const sorts = column.value !== undefined;
    const unit = column.unit ? el("span", { class: "unit", text: column.unit }) : null;
    const title = sorts
      ? el("button", { type: "button", class: "t-sort", onclick: () => this.by(column) }, column.title, unit ? " " : null, unit)
      : el("span", {}, column.title, unit ? " " : null, unit);
    const head = el("div", { class: `t-cell${column.end ? " end" : ""}`, role: "columnheader" }, title);
    if (sorts) head.setAttribute("aria-sort", this.direction(column));
    return head;
  }

  /** @param {Column} column */
  direction(column) {
    return column.key !== this.key ? "none" : this.descending ? "descending" : "ascending";
  }

  /** Numbers begin with the largest, names with the first. @param {Column} column */
  by(column) {
    this.descending = column.key === this.key ? !this.descending : (column.end ?? false);
    this.key = column.key;
    this.columns.forEach((other, i) => {
      if (other.value) this.heads[i].setAttribute("aria-sort", this.direction(other));
    });
    this.changed();
  }
}

/** What does not exist stands last, whichever way. @param {any} a @param {any} b @param {number} sign */
function compare(a, b, sign) {
  const noA = a === null || a === undefined;
  const noB = b === null || b === undefined;
  if (noA || noB) return Number(noA) - Number(noB);
  if (typeof a === "string" && typeof b === "string") return sign * (collator ??= collate()).compare(a, b);
  return sign * (a < b ? -1 : a > b ? 1 : 0);
}

/** Made when names are first sorted: a browser takes a while over its first. @type {Intl.Collator|undefined} */
let collator;

function collate() {
  return new Intl.Collator("en", { numeric: true, sensitivity: "base" });
}
