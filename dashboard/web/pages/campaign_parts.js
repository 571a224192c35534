// @ts-check
/** The campaign page's lists: sources merged, days, the definition. */

import { el, keyed, put, replace } from "../lib/dom.js";
import * as format from "../lib/format.js";

/** @typedef {import("../lib/types.js").CampaignMetrics} Metrics */
/** @typedef {import("../lib/types.js").Figures} Figures */

const COLUMNS = ["Shown", "Clicks", "CTR %", "Conv.", "CVR %", "Spend", "CPC", "CPM", "Revenue", "ROAS"];
/** @type {Record<string, string>} */
const KINDS = { fresh: "good", stale: "warn", unknown: "bad" };

/** @param {Figures|null} figures */
function texts(figures) {
  if (!figures) return COLUMNS.map(() => format.NONE);
  return [
    format.count(figures.impressions),
    format.count(figures.clicks),
    format.percent(figures.ctr, 2),
    format.count(figures.conversions),
    format.percent(figures.cvr, 2),
    format.money(figures.spend),
    format.money(figures.cpc),
    format.money(figures.cpm),
    format.money(figures.revenue),
    format.ratio(figures.roas),
  ];
}

/** What each source says, and their sum. */
export class SourceTable {
  constructor() {
    this.body = el("tbody", {});
    this.total = el("tr", { class: "total" }, el("th", { scope: "row", text: "All sources" }), el("td", {}, el("span", { class: "pill" })), COLUMNS.map(() => el("td", { class: "num" })));
    this.period = el("span", { class: "unit" });
    this.problem = el("p", { class: "bad", role: "alert", hidden: true });
    this.element = el(
      "section",
      { class: "card", "aria-label": "Figures of every source" },
      el("h2", {}, "By source", " ", this.period),
      this.problem,
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of sources" },
        el(
          "table",
          { class: "list" },
          el("thead", {}, el("tr", {}, ["Source", "State"].map((text) => el("th", { scope: "col", text })), COLUMNS.map((text) => el("th", { scope: "col", class: "num", text })))),
          this.body,
          el("tfoot", {}, this.total),
        ),
      ),
    );
  }

  /** @param {string} line */
  fail(line) {
    this.problem.hidden = false;
    put(this.problem, `The figures cannot be read: ${line}`);
  }

  /** @param {Metrics} answer */
  show(answer) {
    this.problem.hidden = true;
    put(this.period, `${answer.since === answer.until ? answer.since : `${answer.since} to ${answer.until}`}, ${answer.currency}`);
    keyed(
      this.body,
      answer.sources,
      (source) => source.source,
      (source) => el("tr", {}, el("th", { scope: "row", text: source.source }), el("td", {}, el("span", { class: "pill" })), COLUMNS.map(() => el("td", { class: "num" }))),
      (row, source) => fill(row, source.standing, source.figures, source.reason || (source.age_s === null ? "" : `as of ${format.age(source.age_s)}`), source.age_s),
    );
    fill(this.total, answer.standing, answer.totals, "the worst of them", null);
  }
}

/** @param {HTMLTableRowElement} row @param {string} standing @param {Figures|null} figures @param {string} why @param {number|null} age */
function fill(row, standing, figures, why, age) {
  const pill = /** @type {HTMLElement} */ (row.cells[1].firstElementChild);
  put(pill, standing === "stale" && age !== null ? `stale ${format.duration(age)}` : standing);
  pill.className = `pill ${KINDS[standing] ?? ""}`;
  pill.title = why;
  texts(figures).forEach((text, i) => put(row.cells[i + 2], text));
}

/** Spend by day as columns, and the days' figures below. */
export class DayChart {
  constructor() {
    this.bars = el("div", { class: "day-bars", "aria-hidden": "true" });
    this.body = el("tbody", {});
    this.empty = el("p", { class: "empty", text: "the ledger has nothing of these days" });
    const columns = ["Wins", "Shown", "Clicks", "Conv.", "Spend", "Revenue", "ROAS"];
    this.element = el(
      "section",
      { class: "card", "aria-label": "Day by day" },
      el("h2", {}, "Day by day", " ", el("span", { class: "unit", text: "own ledger; the columns are spend" })),
      el("div", { class: "days" }, this.bars, el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of days" },
        el("table", { class: "list" }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Day" }), columns.map((text) => el("th", { scope: "col", class: "num", text })))), this.body),
      )),
      this.empty,
    );
  }

  /** @param {Metrics} answer */
  show({ days, currency }) {
    this.empty.hidden = days.length > 0;
    this.bars.hidden = days.length === 0;
    const most = Math.max(...days.map((day) => day.figures.spend), 1e-9);
    replace(
      this.bars,
      ...days.map(({ date, figures }) =>
        el("div", { class: "day-bar", title: `${date}: ${format.money(figures.spend)} ${currency}`, style: { "--share": String(figures.spend / most) } }, el("span", { text: date.slice(8) })),
      ),
    );
    const rows = [...days].reverse().map(({ date, wins, figures }) => {
      const cells = [format.count(wins), format.count(figures.impressions), format.count(figures.clicks), format.count(figures.conversions), format.money(figures.spend), format.money(figures.revenue), format.ratio(figures.roas)];
      return el("tr", {}, el("td", { text: date }), cells.map((text) => el("td", { class: "num", text })));
    });
    replace(this.body, ...rows);
  }
}

/** What the campaign is, as it is imported. */
export class Definition {
  constructor() {
    this.code = el("pre", { class: "mono code-block", tabindex: "0", role: "region", "aria-label": "Definition as JSON" });
    this.facts = el("dl", { class: "facts-list" });
    this.element = el("section", { class: "card", "aria-label": "Definition" }, el("h2", { text: "Definition" }), this.facts, el("details", {}, el("summary", { text: "As it is imported" }), this.code));
  }

  /** @param {Record<string, any>} campaign */
  show(campaign) {
    put(this.code, JSON.stringify(campaign, null, 2));
    const facts = [
      ["Pricing", `${campaign.pricing ?? "cpm"}, bid ${format.money(campaign.bid)}`],
      ["Daily budget", campaign.daily_budget == null ? "none" : format.money(campaign.daily_budget)],
      ["Lifetime budget", campaign.lifetime_budget == null ? "none" : format.money(campaign.lifetime_budget)],
      ["Pacing", campaign.pacing ?? "asap"],
      ["Runs", `${campaign.start ?? "always"} to ${campaign.end ?? "open end"}`],
      ["Time zone", campaign.timezone ?? "UTC"],
      ["Domains", (campaign.adomain ?? []).join(", ") || format.NONE],
      ["Deals", (campaign.deals ?? []).join(", ") || "none"],
      ["Creatives", (campaign.creatives ?? []).map((/** @type {any} */ one) => `${one.id} (${one.media ?? "banner"}${one.w ? ` ${one.w}×${one.h}` : ""})`).join(", ")],
      ...Object.entries(campaign.targeting ?? {}).map(([key, value]) => [`Targets ${format.words(key)}`, list(value)]),
    ];
    replace(this.facts, ...facts.flatMap(([name, text]) => [el("dt", { text: name }), el("dd", { text })]));
  }
}

/** @param {unknown} value */
function list(value) {
  if (!Array.isArray(value)) return String(value);
  return value.map((one) => (typeof one === "object" ? Object.entries(one).map(([key, part]) => `${key} ${part}`).join(" ") : String(one))).join(", ");
}
