// @ts-check
/** The remote bidders: how fast and how well they answer, what they are refused for, and whether they are throttled. */

import { el, keyed, put } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { Table } from "../lib/table.js";

export const title = "Bidders";
export const styles = ["bidders"];

/** @typedef {import("../lib/types.js").Context} Context */
/**
 * @typedef {{name: string, state: string, states?: Record<string, string>, share: number, in_flight: number,
 *   calls: number, answers: number, bids: number, rejected: number, no_bids: number, wins: number, timeouts: number,
 *   spend: number, errors: Record<string, number>, skipped: Record<string, number>, calls_per_s: number,
 *   bid_rate: number|null, win_rate: number|null, timeout_rate: number|null, error_rate: number|null,
 *   p50_ms: number|null, p95_ms: number|null, p99_ms: number|null}} Bidder
 */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const count = el("span", { class: "unit", role: "status" });
  const table = new Table({
    label: "Bidders",
    columns: columns(),
    key: (row) => row.name,
    sort: { key: "calls", descending: true },
    filename: "bidders",
    empty: "No remote bidder is configured. Name a file in [bidders] file = \"bidders.toml\" with a [[bidder]] table for each; the daemon follows its changes.",
  });
  const reasons = el("div", { class: "columns" });
  root.append(el("div", { class: "page-head" }, el("h1", {}, title, count), table.exportButton()), table.element, reasons);

  /** @param {{bidders: Bidder[]}|null} data */
  const show = (data) => {
    if (!data || context.time.paused) return;
    put(count, format.count(data.bidders.length));
    table.set(data.bidders);
    showReasons(reasons, data.bidders);
  };
  const release = context.live.subscribe({ channel: "bidders" }, show);
  return () => {
    release();
    table.destroy();
  };
}

/** What went wrong with each, by reason. @param {HTMLElement} parent @param {Bidder[]} bidders */
function showReasons(parent, bidders) {
  const troubled = bidders.filter((one) => Object.keys(one.errors).length || Object.keys(one.skipped).length || one.timeouts);
  keyed(
    parent,
    troubled,
    (one) => one.name,
    (one) => el("section", { class: "card", "aria-label": `Why ${one.name} did not bid` }, el("h2", { text: one.name }), el("table", { class: "list" }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Not asked, late or failed" }), el("th", { scope: "col", class: "num", text: "Total" }))), el("tbody", {}))),
    (card, one) => {
      const rows = [
        ...(one.timeouts ? [["late", one.timeouts]] : []),
        ...Object.entries(one.errors).map(([reason, many]) => [`failed: ${reason}`, many]),
        ...Object.entries(one.skipped).map(([reason, many]) => [`not asked: ${reason}`, many]),
      ].sort((a, b) => Number(b[1]) - Number(a[1]));
      keyed(
        /** @type {HTMLElement} */ (card.querySelector("tbody")),
        rows,
        ([reason]) => String(reason),
        ([reason]) => el("tr", {}, el("td", { text: String(reason) }), el("td", { class: "num" })),
        (row, [, many]) => put(row.cells[1], format.count(Number(many))),
      );
    },
  );
}

/** @param {Bidder} row @returns {[string, string]} */
function breaker(row) {
  if (row.state === "closed") return ["taking part", "good"];
  return row.state === "open" ? ["throttled", "bad"] : ["on probation", "warn"];
}

/** @returns {import("../lib/table.js").Column[]} */
function columns() {
  /** @param {string} key @param {string} title @param {string} unit @param {string} width @param {(row: Bidder) => unknown} value @param {(value: any) => string} show */
  const number = (key, title, unit, width, value, show) => ({ key, title, unit, end: true, width, value, text: (/** @type {Bidder} */ row) => show(value(row)) });
  return [
    { key: "name", title: "Bidder", width: "minmax(7rem, 1.4fr)", value: (row) => row.name, text: (row) => row.name },
    {
      key: "state",
      title: "Breaker",
      width: "8.4rem",
      value: (row) => row.state,
      make: () => el("span", { class: "pill" }),
      update: (cell, row) => {
        const pill = /** @type {HTMLElement} */ (cell.firstChild);
        const [text, kind] = breaker(row);
        put(pill, row.share < 1 ? `${text} ${format.percent(row.share, 0)} %` : text);
        pill.className = `pill ${kind}`;
        const where = Object.entries(row.states ?? {}).map(([instance, state]) => `${instance}: ${state}`);
        if (cell.title !== where.join("\n")) cell.title = where.join("\n");
      },
    },
    number("calls", "Calls", "/s", "5rem", (row) => row.calls_per_s, format.rate),
    number("p50", "p50", "ms", "4.6rem", (row) => row.p50_ms, format.ms),
    number("p95", "p95", "ms", "4.6rem", (row) => row.p95_ms, format.ms),
    number("p99", "p99", "ms", "4.6rem", (row) => row.p99_ms, format.ms),
    number("bid_rate", "Bid", "%", "4.4rem", (row) => row.bid_rate, format.percent),
    number("win_rate", "Win", "%", "4.4rem", (row) => row.win_rate, format.percent),
    number("timeout_rate", "Late", "%", "4.4rem", (row) => row.timeout_rate, format.percent),
    number("error_rate", "Failed", "%", "5rem", (row) => row.error_rate, format.percent),
    { ...number("in_flight", "In flight", "", "5rem", (row) => row.in_flight, format.count), from: 1260 },
    { ...number("bids", "Bids", "", "5rem", (row) => row.bids, format.count), from: 1080 },
    { ...number("rejected", "Refused", "", "5rem", (row) => row.rejected, format.count), from: 1180 },
    number("wins", "Wins", "", "5rem", (row) => row.wins, format.count),
    number("spend", "Spend", "", "5.6rem", (row) => row.spend, format.money),
  ];
}
