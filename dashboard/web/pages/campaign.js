// @ts-check
/** One campaign: what it does now, what every source says of it, day by day, and what it is. */

import { BidEditor, PauseButton, budgetBar, pace, showBudget, showStatus, statusPill, take } from "../lib/campaign.js";
import { Chart } from "../lib/chart.js";
import { el, put, replace } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { Tile } from "../lib/tile.js";
import { ChangeList } from "./campaign_history.js";
import { DayChart, Definition, SourceTable } from "./campaign_parts.js";
import { GAP_S, Trail } from "./campaign_trail.js";

export const title = "Campaign";
export const styles = ["campaigns", "campaign"];

const AGAIN_MS = 30_000;
/** A change is in the history a moment after it is made. */
const WRITTEN_MS = 1_000;
const PERIODS = [
  { days: 1, label: "Today" },
  { days: 7, label: "7 days" },
  { days: 30, label: "30 days" },
];

/** @typedef {import("../lib/types.js").CampaignRow} Row */
/** @typedef {import("../lib/types.js").Context} Context */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const id = context.params[0] ?? "";
  const abort = new AbortController();
  /** @type {CampaignPage|null} */
  let page = null;
  const head = el("div", { class: "page-head" }, crumbs(id));
  root.append(head, el("p", { class: "card quiet", text: "reading …" }));
  context.api.get(`/api/campaigns/${encodeURIComponent(id)}`, abort.signal).then(
    (detail) => {
      root.replaceChildren();
      page = new CampaignPage(root, context, detail);
    },
    (error) => {
      if (!abort.signal.aborted) replace(root, head, el("p", { class: "card bad", role: "alert", text: error.message }));
    },
  );
  return () => {
    abort.abort();
    page?.unmount();
  };
}

/** @param {string} name */
function crumbs(name) {
  return el("h1", { class: "crumbs" }, el("a", { href: "#/campaigns", text: "Campaigns" }), el("span", { class: "quiet", "aria-hidden": "true", text: "/" }), el("span", { class: "crumb", text: name }));
}

class CampaignPage {
  /** @param {HTMLElement} root @param {Context} context @param {{row: Row, campaign: Record<string, any>}} detail */
  constructor(root, context, { row, campaign }) {
    this.context = context;
    this.row = row;
    this.days = PERIODS[1].days;
    this.abort = new AbortController();
    this.again = 0;
    this.written = 0;
    this.currency = context.live.snapshot?.currency ?? "";
    const changed = (/** @type {Row} */ news) => this.heard(news);
    this.pill = statusPill();
    this.bid = new BidEditor(context, row, changed);
    this.pause = context.role === "operator" ? new PauseButton(context, row, changed, "primary") : null;
    this.tiles = makeTiles();
    this.budget = budgetBar();
    this.tiles.spent.element.append(this.budget);
    this.spend = new Chart(context, {
      title: "Spent today",
      unit: this.currency,
      format: format.money,
      points: () => /** @type {any} */ (this.trail.points),
      gap: GAP_S,
      series: [
        { label: "spent", colour: "--s4", value: (point) => /** @type {any} */ (point).spent, fill: true },
        { label: "target", colour: "--s6", value: (point) => /** @type {any} */ (point).target, dash: true },
      ],
    });
    this.events = new Chart(context, {
      title: "Wins",
      unit: "/s",
      points: () => /** @type {any} */ (this.trail.points),
      gap: GAP_S,
      series: [{ label: "wins", colour: "--s1", value: (point) => /** @type {any} */ (point).wins_per_s, fill: true }],
    });
    this.trail = new Trail(context, row.id, () => {
      this.spend.update();
      this.events.update();
    });
    this.dayChart = new DayChart();
    this.sources = new SourceTable();
    this.definition = new Definition();
    this.changes = new ChangeList(context.api, row.id);
    root.append(...this.parts(row));
    this.definition.show(campaign);
    this.show();
    this.ends = [
      context.live.subscribe({ campaign_id: row.id }, (news) => this.heard(news)),
      () => this.spend.destroy(),
      () => this.events.destroy(),
      () => this.trail.end(),
      () => this.abort.abort(),
      () => clearTimeout(this.again),
      () => clearTimeout(this.written),
    ];
    this.load();
  }

  unmount() {
    for (const end of this.ends) end();
  }

