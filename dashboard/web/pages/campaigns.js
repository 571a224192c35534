// @ts-check
/** All campaigns: find, sort, watch, and act on them where they stand. */

import { BidEditor, PauseButton, budgetBar, pace, showBudget, showStatus, standing, statusPill, take } from "../lib/campaign.js";
import { el, put, replace } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { Table } from "../lib/table.js";

export const title = "Campaigns";
export const styles = ["campaigns"];

const AT_ONCE = 1000;
const FOLLOWED = 60;
const AGAIN_MS = 15_000;
/** How long rows must be in sight to be followed: nobody follows what flies past. */
const REST_MS = 250;

/** @typedef {import("../lib/types.js").CampaignRow} Row */
/** @typedef {import("../lib/types.js").Context} Context */
/** @typedef {import("../lib/table.js").Column} Column */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const page = new CampaignsPage(root, context);
  page.load();
  return () => page.unmount();
}

class CampaignsPage {
  /** @param {HTMLElement} root @param {Context} context */
  constructor(root, context) {
    this.context = context;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Map<string, () => void>} what is in sight and followed */
    this.followed = new Map();
    this.abort = new AbortController();
    this.again = 0;
    this.resting = 0;
    this.currency = "";
    this.search = el("input", { class: "input search", type: "search", placeholder: "Search name, id, advertiser", "aria-label": "Search campaigns", oninput: () => this.filter() });
    this.status = el(
      "select",
      { "aria-label": "Status", onchange: () => this.filter() },
      ["", "active", "paused", "ended"].map((status) => el("option", { value: status, text: status || "any status" })),
    );
    this.count = el("span", { class: "unit", role: "status" });
    this.problem = el("p", { class: "card bad", role: "alert", hidden: true });
    this.table = new Table({
      label: "Campaigns",
      columns: columns(context, (row) => this.changed(row)),
      key: (row) => row.id,
      sort: { key: "spent", descending: true },
      filename: "campaigns",
      empty: "no campaign fits",
      open: (row) => context.go(`#/campaigns/${encodeURIComponent(row.id)}`),
      visible: (rows) => {
        clearTimeout(this.resting);
        this.resting = setTimeout(() => this.follow(rows), REST_MS);
      },
    });
    root.append(
      el("div", { class: "page-head" }, el("h1", {}, title, " ", this.count), this.search, this.status, this.table.exportButton()),
      this.problem,
      this.table.element,
    );
  }

  unmount() {
    this.abort.abort();
    clearTimeout(this.again);
    clearTimeout(this.resting);
    for (const release of this.followed.values()) release();
    this.table.destroy();
  }

  /** Read all of them, page by page, and again after a while: rows out of sight are not followed. */
  async load() {
    const started = performance.now();
    const seen = new Set();
    try {
      let cursor = "";
      do {
        const query = `limit=${AT_ONCE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;
        const page = await this.context.api.get(`/api/campaigns?${query}`, this.abort.signal);
        this.currency = page.currency;
        for (const row of page.campaigns) {
          seen.add(row.id);
          this.rows.set(row.id, Object.assign(this.rows.get(row.id) ?? {}, row));
        }
        if (!cursor) this.filter(); // something to see while the rest comes
        cursor = page.next;
      } while (cursor);
      for (const id of this.rows.keys()) if (!seen.has(id)) this.rows.delete(id);
      this.filter();
      this.problem.hidden = true;
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.problem.hidden = false;
      put(this.problem, `The campaigns cannot be read: ${/** @type {Error} */ (error).message}`);
    }
    const took = performance.now() - started;
    this.again = setTimeout(() => this.load(), Math.max(AGAIN_MS, 20 * took));
  }

  filter() {
    const wanted = this.search.value.trim().toLowerCase();
    const status = this.status.value;
    const rows = [...this.rows.values()].filter(
      (row) =>
        (!status || row.status === status) &&
        (!wanted || `${row.name}\n${row.id}\n${row.advertiser}`.toLowerCase().includes(wanted)),
    );
    put(this.count, rows.length === this.rows.size ? format.count(rows.length) : `${format.count(rows.length)} of ${format.count(this.rows.size)}`);
    if (!this.table.editing()) this.table.set(rows);
  }

  /** What is in sight is told every second. @param {Row[]} rows */
  follow(rows) {
    const wanted = new Set(rows.slice(0, FOLLOWED).map((row) => row.id));
    for (const [id, release] of this.followed) {
      if (wanted.has(id)) continue;
      release();
      this.followed.delete(id);
    }
    for (const id of wanted) {
      if (!this.followed.has(id)) this.followed.set(id, this.context.live.subscribe({ campaign_id: id }, (news) => this.heard(id, news)));
    }
  }

  /** @param {string} id @param {Partial<Row>|null} news */
  heard(id, news) {
    const row = this.rows.get(id);
    if (!row || this.context.time.paused) return;
    if (news === null) {
      this.rows.delete(id);
      this.filter();
    } else {
      take(row, news);
      this.table.refresh();
    }
  }

  /** @param {Row} news */
  changed(news) {
    const row = this.rows.get(news.id);
    if (row) take(row, news);
    this.table.refresh();
  }
}

/** @param {Context} context @param {(row: Row) => void} changed @returns {Column[]} */
function columns(context, changed) {
  /** @type {WeakMap<Node, {show: (row: Row) => void}>} */
  const parts = new WeakMap();
  /** @param {{element: HTMLElement, show: (row: Row) => void}} part */
  const keep = (part) => {
    parts.set(part.element, part);
    return part.element;
  };
  const show = (/** @type {HTMLElement} */ cell, /** @type {Row} */ row) => parts.get(/** @type {Node} */ (cell.firstChild))?.show(row);
  /** @type {Column[]} */
  const found = [
    {
      key: "name",
      title: "Campaign",
      width: "minmax(11rem, 2.2fr)",
      value: (row) => row.name || row.id,
      make: () => el("a", { class: "name" }),
      update: (cell, row) => {
        const link = /** @type {HTMLAnchorElement} */ (cell.firstChild);
        put(link, row.name || row.id);
        const href = `#/campaigns/${encodeURIComponent(row.id)}`;
        if (link.getAttribute("href") !== href) link.setAttribute("href", href);
        cell.title = `${row.name} (${row.id})`;
      },
    },
    { key: "advertiser", title: "Advertiser", width: "minmax(5.5rem, 1.2fr)", from: 1250, value: (row) => row.advertiser, text: (row) => row.advertiser },
    { key: "status", title: "Status", width: "6.2rem", value: (row) => standing(row)[0], make: statusPill, update: (cell, row) => showStatus(/** @type {Element} */ (cell.firstChild), row) },
    {
      key: "bid",
      title: "Bid",
      end: true,
      width: "7.2rem",
      value: (row) => row.bid,
      make: (row) => keep(new BidEditor(context, row, changed)),
      update: show,
    },
    { key: "spent", title: "Spent today", end: true, width: "minmax(8.6rem, 1fr)", value: (row) => row.spent_today, make: budgetBar, update: (cell, row) => showBudget(/** @type {HTMLElement} */ (cell.firstChild), row) },
    { key: "pace", title: "Pace", unit: "%", end: true, width: "4.4rem", from: 1030, value: pace, text: (row) => format.percent(pace(row), 0) },
    { key: "wins", title: "Wins", end: true, width: "4.2rem", from: 880, value: (row) => row.wins, text: (row) => format.count(row.wins) },
    { key: "impressions", title: "Shown", end: true, width: "4.4rem", value: (row) => row.impressions, text: (row) => format.count(row.impressions) },
    { key: "clicks", title: "Clicks", end: true, width: "4.2rem", from: 950, value: (row) => row.clicks, text: (row) => format.count(row.clicks) },
    { key: "ctr", title: "CTR", unit: "%", end: true, width: "4.5rem", value: (row) => row.ctr, text: (row) => format.percent(row.ctr, 2) },
    { key: "conversions", title: "Conv.", end: true, width: "4rem", from: 1110, value: (row) => row.conversions, text: (row) => format.count(row.conversions) },
    { key: "roas", title: "ROAS", end: true, width: "4.2rem", value: (row) => row.roas, text: (row) => format.ratio(row.roas) },
  ];
  if (context.role === "operator") {
    found.push({ key: "act", title: "Action", width: "5.8rem", end: true, make: (row) => keep(new PauseButton(context, row, changed)), update: show });
  }
  return found;
}
