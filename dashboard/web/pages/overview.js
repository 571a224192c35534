// @ts-check
/** The exchange at first glance: what it does, how fast, what it earns, what is wrong. */

import { Chart } from "../lib/chart.js";
import { el } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { HeatStrip } from "../lib/heat.js";
import { level, Tile } from "../lib/tile.js";
import { InstanceList, Percentiles, QueueDepths, ReasonList } from "./overview_parts.js";

export const title = "Overview";
const DEADLINE_MS = 100;

/** @typedef {import("../lib/types.js").Context} Context */
/** @typedef {import("../lib/types.js").Point} Point */

/** @param {HTMLElement} root @param {Context} context @returns {() => void} */
export function mount(root, context) {
  const { live, time } = context;
  const tiles = makeTiles();
  const charts = makeCharts(context);
  const percentiles = new Percentiles(DEADLINE_MS);
  const noBids = new ReasonList("Why there was no bid");
  const losses = new ReasonList("Why bids lost");
  const queues = new QueueDepths();
  const instances = new InstanceList();

  root.append(
    el("h1", { class: "sr", text: title }),
    el("section", { class: "tiles", "aria-label": "Key figures" }, Object.values(tiles).map((tile) => tile.element)),
    el(
      "section",
      { class: "card latency", "aria-label": "Latency" },
      percentiles.element,
      el("div", { class: "latency-charts" }, charts.latency.element, charts.heat.element),
    ),
    el("section", { class: "columns charts" }, [charts.auctions, charts.rates, charts.trouble, charts.spend].map((chart) => el("div", { class: "card" }, chart.element))),
    el("section", { class: "columns thirds" }, noBids.element, losses.element, queues.element),
    instances.element,
  );

  function update() {
    const shown = live.view ?? live;
    const point = time.end === null ? shown.history.points.at(-1) : shown.history.at(time.end);
    showTiles(tiles, point, live.snapshot, shown.history.points, time.window());
    percentiles.show(point);
    if (time.paused || !shown.snapshot) return;
    noBids.show(shown.snapshot.no_bids);
    losses.show(shown.snapshot.losses);
  }

  const ends = [
    live.on("update", () => time.paused || update()),
    time.on(update),
    live.subscribe({ channel: "instances" }, (data) => time.paused || instances.show(data.instances, data.time)),
    live.subscribe({ channel: "queues" }, (data) => time.paused || queues.show(data)),
    ...Object.values(charts).map((chart) => () => chart.destroy()),
  ];
  if (live.about.instances) instances.show(live.about.instances, live.about.snapshot.time);
  update();
  return () => ends.forEach((end) => end());
}

function makeTiles() {
  return {
    auctions: new Tile({ title: "Auctions", unit: "/s", name: "auctions", colour: "--s1" }),
    bids: new Tile({ title: "Bid rate", unit: "%", name: "bid_rate", colour: "--s2" }),
    wins: new Tile({ title: "Win rate", unit: "%", name: "win_rate", colour: "--s3" }),
    spend: new Tile({ title: "Spend", unit: "/s", name: "spend", colour: "--s4" }),
    timeouts: new Tile({ title: "Timeouts", unit: "%", name: "timeout_rate", colour: "--s5" }),
    shed: new Tile({ title: "Shed", unit: "%", name: "shed_rate", colour: "--s6" }),
    queued: new Tile({ title: "Queued", name: "queue_ready", colour: "--s6", href: "#/queues" }),
  };
}

/**
 * @param {ReturnType<typeof makeTiles>} tiles @param {Point|undefined} point
 * @param {import("../lib/types.js").Snapshot|null} snapshot @param {readonly Point[]} points
 * @param {[number, number]} window
 */
function showTiles(tiles, point, snapshot, points, window) {
  const currency = snapshot?.currency ?? "";
  const totals = snapshot?.totals ?? {};
  const all = ["won", "no_bid", "timeout", "shed", "invalid"].reduce((sum, name) => sum + (totals[name] ?? 0), 0);
  tiles.auctions.show(format.rate(point?.auctions_per_s), `${format.count(all)} in total`);
  tiles.bids.show(format.percent(point?.bid_rate), "of auctions");
  tiles.wins.show(format.percent(point?.win_rate), "of bids");
  tiles.spend.unit.textContent = `${currency}/s`;
  tiles.spend.show(format.money(point?.spend_per_s), `${format.nanos(totals.spend_nanos ?? 0)} in total`);
  tiles.timeouts.show(format.percent(point?.timeout_rate), `${format.count(totals.timeout ?? 0)} in total`, level(point?.timeout_rate, 0.01, 0.05));
  tiles.shed.show(format.percent(point?.shed_rate), `${format.count(totals.shed ?? 0)} in total`, level(point?.shed_rate, 0.001, 0.05));
  tiles.queued.show(format.count(point?.queue_ready), `${format.count(point?.in_flight)} in flight`, level(point?.queue_ready, 1_000, 10_000));
  tiles.auctions.spark(points, (p) => p.auctions_per_s, window);
  tiles.bids.spark(points, (p) => p.bid_rate, window, 1);
  tiles.wins.spark(points, (p) => p.win_rate, window, 1);
  tiles.spend.spark(points, (p) => p.spend_per_s, window);
  tiles.timeouts.spark(points, (p) => p.timeout_rate, window, 0.05);
  tiles.shed.spark(points, (p) => p.shed_rate, window, 0.05);
  tiles.queued.spark(points, (p) => p.queue_ready, window, 10);
}

/** @param {Context} context */
function makeCharts(context) {
  const percent = (/** @type {number|null|undefined} */ value) => (typeof value === "number" ? value * 100 : null);
  const percentText = (/** @type {number|null|undefined} */ value) => (typeof value === "number" ? format.fixed(value, 1) : format.NONE);
  const currency = context.live.snapshot?.currency ?? "";
  return {
    latency: new Chart(context, {
      title: "Latency",
      unit: "ms",
      format: format.ms,
      log: true,
      deadline: DEADLINE_MS,
      series: [
        { label: "p50", colour: "--p50", value: (point) => point.p50_ms },
        { label: "p95", colour: "--p95", value: (point) => point.p95_ms },
        { label: "p99", colour: "--p99", value: (point) => point.p99_ms },
        { label: "p99.9", colour: "--p999", value: (point) => point.p999_ms },
      ],
    }),
    heat: new HeatStrip(context, { deadline: DEADLINE_MS }),
    auctions: new Chart(context, {
      title: "Auctions",
      unit: "/s",
      series: [{ label: "answered", colour: "--s1", value: (point) => point.auctions_per_s, fill: true }],
    }),
    rates: new Chart(context, {
      title: "Bids and wins",
      unit: "%",
      format: percentText,
      atLeast: 100,
      series: [
        { label: "bid rate", colour: "--s2", value: (point) => percent(point.bid_rate) },
        { label: "win rate", colour: "--s3", value: (point) => percent(point.win_rate) },
      ],
    }),
    trouble: new Chart(context, {
      title: "Lost to load",
      unit: "%",
      format: percentText,
      atLeast: 5,
      series: [
        { label: "timeouts", colour: "--s5", value: (point) => percent(point.timeout_rate), fill: true },
        { label: "shed", colour: "--s6", value: (point) => percent(point.shed_rate), fill: true },
      ],
    }),
    spend: new Chart(context, {
      title: "Spend",
      unit: currency ? `${currency}/s` : "/s",
      format: format.money,
      series: [{ label: "spend", colour: "--s4", value: (point) => point.spend_per_s, fill: true }],
    }),
  };
}
