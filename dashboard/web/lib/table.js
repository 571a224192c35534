// @ts-check
/** A table of any length: only the rows in sight are in the document. Sorts by its headers, moves by the arrow keys,
 * exports as CSV. */

import { csv, download } from "./csv.js";
import { el, put } from "./dom.js";
import { Order } from "./order.js";

const AROUND = 6;
const ROW_PX = 40;
const REST_MS = 150;

/**
 * A column shows `text(row)`, or what `make(row)` builds and `update(cell, row)` fills: a row's elements serve another row
 * when it is scrolled out of sight, so `update` must not rely on the row of `make`. It sorts and exports by
 * `value(row)`; without one it does neither.
 * @typedef {Object} Column
 * @property {string} key
 * @property {string} title
 * @property {string} [unit] beside the title
 * @property {string} [width] a CSS grid track, a length or minmax(length, ...); minmax(6rem, 1fr) if not given
 * @property {boolean} [end] aligned to the right, as numbers are
 * @property {number} [from] shown where the table is at least so many pixels wide
 * @property {(row: any) => unknown} [value]
 * @property {(row: any) => string} [text]
 * @property {(row: any) => Node} [make]
 * @property {(cell: HTMLElement, row: any) => void} [update]
 */

/**
 * @typedef {Object} Options
 * @property {string} label what the table is, for screen readers
 * @property {Column[]} columns
 * @property {(row: any) => string} key a row's own name
 * @property {{key: string, descending?: boolean}} [sort] at first
 * @property {string} [empty] said when there are no rows
 * @property {string} [filename] of the CSV export
 * @property {(row: any) => void} [open] at Enter, and at a click on a row beside its controls
 * @property {(rows: any[]) => void} [visible] which rows are in sight, at every change of them
 * @property {(row: any) => string} [mark] a class of the row
 */