  /** @param {Row} row */
  parts(row) {
    const periods = PERIODS.map(({ days, label }) => {
      const choice = el("input", { type: "radio", name: "period", value: String(days), onchange: () => this.choose(days) });
      choice.checked = days === this.days;
      return el("label", {}, choice, el("span", { text: label }));
    });
    return [
      el("div", { class: "page-head" }, crumbs(row.name || row.id), this.pill, el("span", { class: "bid-line" }, el("span", { class: "quiet", text: "bid " }), this.bid.element), this.pause?.element ?? null),
      el("p", { class: "facts quiet" }, [row.advertiser, row.id].filter(Boolean).join(" · ")),
      el("section", { class: "tiles", "aria-label": "Today" }, Object.values(this.tiles).map((tile) => tile.element)),
      el("section", { class: "columns" }, el("div", { class: "card" }, this.spend.element), el("div", { class: "card" }, this.events.element)),
      el("div", { class: "page-head" }, el("h2", { text: "All sources" }), el("div", { class: "segments", role: "radiogroup", "aria-label": "Period" }, periods)),
      this.sources.element,
      this.dayChart.element,
      this.changes.element,
      this.definition.element,
    ].filter((part) => part !== null);
  }

  /** @param {number} days */
  choose(days) {
    this.days = days;
    this.load();
  }

  async load() {
    clearTimeout(this.again);
    const { id } = this.row;
    this.changes.load(this.abort.signal);
    try {
      const path = `/api/metrics/${encodeURIComponent(id)}`;
      let answer = await this.context.api.get(path, this.abort.signal); // its today, in its own time zone
      if (this.days > 1) answer = await this.context.api.get(`${path}?since=${earlier(answer.until, this.days - 1)}&until=${answer.until}`, this.abort.signal);
      this.sources.show(answer);
      this.dayChart.show(answer);
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.sources.fail(/** @type {Error} */ (error).message);
    }
    this.again = setTimeout(() => this.load(), AGAIN_MS);
  }

  /** @param {Partial<Row>|null} news */
  heard(news) {
    if (news === null) {
      put(this.pill, "gone");
      this.pill.className = "pill bad";
      return;
    }
    const version = this.row.version;
    take(this.row, news);
    this.trail.add(this.context.live.snapshot?.time ?? 0, this.row);
    if (this.row.version !== version) this.define();
    if (!this.context.time.paused) this.show();
  }

  /** Somebody has changed it. */
  async define() {
    const detail = await this.context.api.get(`/api/campaigns/${encodeURIComponent(this.row.id)}`, this.abort.signal).catch(() => null);
    if (detail) this.definition.show(detail.campaign);
    clearTimeout(this.written);
    if (!this.abort.signal.aborted) this.written = setTimeout(() => this.changes.load(this.abort.signal), WRITTEN_MS);
  }

  show() {
    const { row, tiles, currency } = this;
    showStatus(this.pill, row);
    this.bid.show(row);
    this.pause?.show(row);
    showBudget(this.budget, row);
    tiles.spent.unit.textContent = currency;
    const now = pace(row);
    tiles.spent.show(format.money(row.spent_today), row.daily_budget ? `of ${format.money(row.daily_budget)} a day` : "no daily budget");
    tiles.pace.show(format.percent(now, 0), row.target === null ? "not paced" : `of ${format.money(row.target)} by now`);
    tiles.wins.show(format.count(row.wins), `${format.count(row.impressions)} shown`);
    tiles.clicks.show(format.count(row.clicks), `${format.percent(row.ctr, 2)} % of shown`);
    tiles.conversions.show(format.count(row.conversions), `${format.money(row.revenue)} ${currency} revenue`);
    tiles.roas.show(format.ratio(row.roas), "revenue per spend");
  }
}

function makeTiles() {
  const plain = { spark: false };
  return {
    spent: new Tile({ title: "Spent today", name: "spent", ...plain }),
    pace: new Tile({ title: "Pace", unit: "%", name: "pace", ...plain }),
    wins: new Tile({ title: "Wins", name: "wins", ...plain }),
    clicks: new Tile({ title: "Clicks", name: "clicks", ...plain }),
    conversions: new Tile({ title: "Conversions", name: "conversions", ...plain }),
    roas: new Tile({ title: "ROAS", name: "roas", ...plain }),
  };
}

/** @param {string} date as in 2026-11-22 @param {number} days */
function earlier(date, days) {
  return new Date(Date.parse(`${date}T00:00:00Z`) - days * 86_400_000).toISOString().slice(0, 10);
}
