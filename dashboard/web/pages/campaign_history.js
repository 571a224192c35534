// @ts-check
/** Who changed what of a campaign, when and why: people, messages, and the daemon itself. */

import { el, keyed, put } from "../lib/dom.js";
import * as format from "../lib/format.js";

const MOST = 20;

/**
 * @typedef {{id: string, at: number, actor: string, action: string, cause: string, details: Record<string, unknown>}} HistoryEvent
 */

export class ChangeList {
  /** @param {import("../lib/api.js").Api} api @param {string} id */
  constructor(api, id) {
    this.api = api;
    this.path = `/api/campaigns/${encodeURIComponent(id)}/history?limit=`;
    this.most = MOST;
    this.body = el("tbody", {});
    this.empty = el("p", { class: "empty", text: "nothing was changed since it was made" });
    this.problem = el("p", { class: "bad", role: "alert", hidden: true });
    this.more = el("button", { type: "button", class: "button small", hidden: true, onclick: () => this.further() }, "Earlier ones");
    this.table = el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of changes", hidden: true },
      el("table", { class: "list changes" }, el("thead", {}, el("tr", {}, ["When", "Who", "What", "Why"].map((text) => el("th", { scope: "col", text })))), this.body),
    );
    this.element = el("section", { class: "card", "aria-label": "Changes" }, el("h2", { text: "Who changed what" }), this.problem, this.table, this.empty, this.more);
  }

  further() {
    this.most = 1_000;
    this.load();
  }

  /** @param {AbortSignal} [signal] */
  async load(signal) {
    let told;
    try {
      told = await this.api.get(`${this.path}${this.most}`, signal);
    } catch (error) {
      if (signal?.aborted) return;
      this.problem.hidden = false;
      put(this.problem, `The history cannot be read: ${/** @type {Error} */ (error).message}`);
      return;
    }
    this.problem.hidden = true;
    this.show(told.events);
  }

  /** @param {HistoryEvent[]} events */
  show(events) {
    this.empty.hidden = events.length > 0;
    this.table.hidden = events.length === 0;
    this.more.hidden = events.length < this.most || this.most > MOST;
    keyed(
      this.body,
      events,
      (event) => event.id,
      (event) =>
        el(
          "tr",
          {},
          el("td", { class: "num", text: format.moment(event.at) }),
          el("td", { text: who(event.actor), title: event.actor }),
          el("td", {}, el("b", { text: event.action }), ...changes(event.details)),
          el("td", { class: "quiet", text: event.cause }),
        ),
      () => {},
    );
  }
}

/** @param {string} actor */
function who(actor) {
  if (actor.startsWith("dashboard:")) return actor.slice("dashboard:".length);
  return { admin: "command line", dashboard: "somebody, here" }[actor] ?? actor;
}

/** Each field with what it was and what it is. @param {Record<string, unknown>} details */
function changes(details) {
  return Object.entries(details).map(([field, value]) => {
    if (!Array.isArray(value) || value.length !== 2) return el("span", { class: "change", text: `${format.words(field)} ${text(value)}` });
    const [before, after] = value;
    const name = `${format.words(field)} `;
    if (before === "..." && after === "...") return el("span", { class: "change", text: name });
    return el("span", { class: "change" }, name, el("s", { text: text(before) }), " → ", text(after));
  });
}

/** @param {unknown} value */
function text(value) {
  if (value === null || value === undefined || value === "") return "none";
  if (typeof value === "number") return String(Number(value.toPrecision(8)));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