export class Table {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    /** @type {any[]} as they were given */
    this.rows = [];
    /** Whether they were: before that nobody knows that there are none. */
    this.given = false;
    /** @type {any[]} as they are shown */
    this.sorted = [];
    this.active = 0;
    this.queued = false;
    this.resting = 0;
    this.sight = "";
    /** Raised whenever rows have changed in themselves: what is drawn with the present one need not be again. */
    this.stamp = 0;
    /** What each row's element shows. @type {WeakMap<HTMLElement, {row: any, at: number, stamp: number, active: boolean}>} */
    this.drawn = new WeakMap();
    this.height = 0;
    /** Whether it is being scrolled, and whether rows in sight have changed meanwhile. */
    this.moving = this.behind = false;
    this.total = -1;
    /** Which columns there is room for. @type {boolean[]} */
    this.shown = options.columns.map(() => true);
    this.order = new Order(options.columns, options.sort, () => this.sort());
    this.headRow = el("div", { class: "t-row t-head", role: "row", "aria-rowindex": "1" }, this.order.heads);
    this.body = el("div", { class: "t-body", role: "rowgroup" });
    this.emptyLine = el("p", { class: "t-empty", text: options.empty ?? "nothing here", hidden: true });
    this.grid = el(
      "div",
      { class: "t-grid", role: "table", "aria-label": options.label, "aria-colcount": options.columns.length },
      el("div", { role: "rowgroup", class: "t-top" }, this.headRow),
      this.body,
    );
    /** What goes into the page: a scrolling box; its height is the page's business. */
    this.element = el(
      "div",
      {
        class: "t-box",
        tabindex: "0",
        role: "region",
        "aria-label": options.label,
        style: { "--row": `${ROW_PX}px` },
        onscroll: () => {
          this.moving = true;
          this.rest();
          this.queue();
        },
        onkeydown: (/** @type {KeyboardEvent} */ event) => this.pressed(event),
      },
      this.grid,
      this.emptyLine,
    );
    this.observer = new ResizeObserver(() => {
      this.fit();
      this.queue();
    });
    this.observer.observe(this.element);
  }

  /** Leave out columns that there is no room for. */
  fit() {
    const { columns } = this.options;
    const width = this.element.clientWidth;
    this.height = this.element.clientHeight - ROW_PX;
    this.stamp++;
    this.shown = columns.map((column) => width >= (column.from ?? 0));
    const tracks = columns.filter((_, i) => this.shown[i]).map((column) => column.width ?? "minmax(6rem, 1fr)");
    const least = tracks.map((track) => /^minmax\(([^,]+),/.exec(track)?.[1] ?? track).join(" + ");
    this.element.style.setProperty("--tracks", tracks.join(" "));
    this.element.style.setProperty("--least", `calc(${least})`);
    this.order.heads.forEach((head, i) => (head.hidden = !this.shown[i]));
    // Cells that stick cost a layer each: only where there is something to stick to.
    this.element.classList.toggle("wide", this.element.scrollWidth > width);
  }

  /** Show these rows, in the order of the sort. @param {readonly any[]} rows */
  set(rows) {
    this.rows = [...rows];
    if (!this.given) this.total = -1;
    this.given = true;
    this.stamp++;
    this.sorted = this.order.of(this.rows);
    this.queue();
  }

  /** The rows have changed in themselves. @param {boolean} [sort] whether their order may have, too */
  refresh(sort = false) {
    if (sort && !this.editing()) this.sorted = this.order.of(this.rows);
    if (this.moving) {
      this.behind = true; // nobody reads numbers that fly past; those that come into sight are new anyway
      return;
    }
    this.stamp++;
    this.queue();
  }

  /** Whether somebody is typing in it: then rows must not move away. */
  editing() {
    const focused = document.activeElement;
    return focused instanceof HTMLInputElement && this.body.contains(focused);
  }

  destroy() {
    this.observer.disconnect();
    clearTimeout(this.resting);
  }

  /** Its rows as a file. */
  export() {
    const columns = this.options.columns.filter((column) => column.value);
    const named = columns.map((column) => ({
      title: column.unit ? `${column.title} (${column.unit})` : column.title,
      value: /** @type {(row: any) => unknown} */ (column.value),
    }));
    download(`${this.options.filename ?? "table"}.csv`, csv(named, this.sorted));
  }

  /** A button that does it. */
  exportButton() {
    return el("button", { class: "button", type: "button", text: "Export CSV", onclick: () => this.export() });
  }

  /** Another order is wanted. */
  sort() {
    this.sorted = this.order.of(this.rows);
    this.element.scrollTop = 0;
    this.queue();
  }

  /** Draw once before the next paint, however often it is asked for. */
  queue() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.draw();
    });
  }

  draw() {
    const { sorted, options } = this;
    if (this.total !== sorted.length) this.resize();
    const top = this.element.scrollTop;
    const first = Math.max(0, Math.floor(top / ROW_PX) - AROUND);
    const last = Math.min(sorted.length, Math.ceil((top + this.height) / ROW_PX) + AROUND);
    this.active = Math.max(0, Math.min(this.active, sorted.length - 1));
    const shown = sorted.slice(first, last).map((row, i) => ({ row, at: first + i }));
    this.pin(shown, first, last);
    this.place(shown);
    const sight = shown.map(({ row }) => options.key(row)).join("\n");
    if (sight !== this.sight) {
      this.sight = sight;
      options.visible?.(shown.map(({ row }) => row));
    }
  }

  /** There are more rows, or fewer. */
  resize() {
    this.total = this.sorted.length;
    this.body.style.height = `${this.total * ROW_PX}px`;
    this.grid.setAttribute("aria-rowcount", String(this.total + 1));
    this.emptyLine.hidden = !this.given || this.total > 0;
    this.height = this.element.clientHeight - ROW_PX; // it is as high as its rows, up to a most
  }

  /** Have the elements of rows out of sight serve those that have come into it. @param {{row: any, at: number}[]} shown */
  place(shown) {
    const keys = new Set(shown.map(({ row }) => this.options.key(row)));
    /** @type {Map<string, HTMLElement>} */
    const kept = new Map();
    /** @type {HTMLElement[]} */
    const free = [];
    for (const item of /** @type {Iterable<HTMLElement>} */ (/** @type {unknown} */ (this.body.children))) {
      const key = item.dataset.key ?? "";
      if (keys.has(key)) kept.set(key, item);
      else free.push(item);
    }
    for (const { row, at } of shown) {
      const key = this.options.key(row);
      let item = kept.get(key) ?? free.pop();
      if (!item) this.body.append((item = this.make(row)));
      item.dataset.key = key;
      this.show(item, row, at);
    }
    for (const item of free) item.remove();
    this.rest();
  }

  /** Leave for later what can wait until it has stood still for a moment. */
  rest() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.moving = false;
      this.tidy();
      if (!this.behind) return;
      this.behind = false;
      this.refresh();
    }, REST_MS);
  }

  /** Put the elements into the order of their rows, in which the tab key and screen readers go. Rows stand where they
   * do by their transform, so this can wait until the scrolling rests: moving elements is what costs most. */
  tidy() {
    const items = /** @type {HTMLElement[]} */ ([...this.body.children]);
    items.sort((a, b) => Number(a.getAttribute("aria-rowindex")) - Number(b.getAttribute("aria-rowindex")));
    const focused = document.activeElement;
    items.forEach((item, i) => {
      const there = this.body.children[i];
      if (there === item) return;
      // What has the focus would lose it: the others move around it.
      if (item.contains(focused)) while (this.body.children[i] !== item) this.body.append(this.body.children[i]);
      else this.body.insertBefore(item, there);
    });
  }

  /** The row with the focus stays in the document when it is scrolled away, or the keyboard would lose its place.
   * @param {{row: any, at: number}[]} shown @param {number} first @param {number} last */
  pin(shown, first, last) {
    const focused = document.activeElement?.closest?.(".t-row");
    if (!focused || focused.parentElement !== this.body) return;
    const key = /** @type {HTMLElement} */ (focused).dataset.key;
    const at = this.sorted.findIndex((row) => this.options.key(row) === key);
    if (at < 0 || (at >= first && at < last)) return;
    shown.splice(at < first ? 0 : shown.length, 0, { row: this.sorted[at], at });
  }

  /** @param {any} row */
  make(row) {
    const cells = this.options.columns.map((column) => {
      const cell = el("div", { class: `t-cell${column.end ? " end" : ""}`, role: "cell" });
      if (column.make) cell.append(column.make(row));
      return cell;
    });
    const item = el("div", { class: "t-row", role: "row" }, cells);
    if (this.options.open) item.addEventListener("click", (event) => this.clicked(event, item));
    return item;
  }

  /** @param {HTMLElement} item @param {any} row @param {number} at */
  show(item, row, at) {
    const was = this.drawn.get(item);
    const active = at === this.active;
    if (was && was.row === row && was.at === at && was.stamp === this.stamp && was.active === active) return;
    this.drawn.set(item, { row, at, stamp: this.stamp, active });
    item.style.transform = `translateY(${at * ROW_PX}px)`;
    item.setAttribute("aria-rowindex", String(at + 2));
    item.tabIndex = active ? 0 : -1;
    const name = `t-row ${this.options.mark?.(row) ?? ""}${this.options.open ? " opens" : ""}`;
    if (item.className !== name) item.className = name;
    this.options.columns.forEach((column, i) => {
      const cell = /** @type {HTMLElement} */ (item.children[i]);
      if (cell.hidden === this.shown[i]) cell.hidden = !this.shown[i];
      if (column.update) column.update(cell, row);
      else if (column.text) {
        const text = column.text(row);
        put(cell, text);
        if (!column.end && cell.title !== text) cell.title = text;
      }
    });
  }

  /** @param {MouseEvent} event @param {HTMLElement} item */
  clicked(event, item) {
    if (/** @type {Element} */ (event.target).closest("a, button, input, select, label")) return;
    if (getSelection()?.toString()) return;
    const row = this.sorted.find((one) => this.options.key(one) === item.dataset.key);
    if (row) this.options.open?.(row);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, button")) return;
    const page = Math.max(1, Math.floor((this.element.clientHeight - ROW_PX) / ROW_PX) - 1);
    const inRow = target.parentElement === this.body;
    /** @type {Record<string, number>} */
    const moves = {
      ArrowDown: inRow ? this.active + 1 : this.active,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.sorted.length - 1,
    };
    if (event.key in moves) {
      event.preventDefault();
      this.focusRow(moves[event.key]);
    } else if (event.key === "Enter" && inRow && this.sorted[this.active]) {
      this.options.open?.(this.sorted[this.active]);
    }
  }

  /** @param {number} at */
  focusRow(at) {
    if (!this.sorted.length) return;
    this.active = Math.max(0, Math.min(at, this.sorted.length - 1));
    const { element } = this;
    const top = this.active * ROW_PX;
    const room = element.clientHeight - 2 * ROW_PX;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top > element.scrollTop + room) element.scrollTop = top - room;
    this.draw();
    const key = this.options.key(this.sorted[this.active]);
    for (const item of /** @type {Iterable<HTMLElement>} */ (/** @type {unknown} */ (this.body.children))) {
      if (item.dataset.key === key) item.focus({ preventScroll: true });
    }
  }
}
