// @ts-check
/** The auction inspector: a live tape of sampled auctions, and beside it the whole story of one. */

import { el, put, replace } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { Table } from "../lib/table.js";
import { outcomePill, showOutcome, story } from "./auction_story.js";

export const title = "Auctions";
export const styles = ["auctions"];

const KEPT = 500;
const OUTCOMES = ["", "won", "no-bid", "timeout", "shed"];

/** @typedef {import("../lib/types.js").Context} Context */
/** @typedef {import("./auction_story.js").AuctionRow} Row */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const page = new AuctionsPage(root, context);
  page.load();
  return () => page.unmount();
}

class AuctionsPage {
  /** @param {HTMLElement} root @param {Context} context */
  constructor(root, context) {
    this.root = root;
    this.context = context;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    this.abort = new AbortController();
    this.chosen = "";
    this.search = el("input", { class: "input search", type: "search", placeholder: "Bidder, campaign, id", "aria-label": "Search auctions", oninput: () => this.filter() });
    this.outcome = el("select", { "aria-label": "Outcome", onchange: () => this.filter() }, OUTCOMES.map((outcome) => el("option", { value: outcome, text: outcome || "any outcome" })));
    this.hold = el("button", { type: "button", class: "button", "aria-pressed": "false", onclick: () => this.toggle() }, "Hold the tape");
    this.count = el("span", { class: "unit", role: "status" });
    this.problem = el("p", { class: "card bad", role: "alert", hidden: true });
    this.table = new Table({
      label: "Sampled auctions",
      columns: columns(),
      key: (row) => row.id,
      sort: { key: "at", descending: true },
      filename: "auctions",
      empty: "no auction was sampled yet that fits",
      open: (row) => this.choose(row.id, true),
      mark: (row) => (row.id === this.chosen ? "chosen" : ""),
    });
    this.hint = el("p", { class: "note hint", text: "Choose an auction to see who bid, who did not and why, and where its time went." });
    this.side = el("section", { class: "story", "aria-label": "One auction", "aria-live": "off", hidden: true });
    root.append(
      el("div", { class: "page-head" }, el("h1", {}, title, this.count), this.search, this.outcome, this.hold, this.table.exportButton()),
      this.hint,
      this.problem,
      el("div", { class: "inspector" }, el("div", { class: "tape-side" }, this.table.element), this.side),
    );
    this.release = context.live.subscribe({ channel: "auctions" }, (row) => this.heard(row));
  }

  unmount() {
    this.abort.abort();
    this.release();
    this.table.destroy();
  }

  async load() {
    if (this.context.params[0]) this.choose(this.context.params[0], false);
    await this.fill();
  }

  /** What has been on the tape before. */
  async fill() {
    try {
      const { auctions } = await this.context.api.get("/api/auctions/recent", this.abort.signal);
      if (this.holding()) return;
      const newer = [...this.rows.values()];
      this.rows.clear();
      for (const row of auctions.reverse()) this.keep(row);
      for (const row of newer) this.keep(row);
      this.filter();
    } catch (error) {
      this.complain(error, "The tape cannot be read");
    }
  }

  /** @param {Row|null} row null: from now on one hears of all of them, again after a gap */
  heard(row) {
    if (this.holding() || this.context.time.paused) return;
    if (!row) {
      this.fill();
      return;
    }
    this.keep(row);
    this.filter();
  }

  /** @param {Row} row */
  keep(row) {
    this.rows.set(row.id, row);
    if (this.rows.size > KEPT) this.rows.delete(/** @type {string} */ (this.rows.keys().next().value));
  }

  holding() {
    return this.hold.getAttribute("aria-pressed") === "true";
  }

  toggle() {
    const now = !this.holding();
    this.hold.setAttribute("aria-pressed", String(now));
    put(this.hold, now ? "Let it run" : "Hold the tape");
  }

  filter() {
    const wanted = this.search.value.trim().toLowerCase();
    const outcome = this.outcome.value;
    const rows = [...this.rows.values()].filter(
      (row) => (!outcome || row.outcome === outcome) && (!wanted || text(row).includes(wanted)),
    );
    put(this.count, rows.length === this.rows.size ? format.count(rows.length) : `${format.count(rows.length)} of ${format.count(this.rows.size)}`);
    this.table.set(rows);
  }

