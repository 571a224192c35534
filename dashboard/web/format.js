// @ts-check
/** Numbers as people read them; every function gives "–" for a value that does not exist. */

const NONE = "–";

/** @type {Map<number, Intl.NumberFormat>} */
const formats = new Map();

/** @param {number} value @param {number} digits after the point */
function fixed(value, digits) {
  let format = formats.get(digits);
  if (!format) {
    format = new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    formats.set(digits, format);
  }
  return format.format(value);
}

/** @param {number|null|undefined} value a count, or a large rate */
export function count(value) {
  if (value == null) return NONE;
  return value < 10_000_000 ? fixed(value, 0) : `${fixed(value / 1e6, 1)} M`;
}

/** @param {number|null|undefined} value per second */
export function rate(value) {
  if (value == null) return NONE;
  return value > 0 && value < 100 ? fixed(value, 1) : count(value);
}

/** @param {number|null|undefined} share 0 to 1, as percent without its sign */
export function percent(share) {
  return share == null ? NONE : fixed(share * 100, 1);
}

/** @param {number|null|undefined} value milliseconds, three digits that matter */
export function ms(value) {
  if (value == null) return NONE;
  return fixed(value, value < 10 ? 2 : value < 100 ? 1 : 0);
}

/** @param {number|null|undefined} nanos of a currency unit; small amounts keep the digits that matter */
export function money(nanos) {
  if (nanos == null) return NONE;
  const units = nanos / 1e9;
  return fixed(units, units === 0 || units >= 10 ? 2 : units >= 0.1 ? 3 : 5);
}

/** @param {number} seconds the two largest units of a duration */
export function duration(seconds) {
  const s = Math.floor(seconds);
  const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${pad(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${pad(Math.floor((s % 3600) / 60))} m`;
  return `${Math.floor(s / 86400)} d ${pad(Math.floor((s % 86400) / 3600))} h`;
}

/** @param {number} unixSeconds the local time of day */
export function clock(unixSeconds) {
  return unixSeconds ? new Date(unixSeconds * 1000).toLocaleTimeString("en-GB") : NONE;
}

/** @param {number} bytes in MiB */
export function mebibytes(bytes) {
  return bytes ? fixed(bytes / 1048576, 0) : NONE;
}
