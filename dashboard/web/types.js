// @ts-check
/**
 * What the server sends; see Snapshot in rtb/domain/metrics.py, whose names these are.
 *
 * @typedef {{count: number, p50_ms: number|null, p95_ms: number|null, p99_ms: number|null, p999_ms: number|null,
 *   max_ms: number|null}} Spread
 * @typedef {{code: number, name: string, total: number, per_s: number}} Reason
 * @typedef {{instance: string, stale: boolean, age_s: number, uptime_s: number, auctions_per_s: number,
 *   p99_ms: number|null, lag_max_ms: number|null, in_flight: number, rss_bytes: number}} InstanceRow
 * @typedef {Object} Snapshot
 * @property {number} seq
 * @property {number} time Unix seconds
 * @property {string} currency
 * @property {number} uptime_s
 * @property {Record<string, number>} totals zeros are left out
 * @property {Record<string, number>} rates per second
 * @property {number|null} bid_rate 0 to 1
 * @property {number|null} win_rate 0 to 1
 * @property {Spread} latency
 * @property {Spread} lag
 * @property {number} gc_pause_max_ms
 * @property {number} in_flight
 * @property {number} rss_bytes
 * @property {Reason[]} no_bids
 * @property {Reason[]} losses
 * @property {InstanceRow[]} instances
 *
 * @typedef {[time: number, auctions: number, p50: number|null, p95: number|null, p99: number|null,
 *   p999: number|null]} Point one second of the charts
 *
 * @typedef {{type: "initial"|"metrics_update", seq: number, data: {snapshot: Snapshot, history?: Point[]}}} Message
 */
export {};
