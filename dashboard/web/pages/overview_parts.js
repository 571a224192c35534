// @ts-check
/** The overview's lists: percentiles against the deadline, reasons, queues, instances. */

import { el, keyed, put } from "../lib/dom.js";
import * as format from "../lib/format.js";

const TRACK = { low: 0.1, high: 1000 };
const TOP = 6;

/** p50 to p99.9 as numbers and bars on a logarithmic scale with the deadline in it. */
export class Percentiles {
  /** @param {number} deadline in ms */
  constructor(deadline) {
    this.deadline = deadline;
    this.parts = /** @type {const} */ ([
      ["p50", "p50_ms", "p50"],
      ["p95", "p95_ms", "p95"],
      ["p99", "p99_ms", "p99"],
      ["p99.9", "p999_ms", "p999"],
    ]).map(([label, field, name]) => {
      const value = el("span", { text: format.NONE, data: { value: name } });
      const track = el("span", { class: "track", style: { "--deadline": `${share(deadline) * 100}%`, "--colour": `var(--${name})` } });
      const row = el("tr", {}, el("th", { scope: "row", text: label }), el("td", { class: "big" }, value, el("span", { class: "unit", text: "ms" })), el("td", { class: "track-cell", "aria-hidden": "true" }, track));
      return { field, value, track, row };
    });
    this.element = el(
      "div",
      { class: "percentiles" },
      el("h2", {}, "Answer time", " ", el("span", { class: "unit", text: "last second" })),
      el("table", {}, el("tbody", {}, this.parts.map((part) => part.row))),
      el("p", { class: "note", text: `bars are logarithmic; the red line is the ${deadline} ms deadline` }),
    );
  }

  /** @param {import("../lib/types.js").Point|undefined} point */
  show(point) {
    for (const { field, value, track, row } of this.parts) {
      const now = point?.[field] ?? null;
      put(value, format.ms(now));
      track.style.setProperty("--share", String(now === null ? 0 : share(now)));
      row.classList.toggle("over", now !== null && now > this.deadline);
    }
  }
}

/** Where a latency stands on the track, 0 to 1. @param {number} ms */
function share(ms) {
  const { low, high } = TRACK;
  return Math.min(1, Math.max(0, Math.log(ms / low) / Math.log(high / low)));
}

/** Reason codes with their rates, the most frequent first. */
export class ReasonList {
  /** @param {string} title */
  constructor(title) {
    this.body = el("tbody", {});
    this.empty = el("p", { class: "empty", text: "none so far" });
    this.element = el(
      "section",
      { class: "card reasons", "aria-label": title },
      el("h2", { text: title }),
      el("table", { class: "list" }, headings("Reason", ["/s", "Total"]), this.body),
      this.empty,
    );
  }

  /** @param {import("../lib/types.js").Reason[]} reasons */
  show(reasons) {
    const top = reasons.slice(0, TOP);
    const most = Math.max(...top.map((reason) => reason.per_s), 1e-9);
    this.empty.hidden = top.length > 0;
    keyed(
      this.body,
      top,
      (reason) => String(reason.code),
      (reason) => {
        const name = el("td", { class: "bar" }, format.words(reason.name), el("span", { class: "code", text: String(reason.code) }));
        return el("tr", {}, name, el("td", { class: "num" }), el("td", { class: "num" }));
      },
      (row, reason) => {
        const [name, rate, total] = row.cells;
        name.style.setProperty("--share", String(reason.per_s / most));
        put(rate, format.rate(reason.per_s));
        put(total, format.count(reason.total));
      },
    );
  }
}

/** The fullest queues. */
export class QueueDepths {
  constructor() {
    this.body = el("tbody", {});
    this.note = el("p", { class: "empty", text: "not looked yet" });
    this.element = el(
      "section",
      { class: "card reasons", "aria-label": "Queues" },
      el("h2", {}, el("a", { href: "#/queues", text: "Queues" })),
      el("table", { class: "list" }, headings("Queue", ["Ready", "Out /s"]), this.body),
      this.note,
    );
  }

  /** @param {{time: number, problem: string, queues: any[]}} data */
  show({ time, problem, queues }) {
    const top = [...queues].sort((a, b) => b.ready - a.ready || a.name.localeCompare(b.name)).slice(0, TOP);
    const most = Math.max(...top.map((queue) => queue.ready), 1);
    put(this.note, problem || (time ? "there are no queues" : "not looked yet"));
    this.note.hidden = !problem && top.length > 0;
    keyed(
      this.body,
      top,
      (queue) => queue.name,
      (queue) => el("tr", {}, el("td", { class: "bar", text: queue.name }), el("td", { class: "num" }), el("td", { class: "num" })),
      (row, queue) => {
        const [name, ready, rate] = row.cells;
        name.style.setProperty("--share", String(queue.ready / most));
        put(ready, format.count(queue.ready));
        ready.className = queue.warnings?.length ? "num warn" : "num";
        put(rate, format.rate(queue.deliver_per_s));
      },
    );
  }
}

const INSTANCE_COLUMNS = ["Auctions /s", "p99 ms", "Timeouts %", "Lag max ms", "CPU %", "In flight", "Memory MiB", "Up"];

/** Every instance in a row. */
export class InstanceList {
  constructor() {
    this.body = el("tbody", {});
    this.count = el("span", { class: "unit", data: { value: "instances" } });
    this.element = el(
      "section",
      { class: "card", "aria-label": "Instances" },
      el("h2", {}, "Instances", " ", this.count),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of instances" }, el("table", { class: "list" }, headings("Instance", INSTANCE_COLUMNS, "State"), this.body)),
    );
  }

  /** @param {import("../lib/types.js").InstanceRow[]} rows @param {number} now Unix seconds */
  show(rows, now) {
    const live = rows.filter((row) => row.state === "live").length;
    put(this.count, live === rows.length ? `${live}` : `${live} of ${rows.length} live`);
    keyed(
      this.body,
      rows,
      (row) => row.instance,
      (row) => el("tr", {}, el("td", { text: row.instance, title: `${row.host} · pid ${row.pid} · ${row.version}` }), el("td", {}, el("span", { class: "pill" })), INSTANCE_COLUMNS.map(() => el("td", { class: "num" }))),
      (line, row) => {
        const alive = row.state === "live";
        const pill = /** @type {HTMLElement} */ (line.cells[1].firstElementChild);
        put(pill, row.state === "stale" ? `stale ${format.duration(row.age_s)}` : row.state);
        pill.className = `pill ${alive ? "good" : row.state === "stale" ? "warn" : ""}`;
        const texts = [
          format.rate(row.auctions_per_s),
          format.ms(row.p99_ms),
          format.percent(row.timeout_rate),
          format.ms(row.lag_max_ms),
          format.percent(row.cpu, 0),
          format.count(row.in_flight),
          format.mebibytes(row.rss_bytes),
          format.duration(row.since ? now - row.since : null),
        ];
        texts.forEach((text, i) => put(line.cells[i + 2], alive ? text : format.NONE));
      },
    );
  }
}

/** @param {string} first @param {string[]} numbers @param {string} [second] */
function headings(first, numbers, second) {
  const texts = [first, ...(second ? [second] : [])].map((text) => el("th", { scope: "col", text }));
  return el("thead", {}, el("tr", {}, texts, numbers.map((text) => el("th", { scope: "col", class: "num", text }))));
}
