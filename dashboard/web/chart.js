// @ts-check
/** Lines over the last minutes, drawn on a canvas: linear from 0, or logarithmic with a deadline. */

/**
 * @typedef {{label: string, colour: string, index: number}} Series `colour` names a CSS variable, `index` a Point field
 * @typedef {{series: Series[], legend: HTMLElement, format: (value: number|null) => string, unit: string,
 *   seconds: number, log?: boolean, fill?: string, deadline?: number}} Options
 */

const GAP_S = 5;

export class Chart {
  /** @param {HTMLCanvasElement} canvas @param {Options} options */
  constructor(canvas, options) {
    this.canvas = canvas;
    this.options = options;
    /** @type {import("./types.js").Point[]} */
    this.points = [];
    /** @type {number|null} */
    this.pointerX = null;
    this.queued = false;
    this.values = options.series.map((series) => this.legendEntry(series));
    this.when = document.createElement("span");
    options.legend.append(this.when);
    new ResizeObserver(() => this.queue()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.queue());
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.point(null));
  }

  /** @param {import("./types.js").Point[]} points oldest first */
  show(points) {
    this.points = points;
    this.queue();
  }

  /** @param {number|null} x */
  point(x) {
    this.pointerX = x;
    this.queue();
  }

  /** Draw once before the next paint, however often it is asked for. */
  queue() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.draw();
    });
  }

  /** @param {Series} series */
  legendEntry(series) {
    const key = document.createElement("span");
    key.className = "key";
    key.style.setProperty("--colour", `var(${series.colour})`);
    const value = document.createElement("b");
    key.append(series.label, " ", value);
    this.options.legend.append(key);
    return value;
  }

  draw() {
    const { canvas, points, options } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const size = parseFloat(style.fontSize) * 0.75;
    context.font = `${size}px ${style.fontFamily}`;

    const scale = options.log ? logScale(points, options) : linearScale(points, options);
    const left = Math.max(...scale.ticks.map((tick) => context.measureText(tick.text).width)) + size * 0.8;
    const area = { left, right: width - 1, top: size * 0.6, bottom: height - size * 1.8 };
    const now = points.length ? points[points.length - 1][0] : 0;
    const x = (/** @type {number} */ time) => area.right - ((now - time) / options.seconds) * (area.right - area.left);
    const y = (/** @type {number} */ value) => area.bottom - scale.share(value) * (area.bottom - area.top);

    this.drawAxes(context, area, scale.ticks, y, colour, size);
    if (options.deadline) this.drawDeadline(context, area, y(options.deadline), colour("--bad"), size);
    context.save();
    context.beginPath();
    context.rect(area.left, 0, area.right - area.left, height);
    context.clip();
    for (const series of options.series) {
      drawLine(context, points, series.index, x, y, colour(series.colour), options.fill && { colour: colour(options.fill), bottom: area.bottom });
    }
    context.restore();
    this.drawReading(context, area, x, y, now, colour);
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {Area} area @param {Tick[]} ticks
   * @param {(value: number) => number} y @param {(name: string) => string} colour @param {number} size
   */
  drawAxes(context, area, ticks, y, colour, size) {
    context.strokeStyle = colour("--line");
    context.fillStyle = colour("--quiet");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticks) {
      const at = Math.round(y(tick.value)) + 0.5;
      context.beginPath();
      context.moveTo(area.left, at);
      context.lineTo(area.right, at);
      context.stroke();
      context.fillText(tick.text, area.left - size * 0.5, at);
    }
    context.textBaseline = "bottom";
    const minutes = this.options.seconds / 60;
    const step = Math.ceil((minutes * size * 7) / (area.right - area.left)); // as many labels as have room
    for (let minute = 0; minute <= minutes; minute += step) {
      const at = area.right - (minute / minutes) * (area.right - area.left);
      context.textAlign = minute === 0 ? "right" : minute === minutes ? "left" : "center";
      context.fillText(minute === 0 ? "now" : `−${minute} min`, at, area.bottom + size * 1.8);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {Area} area @param {number} y @param {string} colour
   * @param {number} size
   */
  drawDeadline(context, area, y, colour, size) {
    context.save();
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(area.left, y);
    context.lineTo(area.right, y);
    context.stroke();
    context.textAlign = "left";
    context.textBaseline = "bottom";
    context.fillText(`${this.options.deadline} ms deadline`, area.left + size * 0.4, y - 2);
    context.restore();
  }

  /**
   * The values under the pointer, else the newest ones, in the legend.
   * @param {CanvasRenderingContext2D} context @param {Area} area @param {(time: number) => number} x
   * @param {(value: number) => number} y @param {number} now @param {(name: string) => string} colour
   */
  drawReading(context, area, x, y, now, colour) {
    const { points, options, pointerX } = this;
    let point = points[points.length - 1];
    const pointing = pointerX !== null && point !== undefined && pointerX >= area.left;
    if (pointing) {
      for (const candidate of points) {
        if (Math.abs(x(candidate[0]) - pointerX) < Math.abs(x(point[0]) - pointerX)) point = candidate;
      }
      context.strokeStyle = colour("--quiet");
      context.beginPath();
      context.moveTo(x(point[0]), area.top);
      context.lineTo(x(point[0]), area.bottom);
      context.stroke();
    }
    options.series.forEach((series, i) => {
      const value = point ? /** @type {number|null} */ (point[series.index]) : null;
      this.values[i].textContent = value === null ? "–" : `${options.format(value)} ${options.unit}`;
      if (pointing && value !== null) {
        context.fillStyle = colour(series.colour);
        context.beginPath();
        context.arc(x(point[0]), y(value), 3, 0, 2 * Math.PI);
        context.fill();
      }
    });
    this.when.hidden = !pointing;
    this.when.textContent = pointing ? `${Math.round(now - point[0])} s ago` : "";
  }
}

/**
 * @typedef {{value: number, text: string}} Tick
 * @typedef {{ticks: Tick[], share: (value: number) => number}} Scale `share` is 0 at the bottom, 1 at the top
 * @typedef {{left: number, right: number, top: number, bottom: number}} Area
 */

/** @param {import("./types.js").Point[]} points @param {Options} options @returns {number[]} */
function valuesOf(points, options) {
  const values = [];
  for (const point of points) {
    for (const series of options.series) {
      const value = point[series.index];
      if (value !== null && value !== undefined) values.push(value);
    }
  }
  return values;
}

/** @param {import("./types.js").Point[]} points @param {Options} options @returns {Scale} */
function linearScale(points, options) {
  const highest = Math.max(1, ...valuesOf(points, options)) * 1.05;
  const power = 10 ** Math.floor(Math.log10(highest / 4));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => highest / s <= 4) ?? highest;
  const top = Math.ceil(highest / step) * step;
  const ticks = [];
  for (let value = 0; value <= top + step / 2; value += step) {
    ticks.push({ value, text: value.toLocaleString("en", { maximumFractionDigits: 2 }) });
  }
  return { ticks, share: (value) => value / top };
}

