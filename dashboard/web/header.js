// @ts-check
/** The header: whether it is live, which instance, which range, pause and rewind, the theme, who is there. */

import { el, put } from "./lib/dom.js";
import * as format from "./lib/format.js";
import { setTheme, theme } from "./lib/theme.js";
import { RANGES } from "./lib/time.js";

const FORGET_S = 600; // an instance silent for so long has been replaced

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const state = byId("state");
const asOf = byId("asof");
const instance = /** @type {HTMLSelectElement} */ (byId("instance"));
const pause = byId("pause");
const rewind = /** @type {HTMLInputElement} */ (byId("rewind"));
const moment = byId("moment");

/** @param {import("./lib/live.js").Live} live @param {import("./lib/time.js").Time} time */
export function wireHeader(live, time) {
  live.on("state", (now) => showState(now, live));
  live.on("update", () => showUpdate(live, time));
  time.on(() => showTime(live, time));
  wireRanges(time);
  instance.addEventListener("change", () => time.setInstance(instance.value));
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
  put(byId("who"), `Log out ${me.name}`);
}

/** @param {import("./lib/types.js").State} now @param {import("./lib/live.js").Live} live */
function showState(now, live) {
  document.documentElement.dataset.state = now;
  put(state, now);
  state.title = now === "live" ? "" : `as of ${format.time(live.snapshot?.time)}`;
}

/** @param {import("./lib/live.js").Live} live @param {import("./lib/time.js").Time} time */
function showUpdate(live, time) {
  const { snapshot } = live;
  if (!snapshot) return;
  put(asOf, format.time(snapshot.time));
  const rows = snapshot.instances.filter((row) => !row.stale || row.age_s < FORGET_S);
  const names = ["", ...rows.map((row) => row.instance)];
  if (time.instance && !names.includes(time.instance)) names.push(time.instance);
  const wanted = names.join("\n");
  if (instance.dataset.names !== wanted) {
    instance.dataset.names = wanted;
    instance.replaceChildren(...names.map((name) => el("option", { value: name, text: name })));
    instance.value = time.instance;
  }
  const live_ = rows.filter((row) => !row.stale).length;
  const many = live_ === rows.length ? `${live_}` : `${live_} of ${rows.length}`;
  put(instance.options[0], rows.length === 1 ? "1 instance" : `all ${many} instances`);
  showTime(live, time);
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
