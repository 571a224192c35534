// @ts-check
/** The form of an alert rule. What the server refuses is said in its words, beside the form. */

import { el, put, replace } from "../lib/dom.js";

const CONDITIONS = { greater_than: "is above", less_than: "is below", equals: "equals" };
const SEVERITIES = ["info", "warning", "critical"];
/** Text with a pattern: a field of numbers drops the comma of 0,5 and makes it 05. */
const NUMBER = { inputmode: "decimal", autocomplete: "off", pattern: "-?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][\\-+]?[0-9]+)?", title: "a number, as in 0.5" };

/**
 * @typedef {{id: string, metric: string, condition: keyof typeof CONDITIONS, threshold: number, name: string,
 *   campaign_id: string, for_s: number, severity: string, recover_at: number|null, enabled: boolean,
 *   channels: string[], version: number}} Rule
 * @typedef {{channels: string[], system_metrics: Record<string, string>, campaign_metrics: Record<string, string>}} Known
 */

/** In words. @param {Rule} rule */
export function condition(rule) {
  const whose = rule.campaign_id ? ` of campaign ${rule.campaign_id}` : "";
  const lasting = rule.for_s ? ` for ${rule.for_s} s` : "";
  return `${rule.metric}${whose} ${CONDITIONS[rule.condition] ?? rule.condition} ${rule.threshold}${lasting}`;
}

export class RuleForm {
  /** @param {import("../lib/api.js").Api} api @param {() => void} saved */
  constructor(api, saved) {
    this.api = api;
    this.saved = saved;
    /** @type {Known} */
    this.known = { channels: [], system_metrics: {}, campaign_metrics: {} };
    /** The rule that is changed; null: a new one. @type {Rule|null} */
    this.rule = null;
    this.id = el("input", { class: "input", name: "id", required: true, maxlength: 100, pattern: "[A-Za-z0-9][A-Za-z0-9_.:\\-]*", title: "letters, digits and _ . : -, a letter or digit first" });
    this.name = el("input", { class: "input", name: "name", maxlength: 200 });
    this.campaign = el("input", { class: "input", name: "campaign_id", placeholder: "the whole system", oninput: () => this.offerMetrics() });
    this.metric = el("select", { name: "metric", onchange: () => this.explain() });
    this.condition = el("select", { name: "condition" }, Object.entries(CONDITIONS).map(([value, text]) => el("option", { value, text })));
    this.threshold = el("input", { class: "input", name: "threshold", required: true, ...NUMBER });
    this.lasting = el("input", { class: "input", name: "for_s", ...NUMBER });
    this.severity = el("select", { name: "severity" }, SEVERITIES.map((text) => el("option", { value: text, text })));
    this.enabled = el("input", { name: "enabled", type: "checkbox" });
    this.channels = el("div", { class: "choices" });
    this.meaning = el("p", { class: "note meaning" });
    this.error = el("p", { class: "bad", role: "alert" });
    this.heading = el("h2", {});
    this.element = el(
      "form",
      { class: "card rule-form", hidden: true, "aria-label": "Alert rule", onsubmit: (/** @type {Event} */ event) => this.submit(event) },
      this.heading,
      el(
        "div",
        { class: "fields" },
        field("Id", this.id),
        field("Name", this.name),
        field("Campaign", this.campaign),
        field("Metric", this.metric),
        field("Condition", this.condition),
        field("Threshold", this.threshold),
        field("For seconds", this.lasting),
        field("Severity", this.severity),
        el("label", { class: "field check" }, this.enabled, "watched"),
      ),
      this.meaning,
      this.channels,
      this.error,
      el("div", { class: "acts" }, el("button", { type: "submit", class: "button primary" }, "Save"), el("button", { type: "button", class: "button", onclick: () => this.close() }, "Cancel")),
    );
  }

  /** What rules may name. @param {Known} known */
  know(known) {
    this.known = known;
  }

  /** @param {Rule|null} rule to change; null for a new one */
  open(rule) {
    this.rule = rule;
    put(this.heading, rule ? `Change ${rule.name || rule.id}` : "New rule");
    put(this.error, "");
    this.id.value = rule?.id ?? "";
    this.id.disabled = rule !== null;
    this.name.value = rule?.name ?? "";
    this.campaign.value = rule?.campaign_id ?? "";
    this.offerMetrics();
    this.metric.value = rule?.metric ?? this.metric.value;
    this.condition.value = rule?.condition ?? "greater_than";
    this.threshold.value = rule ? String(rule.threshold) : "";
    this.lasting.value = String(rule?.for_s ?? 30);
    this.severity.value = rule?.severity ?? "warning";
    this.enabled.checked = rule?.enabled ?? true;
    const chosen = rule?.channels ?? [];
    replace(
      this.channels,
      this.known.channels.length ? el("span", { class: "note", text: "Tells (none chosen: all)" }) : el("span", { class: "note", text: "No channel is configured: [alerts] names a webhook, Slack or e-mail." }),
      ...this.known.channels.map((name) => {
        const box = el("input", { type: "checkbox", value: name });
        box.checked = chosen.includes(name);
        return el("label", { class: "field check" }, box, name);
      }),
    );
    this.explain();
    this.element.hidden = false;
    (rule ? this.threshold : this.id).focus();
  }

  close() {
    this.element.hidden = true;
  }

  offerMetrics() {
    const metrics = Object.keys(this.campaign.value.trim() ? this.known.campaign_metrics : this.known.system_metrics);
    const before = this.metric.value;
    replace(this.metric, ...metrics.map((text) => el("option", { value: text, text })));
    if (metrics.includes(before)) this.metric.value = before;
    this.explain();
  }

  explain() {
    const known = this.campaign.value.trim() ? this.known.campaign_metrics : this.known.system_metrics;
    put(this.meaning, known[this.metric.value] ?? "");
  }

  /** @param {Event} event */
  async submit(event) {
    event.preventDefault();
    const boxes = /** @type {HTMLInputElement[]} */ ([...this.channels.querySelectorAll("input")]);
    const body = {
      name: this.name.value,
      campaign_id: this.campaign.value.trim(),
      metric: this.metric.value,
      condition: this.condition.value,
      threshold: Number(this.threshold.value),
      for_s: Number(this.lasting.value || 0),
      severity: this.severity.value,
      enabled: this.enabled.checked,
      channels: boxes.filter((box) => box.checked).map((box) => box.value),
    };
    try {
      if (this.rule) await this.api.patch(`/api/alerts/${encodeURIComponent(this.rule.id)}`, body);
      else await this.api.post("/api/alerts", { id: this.id.value.trim(), ...body });
    } catch (error) {
      put(this.error, /** @type {Error} */ (error).message);
      return;
    }
    this.close();
    this.saved();
  }
}

/** @param {string} text @param {HTMLElement} control */
function field(text, control) {
  return el("label", { class: "field" }, el("span", { text }), control);
}
