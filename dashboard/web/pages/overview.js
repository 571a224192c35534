// @ts-check
/** The exchange at first glance. */

import { Chart } from "../lib/chart.js";
import { el } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { HeatStrip } from "../lib/heat.js";

export const title = "Overview";

/** @param {HTMLElement} root @param {import("../lib/types.js").Context} context @returns {() => void} */
export function mount(root, context) {
  const throughput = new Chart(context, {
    title: "Auctions",
    unit: "/s",
    series: [{ label: "auctions", colour: "--s1", value: (point) => point.auctions_per_s, fill: true }],
  });
  const latency = new Chart(context, {
    title: "Latency",
    unit: "ms",
    format: format.ms,
    log: true,
    deadline: 100,
    series: [
      { label: "p50", colour: "--p50", value: (point) => point.p50_ms },
      { label: "p95", colour: "--p95", value: (point) => point.p95_ms },
      { label: "p99", colour: "--p99", value: (point) => point.p99_ms },
      { label: "p99.9", colour: "--p999", value: (point) => point.p999_ms },
    ],
  });
  const heat = new HeatStrip(context);
  root.append(
    el("div", { class: "page-head" }, el("h1", { text: title })),
    el("section", { class: "card" }, throughput.element),
    el("section", { class: "card" }, latency.element, heat.element),
  );
  return () => {
    throughput.destroy();
    latency.destroy();
    heat.destroy();
  };
}
