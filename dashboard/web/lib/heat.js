// @ts-check
/** A heat strip: percentiles of latency as rows, time as columns, from calm far below the deadline to alarm above it. */

import { history } from "./chart.js";
import { el } from "./dom.js";
import * as format from "./format.js";
import { colour, onTheme } from "./theme.js";

const ROWS = /** @type {const} */ ([
  ["p50", "p50_ms"],
  ["p95", "p95_ms"],
  ["p99", "p99_ms"],
  ["p99.9", "p999_ms"],
]);
const STEPS = 7;

export class HeatStrip {
  /** @param {import("./types.js").Context} context @param {{deadline?: number}} [options] deadline in ms */
  constructor(context, { deadline = 100 } = {}) {
    this.context = context;
    this.deadline = deadline;
    this.queued = false;
    this.canvas = el("canvas", { class: "heat-canvas", role: "img" });
    const legend = el("span", { class: "heat-key", "aria-hidden": "true" }, "1 ms");
    for (let i = 0; i < STEPS; i++) legend.append(el("i", { class: `heat-${i}` }));
    legend.append(`over ${deadline} ms`);
    this.element = el(
      "div",
      { class: "heat" },
      el("div", { class: "heat-rows", "aria-hidden": "true" }, ROWS.map(([name]) => el("span", { text: name }))),
      this.canvas,
      legend,
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

  /** How hot a latency is: 0 at 1 ms, logarithmic up to the deadline, the last step above it. @param {number} ms */
  step(ms) {
    if (ms > this.deadline) return STEPS - 1;
    const share = Math.log(Math.max(1, ms)) / Math.log(this.deadline);
    return Math.min(STEPS - 2, Math.floor(share * (STEPS - 1)));
  }

  draw() {
    const { canvas, context } = this;
    const ratio = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const paper = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    paper.clearRect(0, 0, width, height);
    const [from, to] = context.time.window();
    const points = history(context).filter((point) => point.time > from && point.time <= to);
    const row = height / ROWS.length;
    const cell = Math.max(ratio, width / context.time.range);
    const colours = Array.from({ length: STEPS }, (_, i) => colour(`--heat-${i}`));
    let above = 0;
    // The worst of what falls on one pixel must be the one that is seen: hot cells are painted last.
    for (let wanted = 0; wanted < STEPS; wanted++) {
      paper.fillStyle = colours[wanted];
      for (const point of points) {
        const x = ((point.time - from) / (to - from)) * width - cell;
        ROWS.forEach(([, field], i) => {
          const value = point[field];
          if (typeof value !== "number" || this.step(value) !== wanted) return;
          if (wanted === STEPS - 1 && field === "p99_ms") above++;
          paper.fillRect(Math.floor(x), Math.ceil(i * row), Math.ceil(cell), Math.floor(row) - ratio);
        });
      }
    }
    canvas.setAttribute(
      "aria-label",
      `Heat strip of latency over ${format.duration(context.time.range)}: p99 was over ${this.deadline} ms in ${above} of ${points.length} seconds`,
    );
  }
}
