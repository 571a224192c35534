// @ts-check
/** A heat strip: how long auctions took, as time runs to the right and milliseconds upwards; red is beyond the deadline. */

import { history } from "./chart.js";
import { el, put, replace } from "./dom.js";
import * as format from "./format.js";
import { colour, onTheme } from "./theme.js";

const COLUMN_PX = 3;
/** A second is never quite one: in columns of one some would be empty, others hold two. */
const COLUMN_S = 2;
const FAINTEST = 0.12;

/** @typedef {import("./types.js").Context} Context */

export class HeatStrip {
  /** @param {Context} context @param {{deadline?: number}} [options] deadline in ms: one of the server's bounds */
  constructor(context, { deadline = 100 } = {}) {
    this.context = context;
    this.deadline = deadline;
    this.queued = false;
    this.canvas = el("canvas", { class: "heat-canvas", role: "img" });
    this.rows = el("div", { class: "heat-rows", "aria-hidden": "true" });
    this.late = el("b", { text: format.NONE });
    this.element = el(
      "figure",
      { class: "heat" },
      el(
        "figcaption",
        {},
        el("h2", {}, "Every auction", " ", el("span", { class: "unit", text: "ms" })),
        el("ul", { class: "legend" }, [
          el("li", { class: "heat-key" }, "few ", el("i", { class: "scale" }), " many"),
          el("li", {}, `over ${deadline} ms `, this.late, " ", el("span", { class: "unit", text: "%" })),
        ]),
      ),
      el("div", { class: "heat-plot" }, this.rows, this.canvas),
    );
    this.observer = new ResizeObserver(() => this.update());
    this.observer.observe(this.canvas);
    this.ends = [
      context.live.on("update", () => context.time.paused || this.update()),
      context.time.on(() => this.update()),
      onTheme(() => this.update()),
    ];
  }

  destroy() {
    this.observer.disconnect();
    for (const end of this.ends) end();
  }

  update() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      if (this.element.isConnected) this.draw();
    });
  }

  draw() {
    /** @type {number[]} */
    const bounds = this.context.live.about.heat_bounds_ms ?? [];
    this.element.hidden = !bounds.length;
    const width = this.canvas.clientWidth;
    if (!bounds.length || !width) return;
    const [from, to] = this.context.time.window();
    const columns = Math.max(1, Math.min(Math.floor(width / COLUMN_PX), Math.round((to - from) / COLUMN_S)));
    const grid = counted(history(this.context), from, to, columns);
    const first = bounds.indexOf(this.deadline) + 1; // of the buckets beyond
    const used = grid.reduce((most, counts) => Math.max(most, counts.length), 0);
    const rows = Math.max(used, Math.min(bounds.length, first) + 1);
    this.paint(grid, rows, first);
    this.label(bounds, rows);
    const sum = (/** @type {number} */ start) =>
      grid.reduce((total, counts) => total + counts.reduce((a, n, i) => (i >= start ? a + (n ?? 0) : a), 0), 0);
    const all = sum(0);
    const late = sum(first);
    put(this.late, all ? format.percent(late / all, 2) : format.NONE);
    this.canvas.setAttribute(
      "aria-label",
      `Heat strip of latency over ${format.duration(to - from)}: ${format.count(late)} of ${format.count(all)} auctions took longer than ${this.deadline} ms`,
    );
  }

  /** @param {number[][]} grid counts by column and bucket @param {number} rows @param {number} first */
  paint(grid, rows, first) {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const paper = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    paper.clearRect(0, 0, width, height);
    const calm = colour("--heat");
    const alarm = colour("--bad");
    const cell = width / grid.length;
    const step = height / rows;
    grid.forEach((counts, column) => {
      const total = counts.reduce((a, n) => a + (n ?? 0), 0);
      const x = Math.floor(column * cell);
      counts.forEach((n, bucket) => {
        if (!n) return;
        paper.globalAlpha = FAINTEST + (1 - FAINTEST) * Math.sqrt(n / total);
        paper.fillStyle = bucket >= first ? alarm : calm;
        const top = Math.floor(height - (bucket + 1) * step);
        paper.fillRect(x, top, Math.ceil((column + 1) * cell) - x, Math.floor(height - bucket * step) - top);
      });
    });
    paper.globalAlpha = 1;
    paper.fillStyle = alarm;
    paper.fillRect(0, Math.round(height - first * step), width, Math.max(1, Math.round(ratio)));
  }

  /** The powers of ten among the bounds, at their heights. @param {number[]} bounds @param {number} rows */
  label(bounds, rows) {
    const wanted = `${rows} ${bounds.length}`;
    if (this.rows.dataset.of === wanted) return;
    this.rows.dataset.of = wanted;
    const labels = bounds
      .map((bound, i) => ({ bound, share: (i + 1) / rows }))
      .filter(({ bound, share }) => share < 1 && Number.isInteger(Math.log10(bound)));
    replace(this.rows, ...labels.map(({ bound, share }) => el("span", { text: String(bound), style: { bottom: `${share * 100}%` } })));
  }
}

/**
 * Auctions by column of time and bucket of latency.
 * @param {readonly import("./types.js").Point[]} points @param {number} from @param {number} to @param {number} columns
 * @returns {number[][]}
 */
function counted(points, from, to, columns) {
  /** @type {number[][]} */
  const grid = Array.from({ length: columns }, () => []);
  for (const { time, heat } of points) {
    if (time <= from || time > to || !heat?.length) continue;
    const counts = grid[Math.min(columns - 1, Math.floor(((time - from) / (to - from)) * columns - 1e-9))];
    const first = heat[0];
    for (let i = 1; i < heat.length; i++) counts[first + i - 1] = (counts[first + i - 1] ?? 0) + heat[i];
  }
  return grid;
}
