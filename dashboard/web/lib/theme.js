// @ts-check
/** Dark, light, or as the viewer's system is; kept on this machine. Before the first paint theme-first.js does it. */

/** @typedef {"auto"|"light"|"dark"} Theme */
/** @type {Theme[]} */
const THEMES = ["auto", "light", "dark"];
const KEPT = "rtb.theme";

/** @type {Set<() => void>} */
const listeners = new Set();
/** @type {Map<string, string>} */
const colours = new Map();
let probe = /** @type {HTMLElement|null} */ (null);

/** @returns {Theme} */
export function theme() {
  const kept = /** @type {Theme} */ (localStorage.getItem(KEPT));
  return THEMES.includes(kept) ? kept : "auto";
}

/** @param {Theme} wanted */
export function setTheme(wanted) {
  localStorage.setItem(KEPT, wanted);
  document.documentElement.dataset.theme = wanted;
  changed();
}

/** Called when colours are different from now on. @param {() => void} fn @returns {() => void} ends it */
export function onTheme(fn) {
  listeners.add(fn);
  return () => listeners.delete(fn);
}

/** What a CSS variable is at the moment, as canvases want it. @param {string} name as in "--accent" @returns {string} */
export function colour(name) {
  let found = colours.get(name);
  if (!found) {
    if (!probe) {
      probe = document.createElement("i");
      probe.hidden = true;
      document.body.append(probe);
    }
    probe.style.color = `var(${name})`;
    found = getComputedStyle(probe).color;
    colours.set(name, found);
  }
  return found;
}

function changed() {
  colours.clear();
  for (const fn of [...listeners]) fn();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
