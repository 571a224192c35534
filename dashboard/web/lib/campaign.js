// @ts-check
/** What both campaign pages show and do: the state of a campaign, its budget, its bid to edit, pause and resume. */

import { el, put, toast } from "./dom.js";
import * as format from "./format.js";

/** @typedef {import("./types.js").CampaignRow} Row */
/** @typedef {import("./types.js").Context} Context */

const BEHIND = 0.9;
const AHEAD = 1.1;
/** From 0, with a point. */
const NUMBER = /^(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

/** Take over what an update tells, and what follows from it. @param {Row} row @param {Partial<Row>} news */
export function take(row, news) {
  Object.assign(row, news);
  row.ctr = row.impressions ? row.clicks / row.impressions : null;
  row.roas = row.spent_today ? row.revenue / row.spent_today : null;
}

/** Spending against the target by now, 1 is on target; null where it is not paced. @param {Row} row */
export function pace(row) {
  return row.target ? row.spent_today / row.target : null;
}

/** What its state is in a word, and how good that is. @param {Row} row @returns {[string, string]} */
export function standing(row) {
  if (row.status === "active") return row.funded ? ["active", "good"] : ["out of budget", "warn"];
  return [row.status, row.status === "paused" ? "warn" : ""];
}

export function statusPill() {
  return el("span", { class: "pill" });
}

/** @param {Element} pill @param {Row} row */
export function showStatus(pill, row) {
  const [text, kind] = standing(row);
  put(pill, text);
  pill.className = `pill ${kind}`;
}

/** A bar of the daily budget with a tick where the pacing target is, and the amounts. */
export function budgetBar() {
  const text = el("span", { class: "budget-text" });
  return el("span", { class: "budget" }, el("span", { class: "budget-bar", "aria-hidden": "true" }), text);
}

/** @param {HTMLElement} bar @param {Row} row */
export function showBudget(bar, row) {
  const [track, text] = /** @type {HTMLElement[]} */ ([...bar.children]);
  const { daily_budget: budget, spent_today: spent, target } = row;
  put(text, budget ? `${format.money(spent)} / ${format.money(budget)}` : format.money(spent));
  track.hidden = !budget;
  if (!budget) return;
  track.style.setProperty("--share", String(Math.min(1, spent / budget)));
  track.classList.toggle("paced", target !== null);
  if (target !== null) track.style.setProperty("--target", String(Math.min(1, target / budget)));
  const now = pace(row);
  const kind = now === null ? "" : now < BEHIND ? "behind" : now > AHEAD ? "ahead" : "on target";
  bar.title = target === null ? "not paced" : `${kind}: ${format.money(target)} should be spent by now`;
}

/** The bid, which an operator may change in place: a button that turns into a field. */
export class BidEditor {
  /** @param {Context} context @param {Row} row @param {(row: Row) => void} changed with the server's answer */
  constructor(context, row, changed) {
    this.context = context;
    this.row = row;
    this.changed = changed;
    this.value = el("span", { class: "bid-value" });
    this.unit = el("span", { class: "unit" });
    const may = context.role === "operator";
    this.button = may
      ? el("button", { type: "button", class: "bid-button", onclick: () => this.open() }, this.value, " ", this.unit, el("span", { class: "pencil", "aria-hidden": "true", text: "✎" }))
      : el("span", {}, this.value, " ", this.unit);
    this.field = el("input", {
      class: "input bid-field",
      type: "text", // a field of numbers drops the comma of 1,5 and makes it 15
      autocomplete: "off",
      inputmode: "decimal",
      hidden: true,
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.pressed(event),
      onblur: () => this.close(),
    });
    this.element = el("span", { class: "bid" }, this.button, this.field);
    this.show(row);
  }

  /** @param {Row} row */
  show(row) {
    this.row = row;
    put(this.value, format.money(row.bid));
    put(this.unit, row.pricing.toUpperCase());
    if (this.button instanceof HTMLButtonElement) this.button.setAttribute("aria-label", `bid of ${row.name || row.id}: ${format.money(row.bid)}; change it`);
  }

  open() {
    this.field.value = String(this.row.bid);
    this.field.setAttribute("aria-label", `new bid of ${this.row.name || this.row.id}`);
    this.button.hidden = true;
    this.field.hidden = false;
    this.field.focus();
    this.field.select();
  }

  close() {
    if (this.field.disabled) return; // it is being saved
    this.field.hidden = true;
    this.button.hidden = false;
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    event.stopPropagation(); // arrows here are not the table's
    if (event.key === "Escape" || event.key === "Enter") event.preventDefault();
    if (event.key === "Escape") {
      this.close();
      this.button.focus();
    } else if (event.key === "Enter") this.save();
  }

  async save() {
    const text = this.field.value.trim();
    const bid = Number(text);
    if (!NUMBER.test(text) || !Number.isFinite(bid)) {
      toast("A bid is a number from 0.", "error");
      return;
    }
    this.field.disabled = true;
    try {
      const row = await this.context.live.send({ type: "update_bid", campaign_id: this.row.id, bid });
      toast(`${row.name || row.id}: bid is ${format.money(row.bid)} now`);
      this.changed(row);
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "error");
    }
    this.field.disabled = false;
    this.close();
    this.button.focus();
  }
}

/** A button that pauses what is active and resumes what is paused. */
export class PauseButton {
  /** @param {Context} context @param {Row} row @param {(row: Row) => void} changed @param {string} [kind] of button */
  constructor(context, row, changed, kind = "small") {
    this.context = context;
    this.row = row;
    this.changed = changed;
    this.element = el("button", { type: "button", class: `button ${kind} act`, onclick: (/** @type {MouseEvent} */ event) => this.act(event) });
    this.show(row);
  }

  /** @param {Row} row */
  show(row) {
    this.row = row;
    const verb = row.status === "active" ? "Pause" : "Resume";
    put(this.element, verb);
    this.element.setAttribute("aria-label", `${verb} ${row.name || row.id}`);
    this.element.hidden = row.status === "ended";
  }

  /** @param {MouseEvent} event */
  async act(event) {
    if (event.detail > 1) return; // the second click of a double one would undo the first
    const type = this.row.status === "active" ? "pause" : "resume";
    this.element.disabled = true;
    try {
      const row = await this.context.live.send({ type, campaign_id: this.row.id });
      toast(`${row.name || row.id} is ${row.status} now`);
      this.changed(row);
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "error");
    }
    this.element.disabled = false;
  }
}
