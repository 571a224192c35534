// @ts-check
/** The page's numbers and tables; everything goes in as text. */

import * as format from "./format.js";

const TRACK = { low: 0.01, high: 1000 };
const DEADLINE_MS = 100;
const TOP_REASONS = 8;
const FORGET_S = 600; // an instance silent for so long has been replaced

/** @type {Map<string, HTMLElement[]>} */
const places = new Map();
for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-value]"))) {
  const name = element.dataset.value ?? "";
  places.set(name, [...(places.get(name) ?? []), element]);
}

/** @param {string} name @param {string} text */
function put(name, text) {
  for (const element of places.get(name) ?? []) {
    if (element.textContent !== text) element.textContent = text;
  }
}

/** @param {string} state */
export function showState(state) {
  document.documentElement.dataset.state = state;
  put("state", state);
}

/** @param {import("./types.js").Snapshot} snapshot */
export function showSnapshot(snapshot) {
  const { totals, rates, latency, lag } = snapshot;
  const total = (/** @type {string} */ name) => totals[name] ?? 0;
  const instances = snapshot.instances.filter((row) => !row.stale || row.age_s < FORGET_S);
  const live = instances.filter((row) => !row.stale).length;
  put("instances", live === instances.length ? `${live}` : `${live} of ${instances.length} live`);
  put("uptime", format.duration(snapshot.uptime_s));
  put("time", format.clock(snapshot.time));
  put("currency", snapshot.currency);

  put("auctions", format.rate(rates.auctions));
  const outcomes = ["won", "no_bid", "timeout", "shed", "invalid"];
  put("auctions_total", format.count(outcomes.reduce((sum, name) => sum + total(name), 0)));
  put("bid_rate", format.percent(snapshot.bid_rate));
  put("win_rate", format.percent(snapshot.win_rate));
  put("bids", format.rate(rates.bids));
  put("spend", format.money(rates.spend_nanos));
  put("spend_total", format.money(total("spend_nanos")));

  for (const [name, value] of /** @type {[string, number|null][]} */ ([
    ["p50", latency.p50_ms],
    ["p95", latency.p95_ms],
    ["p99", latency.p99_ms],
    ["p999", latency.p999_ms],
  ])) {
    put(name, format.ms(value));
    track(name, value);
  }

  for (const name of ["timeout", "shed", "bidder_timeouts"]) {
    put(name, format.rate(rates[name]));
    put(`${name}_total`, format.count(total(name)));
  }
  const perAuction = (/** @type {string} */ name) => (rates.auctions > 0 ? rates[name] / rates.auctions : 0);
  level("timeout", severity(perAuction("timeout"), 0.01, 0.05));
  level("shed", severity(perAuction("shed"), 0.001, 0.05));
  level("bidder_timeouts", severity(perAuction("bidder_timeouts"), 0.05, 0.5));
  put("bidder_errors", format.rate(rates.bidder_errors));
  put("in_flight", format.count(snapshot.in_flight));
  put("lag", format.ms(lag.p99_ms));
  put("lag_max", format.ms(lag.max_ms));
  level("lag", severity(lag.p99_ms, 10, 50));
  put("gc_max", format.ms(snapshot.gc_pause_max_ms));
  put("gc_rate", format.rate(rates.gc_pauses));
  level("gc", severity(snapshot.gc_pause_max_ms, 20, 100));

  showReasons("no-bids", snapshot.no_bids);
  showReasons("losses", snapshot.losses);
  showInstances(instances);
}

/** @param {number|null} value @param {number} warn @param {number} bad */
function severity(value, warn, bad) {
  if (value === null || value < warn) return "";
  return value < bad ? "warn" : "bad";
}

/** @param {string} tile @param {string} severity */
function level(tile, severity) {
  const element = /** @type {HTMLElement} */ (document.querySelector(`[data-tile="${tile}"]`));
  element.dataset.level = severity;
}

/** @param {number} ms where it stands on the logarithmic track, 0 to 1 */
function share(ms) {
  const { low, high } = TRACK;
  return Math.min(1, Math.max(0.01, Math.log(ms / low) / Math.log(high / low)));
}

/** @param {string} name @param {number|null} ms */
function track(name, ms) {
  const element = /** @type {HTMLElement} */ (document.querySelector(`[data-track="${name}"]`));
  element.parentElement?.classList.toggle("over", ms !== null && ms > DEADLINE_MS);
  element.style.setProperty("--share", ms ? `${share(ms)}` : "0");
  element.style.setProperty("--deadline", `${share(DEADLINE_MS) * 100}%`);
}

/**
 * As many rows as there is data, kept from one second to the next.
 * @param {string} id @param {number} count @param {number} cells
 */
function rows(id, count, cells) {
  const body = /** @type {HTMLTableSectionElement} */ (document.getElementById(id));
  while (body.rows.length > count) body.deleteRow(-1);
  while (body.rows.length < count) {
    const row = body.insertRow();
    for (let i = 0; i < cells; i++) row.insertCell().className = "num";
  }
  return [...body.rows];
}

/** @param {string} id @param {import("./types.js").Reason[]} all */
function showReasons(id, all) {
  const top = all.slice(0, TOP_REASONS);
  const most = Math.max(...top.map((reason) => reason.per_s), 1e-9);
  rows(id, top.length, 3).forEach((row, i) => {
    const reason = top[i];
    const [name, rate, total] = row.cells;
    name.className = "reason";
    name.textContent = reason.name.replaceAll("_", " ");
    const code = document.createElement("span");
    code.className = "code";
    code.textContent = `${reason.code}`;
    name.append(code);
    name.style.setProperty("--share", `${reason.per_s / most}`);
    rate.textContent = format.rate(reason.per_s);
    total.textContent = format.count(reason.total);
  });
  const empty = /** @type {HTMLElement} */ (document.getElementById(`${id}-empty`));
  empty.hidden = top.length > 0;
}

/** @param {import("./types.js").InstanceRow[]} instances */
function showInstances(instances) {
  rows("instance-rows", instances.length, 8).forEach((row, i) => {
    const instance = instances[i];
    const state = instance.stale ? `stale ${format.duration(instance.age_s)}` : "live";
    const texts = [
      instance.instance,
      state,
      instance.stale ? "–" : format.rate(instance.auctions_per_s),
      format.ms(instance.p99_ms),
      format.ms(instance.lag_max_ms),
      instance.stale ? "–" : format.count(instance.in_flight),
      format.mebibytes(instance.rss_bytes),
      format.duration(instance.uptime_s),
    ];
    texts.forEach((text, cell) => {
      row.cells[cell].textContent = text;
    });
    row.cells[0].className = "";
    row.cells[1].className = instance.stale ? "state-stale" : "state-live";
  });
}
