// @ts-check
/** A tile: one number, what it is, and how it has been going. */

import { el, put, svg } from "./dom.js";
import { NONE } from "./format.js";

const WIDTH = 100;
const HEIGHT = 24;
const MOST = 120;

export class Tile {
  /**
   * @param {{title: string, unit?: string, name?: string, colour?: string, href?: string, spark?: boolean}} options
   *   `name` is what tests and styles know it by, `colour` a CSS variable, `href` a page that tells more
   */
  constructor({ title, unit = "", name = "", colour = "--s1", href, spark = true }) {
    this.value = el("span", { text: NONE });
    this.unit = el("span", { class: "unit", text: unit });
    this.note = el("p", { class: "note" });
    this.line = svg("path", { class: "spark-line", "vector-effect": "non-scaling-stroke" });
    this.area = svg("path", { class: "spark-area" });
    this.element = el(
      "article",
      { class: "card tile", data: { tile: name }, style: { "--colour": `var(${colour})` } },
      el("h2", {}, href ? el("a", { href, text: title }) : title, this.unit),
      el("p", { class: "big" }, this.value),
      this.note,
      spark ? svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.area, this.line) : null,
    );
    this.value.dataset.value = name;
  }

  /** @param {string} text @param {string} [note] @param {""|"warn"|"bad"} [level] how bad it is */
  show(text, note = "", level = "") {
    put(this.value, text);
    put(this.note, note);
    if (this.element.dataset.level !== level) this.element.dataset.level = level;
  }

  /**
   * The line below: from 0, or from the lowest.
   * @param {readonly import("./types.js").Point[]} points @param {(point: any) => number|null|undefined} value
   * @param {[number, number]} window @param {number} [atLeast] what the height is worth at least
   */
  spark(points, value, [from, to], atLeast = 0) {
    const size = (to - from) / MOST;
    /** @type {{sum: number, count: number}[]} */
    const cells = [];
    for (const point of points) {
      const v = value(point);
      if (point.time <= from || point.time > to || typeof v !== "number") continue;
      const cell = (cells[Math.min(MOST - 1, Math.floor((point.time - from) / size))] ??= { sum: 0, count: 0 });
      cell.sum += v;
      cell.count++;
    }
    const means = Array.from({ length: MOST }, (_, i) => (cells[i] ? cells[i].sum / cells[i].count : null));
    const top = Math.max(atLeast, ...means.map((mean) => mean ?? 0)) || 1;
    let line = "";
    let area = "";
    let open = false;
    means.forEach((mean, i) => {
      const x = ((i + 0.5) / MOST) * WIDTH;
      if (mean === null) return;
      const y = (HEIGHT - 1 - (mean / top) * (HEIGHT - 3)).toFixed(1);
      area += open ? `L${x.toFixed(1)} ${y}` : `M${x.toFixed(1)} ${HEIGHT}L${x.toFixed(1)} ${y}`;
      line += `${open ? "L" : "M"}${x.toFixed(1)} ${y}`;
      open = true;
      const next = means.slice(i + 1).findIndex((other) => other !== null);
      if (next < 0 || next > 5) {
        area += `L${x.toFixed(1)} ${HEIGHT}Z`;
        open = false;
      }
    });
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

/** @param {number|null|undefined} value @param {number} warn @param {number} bad @returns {""|"warn"|"bad"} */
export function level(value, warn, bad) {
  if (typeof value !== "number" || value < warn) return "";
  return value < bad ? "warn" : "bad";
}
