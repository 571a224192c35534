// @ts-check
/** Numbers as people read them; every function gives "–" for a value that does not exist. Units are not included unless
 * the name or its comment says so: pages set them beside the number, smaller. */

export const NONE = "–";

/** @typedef {number|null|undefined} Maybe */

/**
 * With commas between thousands. By hand, as times of day are: a browser takes 20 to 50 ms over its first `Intl` objects,
 * before it can show a first number.
 * @param {number} value @param {number} digits after the point, always that many
 */
export function fixed(value, digits) {
  const text = value.toFixed(digits);
  if (Math.abs(value) < 999) return text;
  const [whole, rest] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return rest ? `${grouped}.${rest}` : grouped;
}

/** @param {unknown} value @returns {value is number} */
function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** A count: whole, in millions when it is long. @param {Maybe} value */
export function count(value) {
  if (!known(value)) return NONE;
  if (Math.abs(value) < 10_000_000) return fixed(value, 0);
  return Math.abs(value) < 10_000_000_000 ? `${fixed(value / 1e6, 1)} M` : `${fixed(value / 1e9, 1)} G`;
}

/** Per second; one decimal below 100. @param {Maybe} value */
export function rate(value) {
  if (!known(value)) return NONE;
  return value > 0 && value < 99.95 ? fixed(value, 1) : count(value);
}

/** A share 0 to 1 as percent, without its sign. @param {Maybe} share @param {number} [digits] */
export function percent(share, digits = 1) {
  return known(share) ? fixed(share * 100, digits) : NONE;
}

/** Milliseconds, three digits that matter. @param {Maybe} value */
export function ms(value) {
  if (!known(value)) return NONE;
  return fixed(value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

/** An amount in units of a currency; small ones keep the digits that matter. @param {Maybe} units */
export function money(units) {
  if (!known(units)) return NONE;
  const size = Math.abs(units);
  if (size >= 10_000_000) return `${fixed(units / 1e6, 2)} M`;
  return fixed(units, size === 0 || size >= 10 ? 2 : size >= 0.1 ? 3 : 5);
}

/** An amount that the server tells in nanos of a currency. @param {Maybe} nanos */
export function nanos(nanos) {
  return known(nanos) ? money(nanos / 1e9) : NONE;
}

/** A ratio such as return on spend. @param {Maybe} value */
export function ratio(value) {
  return known(value) ? fixed(value, value < 99.5 ? 2 : 0) : NONE;
}

/** How long something takes or has been going on, with its units: the two largest. @param {Maybe} seconds */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} m`;
  return `${Math.floor(s / 86400)} d ${two(Math.floor((s % 86400) / 3600))} h`;
}

/** How old something is, with its unit and "ago". @param {Maybe} seconds */
export function age(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 1.5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

/** The local time of day. @param {Maybe} unixSeconds */
export function time(unixSeconds) {
  if (!known(unixSeconds) || unixSeconds <= 0) return NONE;
  const date = new Date(unixSeconds * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}

/** The local date and time of day. @param {Maybe} unixSeconds */
export function moment(unixSeconds) {
  if (!known(unixSeconds) || unixSeconds <= 0) return NONE;
  const date = new Date(unixSeconds * 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time(unixSeconds)}`;
}

/** @param {number} n of two digits */
export function two(n) {
  return String(n).padStart(2, "0");
}

/** @param {Maybe} bytes in MiB, 0 counts as unknown */
export function mebibytes(bytes) {
  return known(bytes) && bytes > 0 ? fixed(bytes / 1048576, 0) : NONE;
}

/** A name of the server's in words: no_eligible_demand. @param {string} name */
export function words(name) {
  return name.replaceAll("_", " ");
}
