// @ts-check
/** The last hour, second by second. */

const KEEP_S = 3700;
/** The order of a point's fields in protocol 1, where the server does not name it. */
const FIELDS = ["time", "auctions_per_s", "p50_ms", "p95_ms", "p99_ms", "p999_ms"];

/** @typedef {import("./types.js").Point} Point */

/**
 * Points of a snapshot: by the names of the server's history where it has them, and by the names of the rates.
 * @param {import("./types.js").Snapshot} snapshot @returns {Point}
 */
export function pointOf(snapshot) {
  const { rates, latency, lag } = snapshot;
  return {
    time: snapshot.time,
    auctions_per_s: rates.auctions,
    p50_ms: latency.p50_ms,
    p95_ms: latency.p95_ms,
    p99_ms: latency.p99_ms,
    p999_ms: latency.p999_ms,
    bid_rate: snapshot.bid_rate,
    win_rate: snapshot.win_rate,
    bids_per_s: rates.bids,
    wins_per_s: rates.wins,
    timeout_per_s: rates.timeout,
    shed_per_s: rates.shed,
    bidder_timeouts_per_s: rates.bidder_timeouts,
    bidder_errors_per_s: rates.bidder_errors,
    spend_per_s: rates.spend_nanos === undefined ? undefined : rates.spend_nanos / 1e9,
    in_flight: snapshot.in_flight,
    rss_bytes: snapshot.rss_bytes,
    lag_max_ms: lag?.max_ms,
    lag_p99_ms: lag?.p99_ms,
  };
}

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

  /** @param {Point} point newer than all others, else it is sorted in */
  add(point) {
    if (point.time > this.newest) this.points.push(point);
    else this.merge([point]);
    const first = this.newest - KEEP_S;
    if (this.points[0].time < first - 60) this.points = this.points.filter((old) => old.time >= first);
  }

  /** Points as the server keeps them: arrays in the order of `fields`. @param {(number|null)[][]} rows */
  fill(rows) {
    this.merge(rows.map((row) => /** @type {Point} */ (Object.fromEntries(row.map((v, i) => [this.fields[i], v])))));
  }

  /** Sort points in; of two of one moment the fields of both are kept. @param {Point[]} points */
  merge(points) {
    /** @type {Map<number, Point>} */
    const byTime = new Map(this.points.map((point) => [point.time, point]));
    for (const point of points) byTime.set(point.time, { ...point, ...byTime.get(point.time) });
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