  /** Show the story of one. @param {string} id @param {boolean} byHand the address has to follow */
  async choose(id, byHand) {
    this.chosen = id;
    this.tell(true);
    this.table.refresh();
    if (byHand) history.pushState(null, "", `#/auctions/${encodeURIComponent(id)}`);
    try {
      const found = await this.context.api.get(`/api/auctions/${encodeURIComponent(id)}`, this.abort.signal);
      if (this.chosen !== id) return;
      replace(this.side, this.back(), ...story(found, this.context.live.snapshot?.currency ?? ""));
      this.problem.hidden = true;
      if (byHand) this.side.querySelector("h2")?.focus({ preventScroll: innerWidth > 1100 });
    } catch (error) {
      if (this.chosen !== id) return;
      replace(this.side, this.back(), el("p", { class: "card", role: "alert", text: `Auction ${id}: ${/** @type {Error} */ (error).message}` }));
    }
  }

  back() {
    return el("button", { type: "button", class: "button to-tape", onclick: () => this.leave() }, "← Back to the tape");
  }

  /** No auction is chosen any more, and the address says so. */
  leave() {
    this.chosen = "";
    this.tell(false);
    replace(this.side);
    this.table.refresh();
    history.pushState(null, "", "#/auctions");
    this.table.element.focus({ preventScroll: true });
  }

  /** @param {boolean} one whether there is a story beside the tape */
  tell(one) {
    this.root.classList.toggle("telling", one);
    this.hint.hidden = one;
    this.side.hidden = !one;
  }

  /** @param {unknown} error @param {string} what */
  complain(error, what) {
    if (this.abort.signal.aborted) return;
    this.problem.hidden = false;
    put(this.problem, `${what}: ${/** @type {Error} */ (error).message}`);
  }
}

/** What the search looks at. @param {Row} row */
function text(row) {
  const sold = row.sold.map((one) => `${one.bidder} ${one.seat} ${one.campaign}`);
  return [row.id, row.request_id, ...sold, ...row.late, ...row.failed, ...(row.skipped ?? [])].join("\n").toLowerCase();
}

/** @param {Row} row */
function winner(row) {
  const [first, ...others] = row.sold;
  if (!first) return "";
  return `${first.campaign || first.seat || first.bidder}${others.length ? ` +${others.length}` : ""}`;
}

/** @param {Row} row */
function paid(row) {
  return row.sold.length ? row.sold.reduce((sum, one) => sum + one.paid, 0) / row.sold.length : null;
}

/** @param {Row} row */
function trouble(row) {
  const parts = [
    row.late.length ? `${row.late.join(", ")} late` : "",
    row.failed.length ? `${row.failed.join(", ")} failed` : "",
  ];
  return parts.filter(Boolean).join("; ");
}

/** @returns {import("../lib/table.js").Column[]} */
function columns() {
  return [
    { key: "at", title: "Time", width: "6rem", value: (row) => row.at, text: (row) => format.time(row.at) },
    { key: "outcome", title: "Outcome", width: "6.6rem", value: (row) => row.outcome, make: outcomePill, update: (cell, row) => showOutcome(/** @type {HTMLElement} */ (cell.firstChild), row) },
    { key: "winner", title: "Winner", width: "minmax(8rem, 1.6fr)", value: winner, text: (row) => winner(row) || "–" },
    { key: "paid", title: "Paid", unit: "CPM", end: true, width: "6rem", value: paid, text: (row) => format.money(paid(row)) },
    { key: "bids", title: "Bids", end: true, width: "4.4rem", value: (row) => row.bids, text: (row) => format.count(row.bids) },
    { key: "imps", title: "Imps", end: true, width: "4.4rem", value: (row) => row.imps, text: (row) => format.count(row.imps) },
    { key: "took", title: "Took", unit: "ms", end: true, width: "5.6rem", value: (row) => row.took_ms, text: (row) => format.ms(row.took_ms) },
    { key: "trouble", title: "Late or failed", width: "minmax(8rem, 1fr)", value: trouble, text: trouble },
  ];
}
