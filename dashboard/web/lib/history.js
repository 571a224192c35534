// @ts-check
/** The last hour, second by second. */

const KEEP_S = 3700;
/** The first fields of a point, which every server has told in this order. */
const FIELDS = ["time", "auctions_per_s", "p50_ms", "p95_ms", "p99_ms", "p999_ms"];

/** @typedef {import("./types.js").Point} Point */

export class History {
  constructor() {
    /** Oldest first. @type {Point[]} */
    this.points = [];
    /** @type {string[]} */
    this.fields = FIELDS;
  }

  /** The time of the newest point, 0 without any. */
  get newest() {
    return this.points.at(-1)?.time ?? 0;
  }

  /** Sort in points as the server tells them: arrays in the order of `fields`. @param {any[][]} rows */
  fill(rows) {
    const points = rows.map((row) => this.point(row));
    const inOrder = points.length === 1 && points[0].time > this.newest;
    if (inOrder) this.points.push(points[0]);
    else if (points.length) this.merge(points);
    const first = this.newest - KEEP_S;
    if (this.points.length && this.points[0].time < first - 60) this.points = this.points.filter((old) => old.time >= first);
  }

  /** @param {any[]} row @returns {Point} */
  point(row) {
    const point = /** @type {any} */ ({});
    for (let i = 0; i < row.length; i++) point[this.fields[i]] = row[i];
    return point;
  }

  /** Of two points of one moment the later one counts. @param {Point[]} points */
  merge(points) {
    const byTime = new Map([...this.points, ...points].map((point) => [point.time, point]));
    this.points = [...byTime.values()].sort((a, b) => a.time - b.time);
  }

  /** The last point not after a moment. @param {number} time @returns {Point|undefined} */
  at(time) {
    let low = 0;
    let high = this.points.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.points[middle].time <= time) low = middle + 1;
      else high = middle;
    }
    return this.points[low - 1];
  }
}
