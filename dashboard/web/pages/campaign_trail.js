// @ts-check
/** What a campaign did in the last hour: as the server tells it, every ten seconds, and from then on every second. */

const KEEP_S = 3700;
/** Wins a second are of so many seconds: of a single one they would jump. */
const WINDOW_S = 9.5;
/** Points further apart than this are a gap in the lines. */
export const GAP_S = 25;

/** @typedef {{time: number, spent: number, target: number|null, wins: number, wins_per_s: number|null}} TrailPoint */

export class Trail {
  /** @param {import("../lib/types.js").Context} context @param {string} id @param {() => void} filled */
  constructor({ live }, id, filled) {
    this.live = live;
    this.id = id;
    this.filled = filled;
    /** Oldest first. @type {TrailPoint[]} */
    this.points = [];
    /** Until when nothing is missing, Unix seconds. */
    this.known = 0;
    this.fill();
    this.end = live.on("state", (state) => {
      if (state === "live") this.fill();
      else this.known = this.known && (this.points.at(-1)?.time ?? 0);
    });
  }

  /** Ask for what is missing, now and after every gap in the connection. */
  async fill() {
    let told;
    try {
      told = await this.live.send({ type: "backfill", campaign_id: this.id, since: this.known });
    } catch {
      return; // no connection yet: asked again when there is one
    }
    const fields = this.live.about.campaign_point_fields ?? [];
    const times = new Set(this.points.map((point) => point.time));
    for (const row of told.points) {
      if (times.has(row[0])) continue;
      const { time, spent_today, target, wins } = Object.fromEntries(row.map((/** @type {any} */ value, /** @type {number} */ i) => [fields[i], value]));
      this.points.push({ time, spent: spent_today, target, wins, wins_per_s: null });
    }
    this.points.sort((a, b) => a.time - b.time);
    this.known = this.points.at(-1)?.time ?? 0;
    this.points.forEach((_, i) => this.measure(i));
    this.filled();
  }

  /** @param {number} time Unix seconds @param {import("../lib/types.js").CampaignRow} row */
  add(time, row) {
    const { points } = this;
    if (time <= (points.at(-1)?.time ?? 0)) return;
    points.push({ time, spent: row.spent_today, target: row.target, wins: row.wins, wins_per_s: null });
    this.measure(points.length - 1);
    if (points[0].time < time - KEEP_S - 60) this.points = points.filter((point) => point.time >= time - KEEP_S);
  }

  /** @param {number} at */
  measure(at) {
    const point = this.points[at];
    let i = at - 1;
    while (i > 0 && this.points[i].time > point.time - WINDOW_S) i--;
    const before = this.points[i];
    const seconds = before ? point.time - before.time : 0;
    // Fewer than before: another day has begun.
    point.wins_per_s = seconds > 0 && seconds <= GAP_S && point.wins >= before.wins ? (point.wins - before.wins) / seconds : null;
  }
}
