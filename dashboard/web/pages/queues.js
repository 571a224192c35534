// @ts-check
/** The broker's queues, what waits to get there, the last minutes of messages, and the instances that share them. */

import { el, keyed, put } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { Table } from "../lib/table.js";
import { Tile } from "../lib/tile.js";
import { InstanceList } from "./overview_parts.js";

export const title = "Queues";
export const styles = ["queues"];

const MINUTES = 60;
const MEANING = /** @type {Record<string, string>} */ ({
  waiting: "messages pile up",
  unconsumed: "nobody consumes it",
  outpaced: "more comes than goes",
});
const REPORT_COLUMNS = /** @type {[string, (report: any) => string][]} */ ([
  ["Consumed", (report) => format.count(report.consumed)],
  ["Published", (report) => format.count(report.published)],
  ["Retried", (report) => format.count(report.retried)],
  ["Dead", (report) => format.count(report.dead_lettered)],
  ["Errors", (report) => format.count(report.errors)],
  ["p50 ms", (report) => format.ms(report.message_p50_ms)],
  ["p99 ms", (report) => format.ms(report.message_p99_ms)],
  ["Auctions", (report) => format.count(report.auctions)],
]);

/** @typedef {import("../lib/types.js").Context} Context */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const page = new QueuesPage(root, context);
  page.load();
  return () => page.unmount();
}

class QueuesPage {
  /** @param {HTMLElement} root @param {Context} context */
  constructor(root, context) {
    this.context = context;
    this.abort = new AbortController();
    /** @type {Map<number, any>} */
    this.minutes = new Map();
    this.problem = el("p", { class: "card warn", role: "alert", hidden: true });
    this.ready = new Tile({ title: "Waiting in queues", name: "ready", spark: false });
    this.outbox = new Tile({ title: "Waiting for the broker", name: "outbox", spark: false });
    this.dead = new Tile({ title: "Dead letters", name: "dead", spark: false });
    this.looked = new Tile({ title: "Last look", name: "looked", spark: false });
    this.table = new Table({
      label: "Queues",
      columns: columns(),
      key: (row) => row.name,
      sort: { key: "ready", descending: true },
      filename: "queues",
      empty: "the broker was not looked at yet",
    });
    this.instances = new InstanceList();
    this.reports = el("tbody", {});
    root.append(
      el("div", { class: "page-head" }, el("h1", { text: title }), this.table.exportButton()),
      this.problem,
      el("div", { class: "tiles" }, this.ready.element, this.outbox.element, this.dead.element, this.looked.element),
      this.table.element,
      this.instances.element,
      el(
        "section",
        { class: "card", "aria-label": "Messages by the minute" },
        el("h2", { text: "Messages by the minute" }),
        el("div", { class: "scroll minutes", tabindex: "0", role: "region", "aria-label": "Table of minutes" }, el("table", { class: "list" }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Minute" }), REPORT_COLUMNS.map(([name]) => el("th", { scope: "col", class: "num", text: name })))), this.reports)),
        (this.none = el("p", { class: "empty", text: "the first minute has not ended yet" })),
      ),
    );
    this.releases = [
      context.live.subscribe({ channel: "queues" }, (data) => this.show(data)),
      context.live.subscribe({ channel: "instances" }, (data) => data && !context.time.paused && this.instances.show(data.instances, data.time)),
      context.live.on("report", (report) => this.heard([report])),
    ];
  }

  unmount() {
    this.abort.abort();
    for (const release of this.releases) release();
    this.table.destroy();
  }

  async load() {
    try {
      const found = await this.context.api.get("/api/reports", this.abort.signal);
      this.heard(found.reports ?? found.minutes ?? []);
    } catch {
      // the minutes come by themselves, one a minute
    }
  }

  /** @param {any} data */
  show(data) {
    if (!data || this.context.time.paused) return;
    this.problem.hidden = !data.problem;
    put(this.problem, data.problem ?? "");
    this.table.set(data.queues);
    const waiting = data.queues.reduce((/** @type {number} */ sum, /** @type {any} */ queue) => sum + queue.ready, 0);
    const dead = data.queues.filter((/** @type {any} */ queue) => queue.name.includes("dead"));
    const letters = dead.reduce((/** @type {number} */ sum, /** @type {any} */ queue) => sum + queue.ready, 0);
    this.ready.show(format.count(waiting - letters), `in ${data.queues.length} queues`);
    this.outbox.show(format.count(data.outbox), "in memory and in the spool of the serving process", data.outbox > 1000 ? "warn" : "");
    this.dead.show(format.count(letters), letters ? "rtb dead-letters list tells why" : "none", letters ? "warn" : "");
    this.looked.show(data.time ? format.time(data.time) : format.NONE, "every 5 seconds");
  }

  /** @param {any[]} reports */
  heard(reports) {
    for (const report of reports) this.minutes.set(report.time, report);
    const rows = [...this.minutes.values()].sort((a, b) => b.time - a.time).slice(0, MINUTES);
    this.none.hidden = rows.length > 0;
    keyed(
      this.reports,
      rows,
      (report) => String(report.time),
      (report) => el("tr", {}, el("td", { text: format.time(report.time) }), REPORT_COLUMNS.map(() => el("td", { class: "num" }))),
      (row, report) => REPORT_COLUMNS.forEach(([, show], i) => put(row.cells[i + 1], show(report))),
    );
  }
}

/** @returns {import("../lib/table.js").Column[]} */
function columns() {
  /** @param {string} key @param {string} title @param {string} unit @param {(value: any) => string} show */
  const number = (key, title, unit, show) => ({ key, title, unit, end: true, width: "7rem", value: (/** @type {any} */ row) => row[key], text: (/** @type {any} */ row) => show(row[key]) });
  const warnings = (/** @type {any} */ row) => row.warnings.map((/** @type {string} */ name) => MEANING[name] ?? name).join(", ");
  return [
    { key: "name", title: "Queue", width: "minmax(10rem, 1.5fr)", value: (row) => row.name, text: (row) => row.name },
    number("ready", "Ready", "", format.count),
    number("unacked", "In work", "", format.count),
    number("consumers", "Consumers", "", format.count),
    number("publish_per_s", "In", "/s", format.rate),
    number("deliver_per_s", "Out", "/s", format.rate),
    {
      key: "warnings",
      title: "Warning",
      width: "minmax(9rem, 1fr)",
      value: warnings,
      make: () => el("span", { class: "pill warn" }),
      update: (cell, row) => {
        const pill = /** @type {HTMLElement} */ (cell.firstChild);
        put(pill, warnings(row));
        pill.hidden = !row.warnings.length;
      },
    },
  ];
}
