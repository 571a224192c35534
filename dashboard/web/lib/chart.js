// @ts-check
/** Line and area charts over the header's range: one cursor for all of them, the theme's colours, words for those who do
 * not see them. */

import { el, put, replace } from "./dom.js";
import * as format from "./format.js";
import { colour, onTheme } from "./theme.js";

const GAP_S = 5;
const SAY_MS = 5000;
const TABLE_ROWS = 30;
const SYNC = "rtb";
/** Seconds between labels of the time axis. */
const STEPS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

/** @typedef {import("./types.js").Point} Point */
/** @typedef {import("./types.js").Context} Context */

/**
 * @typedef {Object} Series
 * @property {string} label
 * @property {string} colour a CSS variable
 * @property {(point: Point) => number|null|undefined} value
 * @property {boolean} [fill] the area below, too
 * @property {boolean} [dash]
 */

/**
 * @typedef {Object} Options
 * @property {string} title
 * @property {Series[]} series
 * @property {string} unit
 * @property {(value: number|null|undefined) => string} [format] without the unit
 * @property {boolean} [log] a logarithmic scale
 * @property {number} [deadline] a line in the unit of the values
 * @property {string} [deadlineLabel]
 * @property {number} [atLeast] the scale reaches up to this in any case
 * @property {number} [gap] seconds between points that are no gap in the lines, GAP_S if not given
 * @property {() => readonly Point[]} [points] the whole system's history, or the instance's, if not given
 */

/** What draws the lines: it comes after the first frame of the first charts. @type {typeof import("../vendor/uplot.js")|null} */
let Plot = null;
/** @type {Promise<void>|undefined} */
let coming;

async function fetchPlot() {
  await new Promise(requestAnimationFrame);
  Plot = (await import("../vendor/uplot.js")).default;
}

export class Chart {
  /** @param {Context} context @param {Options} options */
  constructor(context, options) {
    this.context = context;
    this.options = options;
    this.format = options.format ?? format.rate;
    /** @type {import("../vendor/uplot.js")|null} */
    this.plot = null;
    /** @type {Point[]} */
    this.shown = [];
    this.saidAt = -Infinity;
    this.queued = false;
    this.values = options.series.map(() => el("b"));
    this.when = el("output", { class: "when" });
    const keys = options.series.map((series, i) =>
      el("li", { class: "key", style: { "--colour": `var(${series.colour})` } }, series.label, " ", this.values[i]),
    );
    this.box = el("div", {
      class: "plot",
      role: "img",
      tabindex: "0",
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.pressed(event),
      onblur: () => this.point(null),
    });
    this.table = el("div", { class: "plot-table", hidden: true, tabindex: "0", role: "region", "aria-label": `${options.title}, as a table` });
    this.toggle = el("button", {
      type: "button",
      class: "button small",
      text: "Table",
      "aria-expanded": "false",
      "aria-label": `${options.title} as a table`,
      onclick: () => this.flip(),
    });
    /** What goes into the page. */
    this.box.append(this.when);
    this.element = el(
      "figure",
      { class: "chart" },
      el(
        "figcaption",
        {},
        el("h2", {}, options.title, " ", el("span", { class: "unit", text: options.unit })),
        el("ul", { class: "legend" }, keys),
        this.toggle,
      ),
      this.box,
      this.table,
    );
    this.observer = new ResizeObserver(() => this.resize());
    if (!Plot) (coming ??= fetchPlot()).then(() => this.element.isConnected && this.resize());
    this.observer.observe(this.box);
    this.ends = [
      context.live.on("update", () => context.time.paused || this.update()),
      context.time.on(() => this.update()),
      onTheme(() => this.plot?.redraw(false, true)),
    ];
    this.update();
  }

  destroy() {
    this.observer.disconnect();
    for (const end of this.ends) end();
    this.plot?.destroy();
    this.plot = null;
  }

