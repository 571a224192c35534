// @ts-check
/** Alert rules: where each stands, who has seen it, and a form to make and change them. */

import { ApiError } from "../lib/api.js";
import { el, keyed, put, toast } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { RuleForm, condition } from "./alert_form.js";

export const title = "Alerts";
export const styles = ["alerts"];

const AGAIN_MS = 5_000;
const RANK = /** @type {Record<string, number>} */ ({ firing: 0, pending: 1, ok: 2 });

/** @typedef {import("../lib/types.js").Context} Context */
/** @typedef {import("./alert_form.js").Rule} Rule */
/**
 * @typedef {{rule: Rule, phase: "ok"|"pending"|"firing", since: number, value: number|null, incident: number,
 *   acknowledged_by: string, acknowledged_at: number|null, told: boolean, warning: string}} Alert
 */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const page = new AlertsPage(root, context);
  page.load();
  return () => page.unmount();
}

class AlertsPage {
  /** @param {HTMLElement} root @param {Context} context */
  constructor(root, context) {
    this.context = context;
    this.abort = new AbortController();
    this.again = 0;
    /** @type {Map<string, Alert>} */
    this.alerts = new Map();
    this.may = context.role === "operator";
    this.count = el("span", { class: "unit", role: "status" });
    this.problem = el("p", { class: "card bad", role: "alert", hidden: true });
    this.list = el("ul", { class: "alerts" });
    this.empty = el("p", { class: "card empty", hidden: true, text: "No rule is watched. A rule compares a metric of the system or of a campaign with a threshold, and tells people when it is broken for long enough." });
    this.form = new RuleForm(context.api, () => this.load());
    this.add = el("button", { type: "button", class: "button primary", disabled: !this.may, title: this.may ? "" : "a viewer may only look", onclick: () => this.form.open(null) }, "New rule");
    root.append(el("div", { class: "page-head" }, el("h1", {}, title, this.count), this.add), this.problem, this.form.element, this.empty, this.list);
    this.release = context.live.on("alert", (alert) => this.heard(alert));
  }

  unmount() {
    this.abort.abort();
    clearTimeout(this.again);
    this.release();
  }

  async load() {
    clearTimeout(this.again);
    try {
      const found = await this.context.api.get("/api/alerts", this.abort.signal);
      this.alerts = new Map(found.alerts.map((/** @type {Alert} */ alert) => [alert.rule.id, alert]));
      this.form.know(found);
      this.problem.hidden = true;
      this.show();
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.problem.hidden = false;
      put(this.problem, `The alerts cannot be read: ${/** @type {Error} */ (error).message}`);
    }
    if (!this.abort.signal.aborted) this.again = setTimeout(() => this.load(), AGAIN_MS);
  }

  /** @param {Alert} alert */
  heard(alert) {
    this.alerts.set(alert.rule.id, alert);
    this.show();
  }

  show() {
    const rows = [...this.alerts.values()].sort((a, b) => RANK[a.phase] - RANK[b.phase] || a.rule.id.localeCompare(b.rule.id));
    const firing = rows.filter((alert) => alert.phase === "firing").length;
    put(this.count, rows.length ? `${format.count(rows.length)} ${rows.length === 1 ? "rule" : "rules"}, ${firing} firing` : "");
    this.empty.hidden = rows.length > 0;
    keyed(this.list, rows, (alert) => alert.rule.id, (alert) => this.make(alert), (item, alert) => this.update(item, alert));
  }

  /** @param {Alert} alert */
  make(alert) {
    const id = alert.rule.id;
    const now = () => /** @type {Alert} */ (this.alerts.get(id));
    const buttons = [
      el("button", { type: "button", class: "button ack", onclick: () => this.acknowledge(id) }, "Acknowledge"),
      el("button", { type: "button", class: "button", onclick: () => this.form.open(now().rule) }, "Edit"),
      el("button", { type: "button", class: "button danger", onclick: () => this.remove(now().rule) }, "Delete"),
    ];
    return el(
      "li",
      { class: "card alert" },
      el("span", { class: "pill phase" }),
      el("div", { class: "what" }, el("h2", {}), el("p", { class: "note condition" }), el("p", { class: "note who" }), el("p", { class: "note warn warning", hidden: true })),
      el("p", { class: "now" }, el("span", { class: "value" }), el("span", { class: "unit" })),
      this.may ? el("div", { class: "acts" }, buttons) : null,
    );
  }

  /** @param {HTMLElement} item @param {Alert} alert */
  update(item, alert) {
    const { rule, phase } = alert;
    const find = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (item.querySelector(selector));
    item.dataset.phase = phase;
    item.dataset.severity = rule.severity;
    const pill = find(".phase");
    put(pill, !rule.enabled ? "off" : phase === "firing" && alert.acknowledged_by ? "acknowledged" : phase);
    pill.className = `pill phase ${phase === "firing" ? (alert.acknowledged_by ? "warn" : "bad") : phase === "pending" ? "warn" : rule.enabled ? "good" : ""}`;
    put(find("h2"), rule.name || rule.id);
    put(find(".condition"), `${condition(rule)} · ${rule.severity}${rule.channels.length ? ` · tells ${rule.channels.join(", ")}` : ""}`);
    const since = alert.since ? `${phase} since ${format.moment(alert.since)}` : "never broken";
    const who = alert.acknowledged_by ? `, acknowledged by ${alert.acknowledged_by} at ${format.time(alert.acknowledged_at)}` : "";
    put(find(".who"), phase === "ok" && !alert.incident ? "never broken" : `${since}${who}`);
    put(find(".warning"), alert.warning);
    find(".warning").hidden = !alert.warning;
    put(find(".value"), value(alert.value));
    put(find(".unit"), "now");
    const acknowledge = item.querySelector(".ack");
    if (acknowledge) /** @type {HTMLButtonElement} */ (acknowledge).hidden = phase !== "firing" || Boolean(alert.acknowledged_by);
  }

  /** @param {string} id */
  async acknowledge(id) {
    try {
      await this.context.live.send({ type: "ack_alert", alert_id: id });
      await this.load();
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "error");
    }
  }

  /** @param {Rule} rule */
  async remove(rule) {
    if (!confirm(`Delete the rule ${rule.name || rule.id}?`)) return;
    try {
      await this.context.api.delete(`/api/alerts/${encodeURIComponent(rule.id)}`);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) toast(/** @type {Error} */ (error).message, "error");
    }
    await this.load();
  }
}

/** As it is, with at most six digits. @param {number|null} number */
function value(number) {
  return number === null ? format.NONE : Number(number.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 });
}
