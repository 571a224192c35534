// @ts-check
/** The header: whether it is live, which instance, which range, pause and rewind, the theme, who is there. */

import { el, put, replace, toast } from "./lib/dom.js";
import * as format from "./lib/format.js";
import { setTheme, theme } from "./lib/theme.js";
import { RANGES } from "./lib/time.js";

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const state = byId("state");
const asOf = byId("asof");
const instance = /** @type {HTMLSelectElement} */ (byId("instance"));
const pause = byId("pause");
const rewind = /** @type {HTMLInputElement} */ (byId("rewind"));
const moment = byId("moment");

/**
 * @param {import("./lib/live.js").Live} live @param {import("./lib/time.js").Time} time
 * @param {import("./lib/api.js").Api} api @param {Promise<unknown>} shown when the first page stands
 */
export function wireHeader(live, time, api, shown) {
  live.on("state", (now) => showState(now, live));
  live.on("update", () => showUpdate(live, time));
  watchInstances(live, time, api);
  watchAlerts(live, api, shown);
  time.on(() => showTime(live, time));
  wireRanges(time);
  instance.addEventListener("change", () => {
    live.follow(instance.value);
    time.setInstance(instance.value);
  });
  pause.addEventListener("click", () => (time.paused ? time.resume() : time.pause()));
  rewind.addEventListener("input", () => {
    const back = Number(rewind.value);
    if (back === 0) time.resume();
    else time.pause(live.history.newest + back);
  });
  const colours = /** @type {HTMLSelectElement} */ (byId("theme"));
  colours.value = theme();
  colours.addEventListener("change", () => setTheme(/** @type {import("./lib/theme.js").Theme} */ (colours.value)));
}

/** @param {{name: string, role: string}} me */
export function showAccount(me) {
  document.documentElement.dataset.role = me.role;
  if (!me.name) return; // nobody had to log in
  byId("logout").hidden = false;
  byId("who").title = `${me.name}, ${me.role}`;
  replace(byId("who"), "Log out ", el("span", { class: "who", text: me.name }));
}

/** @param {import("./lib/types.js").State} now @param {import("./lib/live.js").Live} live */
function showState(now, live) {
  document.documentElement.dataset.state = now;
  put(state, now);
  state.title = now === "live" ? "" : `as of ${format.time(live.snapshot?.time)}`;
}

/** @param {import("./lib/live.js").Live} live @param {import("./lib/time.js").Time} time */
function showUpdate(live, time) {
  put(asOf, format.time(live.snapshot?.time));
  showTime(live, time);
}

/**
 * Which instances there are, whenever their number changes.
 * @param {import("./lib/live.js").Live} live @param {import("./lib/time.js").Time} time
 * @param {import("./lib/api.js").Api} api
 */
function watchInstances(live, time, api) {
  let known = "";
  let greeting = {};
  live.on("update", async () => {
    const now = `${live.about.instance} ${live.snapshot?.live} ${live.snapshot?.stale}`;
    if (now === known) return;
    known = now;
    // The greeting names them, but in the first second of a server's life.
    const told = live.about !== greeting && live.about.snapshot.seq ? live.about.instances : null;
    greeting = live.about;
    showInstances(told ?? (await api.get("/api/instances").catch(() => null))?.instances ?? [], time);
  });
}

/**
 * How many alerts are firing, beside the name of their page; a new one is said aloud.
 * @param {import("./lib/live.js").Live} live @param {import("./lib/api.js").Api} api @param {Promise<unknown>} shown
 */
function watchAlerts(live, api, shown) {
  /** @type {Set<string>} */
  let firing = new Set();
  const show = () => {
    const badge = byId("firing");
    badge.hidden = firing.size === 0;
    put(badge, String(firing.size));
    badge.setAttribute("aria-label", `${firing.size} firing`);
  };
  live.on("state", async (state) => {
    if (state !== "live") return;
    await shown;
    const rows = (await api.get("/api/alerts").catch(() => null))?.alerts ?? [];
    firing = new Set(rows.filter((/** @type {any} */ row) => row.phase === "firing").map((/** @type {any} */ row) => row.rule.id));
    show();
  });
  live.on("alert", (row) => {
    const known = firing.has(row.rule.id);
    if (row.phase === "firing") firing.add(row.rule.id);
    else firing.delete(row.rule.id);
    if (!known && row.phase === "firing") toast(`${row.rule.id} is firing: ${format.words(row.rule.metric)}`, row.rule.severity === "info" ? "info" : "error");
    show();
  });
}

/** @param {import("./lib/types.js").InstanceRow[]} rows @param {import("./lib/time.js").Time} time */
function showInstances(rows, time) {
  const names = rows.filter((row) => row.state !== "stopped").map((row) => row.instance);
  if (time.instance && !names.includes(time.instance)) names.push(time.instance);
  const alive = rows.filter((row) => row.state === "live").length;
  const many = alive === names.length ? `${alive}` : `${alive} of ${names.length}`;
  const all = names.length === 1 ? "1 instance" : `all ${many} instances`;
  replace(instance, el("option", { value: "", text: all }), ...names.map((name) => el("option", { value: name, text: name })));
  instance.value = time.instance;
}

/** @param {import("./lib/live.js").Live} live @param {import("./lib/time.js").Time} time */
function showTime(live, time) {
  const { newest, points } = live.history;
  const kept = Math.max(60, Math.min(3600, Math.round(newest - (points[0]?.time ?? newest))));
  rewind.min = String(-kept);
  const back = time.end === null ? 0 : Math.max(-kept, Math.round(time.end - newest));
  if (document.activeElement !== rewind || time.end === null) rewind.value = String(back);
  const text = time.end === null ? "live" : format.time(time.end);
  put(moment, text);
  rewind.setAttribute("aria-valuetext", text);
  pause.setAttribute("aria-pressed", String(time.paused));
  document.documentElement.dataset.paused = String(time.paused);
}

/** @param {import("./lib/time.js").Time} time */
function wireRanges(time) {
  for (const { seconds, label } of RANGES) {
    const choice = el("input", { type: "radio", name: "range", value: String(seconds), onchange: () => time.setRange(seconds) });
    choice.checked = seconds === time.range;
    byId("ranges").append(el("label", {}, choice, el("span", { text: label })));
  }
}