/** @param {import("./types.js").Point[]} points @param {Options} options @returns {Scale} */
function logScale(points, options) {
  const values = valuesOf(points, options).filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(1, ...values)));
  const top = Math.log10(Math.max(3 * (options.deadline ?? 0), 1.3 * Math.max(1, ...values)));
  const ticks = [];
  for (let power = low; power <= top; power++) {
    ticks.push({ value: 10 ** power, text: `${(10 ** power).toLocaleString("en")} ${options.unit}` });
  }
  return { ticks, share: (value) => Math.max(0, (Math.log10(Math.max(value, 1e-9)) - low) / (top - low)) };
}

/**
 * @param {CanvasRenderingContext2D} context @param {import("./types.js").Point[]} points @param {number} index
 * @param {(time: number) => number} x @param {(value: number) => number} y @param {string} colour
 * @param {{colour: string, bottom: number}|""|undefined} fill
 */
function drawLine(context, points, index, x, y, colour, fill) {
  for (const run of runsOf(points, index)) {
    const line = new Path2D();
    run.forEach((point, i) => {
      const at = /** @type {const} */ ([x(point[0]), y(/** @type {number} */ (point[index]))]);
      if (i === 0) line.moveTo(...at);
      else line.lineTo(...at);
    });
    if (fill) {
      const shape = new Path2D(line);
      shape.lineTo(x(run[run.length - 1][0]), fill.bottom);
      shape.lineTo(x(run[0][0]), fill.bottom);
      context.fillStyle = fill.colour;
      context.fill(shape);
    }
    context.strokeStyle = colour;
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.stroke(line);
  }
}

/**
 * The points with a value, cut where seconds are missing: no line is drawn over what is not known.
 * @param {import("./types.js").Point[]} points @param {number} index
 */
function runsOf(points, index) {
  /** @type {import("./types.js").Point[][]} */
  const runs = [];
  let last = -Infinity;
  for (const point of points) {
    if (point[index] === null) continue;
    if (point[0] - last > GAP_S) runs.push([]);
    runs[runs.length - 1].push(point);
    last = point[0];
  }
  return runs;
}