  /** Draw anew before the next paint. */
  update() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      if (this.element.isConnected) this.draw();
    });
  }

  draw() {
    const [from, to] = this.context.time.window();
    const points = this.options.points?.() ?? history(this.context);
    this.shown = points.filter((point) => point.time >= from - (this.options.gap ?? GAP_S) && point.time <= to);
    this.plot?.setData(/** @type {any} */ (this.columns()));
    this.read(this.plot?.cursor.idx ?? null);
    if (!this.table.hidden) this.list();
    const now = performance.now();
    if (now - this.saidAt > SAY_MS) {
      if (this.shown.length) this.saidAt = now;
      this.box.setAttribute("aria-label", this.words());
    }
  }

  /** Times, then a column of each series; a gap in time is one in the lines. */
  columns() {
    const { series, log, gap = GAP_S } = this.options;
    /** @type {(number|null)[][]} */
    const columns = [[], ...series.map(() => [])];
    let before = Infinity;
    for (const point of this.shown) {
      if (point.time - before > gap) {
        columns[0].push(before + 1);
        for (let i = 1; i < columns.length; i++) columns[i].push(null);
      }
      before = point.time;
      columns[0].push(point.time);
      series.forEach((one, i) => {
        const value = one.value(point);
        columns[i + 1].push(value === undefined || value === null || (log && value <= 0) ? null : value);
      });
    }
    return columns;
  }

  resize() {
    const width = this.box.clientWidth;
    const height = this.box.clientHeight;
    if (!width || !height) return;
    if (this.plot) this.plot.setSize({ width, height });
    else if (Plot) this.plot = new Plot(this.plotOptions(width, height), /** @type {any} */ (this.columns()), this.box);
  }

  /** @param {number} width @param {number} height @returns {any} */
  plotOptions(width, height) {
    const { options, context } = this;
    const size = parseFloat(getComputedStyle(this.box).fontSize);
    const axis = {
      stroke: () => colour("--quiet"),
      grid: { stroke: () => colour("--grid"), width: 1 },
      ticks: { show: false },
      font: `${size}px ${getComputedStyle(this.box).fontFamily}`,
    };
    return {
      width,
      height,
      padding: [size * 0.75, size, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        drag: { setScale: false, x: false, y: false },
        sync: { key: SYNC, setSeries: false },
        points: { size: 7 },
      },
      scales: {
        x: { time: true, range: () => context.time.window() },
        y: { distr: options.log ? 3 : 1, range: (/** @type {any} */ _, /** @type {number} */ low, /** @type {number} */ high) => this.range(low, high) },
      },
      axes: [
        { ...axis, size: size * 2.2, gap: size * 0.4, incrs: STEPS, space: size * 5.5, values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map(clock) },
        {
          ...axis,
          size: size * 4.6,
          gap: size * 0.5,
          space: size * 2.8,
          values: (/** @type {any} */ _, /** @type {(number|null)[]} */ at) => at.map((value) => (value === null ? "" : tick(value))),
        },
      ],
      series: [
        {},
        ...options.series.map((series) => ({
          label: series.label,
          stroke: () => colour(series.colour),
          width: 1.75,
          dash: series.dash ? [5, 4] : undefined,
          fill: series.fill ? () => faded(colour(series.colour), 0.14) : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: {
        draw: [() => this.drawDeadline()],
        setCursor: [(/** @type {import("../vendor/uplot.js")} */ plot) => this.read(plot.cursor.idx ?? null)],
      },
    };
  }

  /** From 0, or from the power of ten below; up to the largest value, a least height, or the deadline.
   * @param {number|null} low @param {number|null} high */
  range(low, high) {
    const { log, deadline = 0, atLeast = 0 } = this.options;
    const top = Math.max(high ?? 0, atLeast, deadline * (log ? 2 : 1.15));
    if (!log) return [0, top > 0 ? top * 1.08 : 1];
    const bottom = Math.max(0.01, 10 ** Math.floor(Math.log10(Math.max(low ?? 1, 0.01))));
    return [Math.min(bottom, top / 10), top];
  }

  drawDeadline() {
    const { plot, options } = this;
    if (!plot || !options.deadline) return;
    const { ctx, bbox } = plot;
    const y = Math.round(plot.valToPos(options.deadline, "y", true));
    if (y < bbox.top || y > bbox.top + bbox.height) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--bad");
    ctx.lineWidth = devicePixelRatio * 1.25;
    ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.font = `${parseFloat(getComputedStyle(this.box).fontSize) * devicePixelRatio}px ${getComputedStyle(this.box).fontFamily}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "bottom";
    ctx.fillText(options.deadlineLabel ?? `${options.deadline} ${options.unit} deadline`, bbox.left + 6 * devicePixelRatio, y - 3 * devicePixelRatio);
    ctx.restore();
  }

  /** The values under the cursor, else the newest, in the legend. @param {number|null} index */
  read(index) {
    const data = this.plot?.data;
    const times = data?.[0] ?? [];
    const at = index ?? times.length - 1;
    this.values.forEach((node, i) => {
      const value = data?.[i + 1]?.[at];
      put(node, this.format(value));
    });
    const time = index === null ? undefined : times[index];
    put(this.when, time === undefined ? "" : format.time(time));
  }

  /** Left and right move the cursor, of all charts. @param {KeyboardEvent} event */
  pressed(event) {
    const count = this.plot?.data[0].length ?? 0;
    /** @type {Record<string, number>} */
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -count, End: count };
    if (event.key === "Escape") this.point(null);
    if (!(event.key in steps) || !count) return;
    event.preventDefault();
    const at = this.plot?.cursor.idx ?? count;
    this.point(Math.max(0, Math.min(count - 1, at + steps[event.key])));
  }

  /** @param {number|null} index */
  point(index) {
    const { plot } = this;
    if (!plot) return;
    const time = index === null ? undefined : plot.data[0][index];
    /** @type {any} */ (plot).setCursor(time === undefined ? { left: -10, top: -10 } : { left: plot.valToPos(time, "x"), top: 10 }, true, true);
    if (time !== undefined) this.box.setAttribute("aria-label", `${format.time(time)}: ${this.reading()}`);
  }

  reading() {
    const { series, unit } = this.options;
    return series.map((one, i) => `${one.label} ${this.values[i].textContent} ${unit}`).join(", ");
  }

  /** The chart in a sentence. */
  words() {
    const { title, series, unit } = this.options;
    const last = this.shown.at(-1);
    if (!last) return `${title}: no values yet`;
    const parts = series.map((one) => {
      const values = this.shown.map(one.value).filter((value) => typeof value === "number");
      if (!values.length) return `${one.label} unknown`;
      const text = (/** @type {number|null|undefined} */ value) => this.format(value);
      const [least, most] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
      return `${one.label} ${text(one.value(last))} ${unit}, from ${text(least)} to ${text(most)}`;
    });
    const [from, to] = this.context.time.window();
    return `${title} over ${format.duration(to - from)}: ${parts.join("; ")}`;
  }

  flip() {
    this.table.hidden = !this.table.hidden;
    this.box.hidden = !this.table.hidden;
    this.toggle.setAttribute("aria-expanded", String(!this.table.hidden));
    if (!this.table.hidden) this.list();
  }

  list() {
    const { series, unit } = this.options;
    const step = Math.max(1, Math.ceil(this.shown.length / TABLE_ROWS));
    const rows = this.shown.filter((_, i) => (this.shown.length - 1 - i) % step === 0).reverse();
    replace(
      this.table,
      el(
        "table",
        { class: "list" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Time" }), series.map((one) => el("th", { scope: "col", class: "num", text: `${one.label} (${unit})` })))),
        el("tbody", {}, rows.map((point) => el("tr", {}, el("td", { text: format.time(point.time) }), series.map((one) => el("td", { class: "num", text: this.format(one.value(point)) }))))),
      ),
    );
  }
}

/** The points that the header has chosen: of the whole system, or of one instance. @param {Context} context */
export function history({ live }) {
  return (live.view ?? live).history.points;
}

/** @param {number} unixSeconds */
function clock(unixSeconds) {
  const date = new Date(unixSeconds * 1000);
  const seconds = date.getSeconds() ? `:${format.two(date.getSeconds())}` : "";
  return `${format.two(date.getHours())}:${format.two(date.getMinutes())}${seconds}`;
}

/** @param {number} value on an axis */
function tick(value) {
  if (value === 0) return "0";
  if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (value >= 10_000) return `${+(value / 1e3).toPrecision(3)} k`;
  return value >= 1000 ? format.fixed(value, 0) : String(+value.toPrecision(3));
}

/** @param {string} rgb as in "rgb(1, 2, 3)" @param {number} alpha */
function faded(rgb, alpha) {
  return rgb.replace(/^rgb\(([^)]*)\)$/, `rgba($1, ${alpha})`);
}
