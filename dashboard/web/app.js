// @ts-check
/** Messages in, numbers and charts out. */

import { Chart } from "./chart.js";
import * as format from "./format.js";
import { Live } from "./socket.js";
import { showSnapshot, showState } from "./view.js";

const SECONDS = 300;

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

const throughput = new Chart(/** @type {HTMLCanvasElement} */ (byId("throughput-chart")), {
  series: [{ label: "auctions", colour: "--accent", index: 1 }],
  legend: byId("throughput-legend"),
  format: format.rate,
  unit: "/s",
  seconds: SECONDS,
  fill: "--fill",
});

const latency = new Chart(/** @type {HTMLCanvasElement} */ (byId("latency-chart")), {
  series: [
    { label: "p50", colour: "--p50", index: 2 },
    { label: "p95", colour: "--p95", index: 3 },
    { label: "p99", colour: "--p99", index: 4 },
    { label: "p99.9", colour: "--p999", index: 5 },
  ],
  legend: byId("latency-legend"),
  format: format.ms,
  unit: "ms",
  seconds: SECONDS,
  log: true,
  deadline: 100,
});

/** @type {import("./types.js").Point[]} */
let points = [];

/** @param {import("./types.js").Message} message */
function receive(message) {
  const { snapshot, history } = message.data;
  if (history) {
    // A restarted server has forgotten what this page still knows.
    const since = history.length ? history[0][0] : snapshot.time;
    points = [...points.filter((point) => point[0] < since), ...history];
  } else {
    const { p50_ms, p95_ms, p99_ms, p999_ms } = snapshot.latency;
    points.push([snapshot.time, snapshot.rates.auctions, p50_ms, p95_ms, p99_ms, p999_ms]);
  }
  const newest = points.length ? points[points.length - 1][0] : 0;
  points = points.filter((point) => point[0] > newest - SECONDS - 2 && point[0] <= newest);
  throughput.show(points);
  latency.show(points);
  if (snapshot.seq > 0) showSnapshot(snapshot);
}

const scheme = location.protocol === "https:" ? "wss:" : "ws:";
new Live(`${scheme}//${location.host}/ws`, receive, showState);
