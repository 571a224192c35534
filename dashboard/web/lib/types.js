// @ts-check
/**
 * What the server sends, and what pages are given. Names are the server's: rtb/domain/metrics.py, dashboard/answers.py,
 * docs/dashboard-protocol.md.
 *
 * @typedef {{count: number, p50_ms: number|null, p95_ms: number|null, p99_ms: number|null, p999_ms: number|null,
 *   max_ms: number|null}} Spread
 * @typedef {{code: number, name: string, total: number, per_s: number}} Reason
 * @typedef {{instance: string, pid: number, host: string, version: string, since: number,
 *   state: "live"|"stale"|"stopped", age_s: number, auctions_per_s: number, bid_rate: number|null,
 *   timeout_rate: number|null, shed_rate: number|null, spend_per_s: number, p50_ms: number|null, p95_ms: number|null,
 *   p99_ms: number|null, lag_max_ms: number|null, cpu: number, in_flight: number, rss_bytes: number}} InstanceRow
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
 * @property {number} live how many instances are
 * @property {number} stale
 * @property {number|null} queue_ready messages that wait in queues that somebody ought to consume
 *
 * @typedef {{time: number, auctions_per_s: number, p50_ms: number|null, p95_ms: number|null, p99_ms: number|null,
 *   p999_ms: number|null, bid_rate?: number|null, win_rate?: number|null, timeout_rate?: number|null,
 *   shed_rate?: number|null, spend_per_s?: number, queue_ready?: number|null, in_flight?: number,
 *   lag_max_ms?: number|null, heat?: number[]}} Point one second of the charts
 *
 * @typedef {{id: string, name: string, advertiser: string, status: string, pricing: string, bid: number, ecpm: number,
 *   daily_budget: number|null, lifetime_budget: number|null, spent_today: number, target: number|null, funded: boolean,
 *   wins: number, impressions: number, clicks: number, conversions: number, revenue: number, ctr: number|null,
 *   roas: number|null, version: number}} CampaignRow
 * @typedef {{impressions: number, clicks: number, conversions: number, spend: number, revenue: number,
 *   ctr: number|null, cvr: number|null, cpc: number|null, cpm: number|null, roas: number|null}} Figures
 * @typedef {{source: string, standing: string, age_s: number|null, reason: string, figures: Figures|null}} SourceRow
 * @typedef {{campaign_id: string, since: string, until: string, currency: string, standing: string,
 *   totals: Figures|null, sources: SourceRow[], days: {date: string, wins: number, figures: Figures}[]
 *   }} CampaignMetrics
 *
 * @typedef {"connecting"|"live"|"stale"|"reconnecting"} State
 * @typedef {"operator"|"viewer"} Role
 *
 * @typedef {Object} Context what every page is mounted with
 * @property {import("./live.js").Live} live
 * @property {import("./api.js").Api} api
 * @property {(hash: string) => void} go to another page, as in go("#/campaigns/shoes")
 * @property {string[]} params what stands in the route after the page's name, decoded
 * @property {Role} role
 * @property {import("./time.js").Time} time the header's range, pause and instance
 */
export {};
