// @ts-check
/** The header's view of time, which all charts share: how long a range, paused at which moment, and which instance. */

export const RANGES = [
  { seconds: 300, label: "5 min" },
  { seconds: 900, label: "15 min" },
  { seconds: 3600, label: "1 h" },
];
const KEPT = "rtb.range";
/** What charts show at least, seconds. */
const LEAST_S = 60;

export class Time {
  /** @param {() => import("./history.js").History} history */
  constructor(history) {
    this.history = history;
    const kept = Number(localStorage.getItem(KEPT));
    /** Seconds that charts show. */
    this.range = RANGES.some((range) => range.seconds === kept) ? kept : RANGES[0].seconds;
    /** Where charts end: null is live, else Unix seconds. @type {number|null} */
    this.end = null;
    /** The instance to show, "" for all merged. */
    this.instance = "";
    /** @type {Set<() => void>} */
    this.listeners = new Set();
  }

  get paused() {
    return this.end !== null;
  }

  /** The time of the newest point, Unix seconds. */
  newest() {
    return this.history().newest;
  }

  /** First and last moment that charts show: the range, or what there is of it, or they would be empty for minutes after
   * the server's start. @returns {[number, number]} */
  window() {
    const end = this.end ?? this.newest();
    const first = this.history().points[0]?.time ?? end;
    return [Math.max(end - this.range, Math.min(first, end - LEAST_S)), end];
  }

  /** Called after every change. @param {() => void} fn @returns {() => void} ends it */
  on(fn) {
    this.listeners.add(fn);
    return () => this.listeners.delete(fn);
  }

  /** @param {number} seconds */
  setRange(seconds) {
    this.range = seconds;
    localStorage.setItem(KEPT, String(seconds));
    this.changed();
  }

  /** Stop here, or at another moment. @param {number} [end] Unix seconds */
  pause(end = this.newest()) {
    this.end = end;
    this.changed();
  }

  resume() {
    this.end = null;
    this.changed();
  }

  /** @param {string} instance */
  setInstance(instance) {
    this.instance = instance;
    this.changed();
  }

  changed() {
    for (const fn of [...this.listeners]) fn();
  }
}
