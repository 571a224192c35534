// @ts-check
/** The page's beginning: who is there, the live connection, and which page the address names. */

import { showAccount, wireHeader } from "./header.js";
import { Api, ApiError } from "./lib/api.js";
import { el, replace } from "./lib/dom.js";
import { Live } from "./lib/live.js";
import { Time } from "./lib/time.js";

/**
 * What pages/NAME.js exports; `styles` are the names of sheets in css/pages that it needs.
 * @typedef {{title: string, styles?: string[],
 *   mount: (root: HTMLElement, context: import("./lib/types.js").Context) => (() => void)}} Page
 */

const PAGES = ["overview", "campaigns", "campaign", "auctions", "bidders", "alerts", "queues"];
/** Routes of one thing, and the page that shows it; `auctions` shows its own. @type {Record<string, string>} */
const DETAIL = { campaigns: "campaign" };

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const api = new Api();
/** @type {Promise<{name: string, role: import("./lib/types.js").Role, commands: boolean}>} */
const whoami = api.get("/api/me").then(
  (me) => ({ ...me, commands: true }),
  (error) => {
    if (error instanceof ApiError && error.status === 404) return { name: "", role: "viewer", commands: false };
    throw error;
  },
);
let stands = (/** @type {unknown} */ _) => {};
const shown = new Promise((resolve) => (stands = resolve));
const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const live = new Live(
  `${scheme}//${location.host}/ws`,
  whoami.then((me) => me.commands),
  shown,
  /** @type {any} */ (globalThis).rtbEarly,
);
const time = new Time(() => live.history);
let unmount = () => {};
let visit = 0;

/** @param {string} hash as in "#/campaigns/shoes" */
export function go(hash) {
  location.hash = hash;
}

/** @param {string} hash @returns {{name: string, page: string, params: string[]}} */
export function route(hash) {
  const [name = "", ...params] = hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
  if (!name) return { name: "overview", page: "overview", params };
  const page = params.length ? (DETAIL[name] ?? name) : name;
  return { name, page: PAGES.includes(page) ? page : "", params };
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** A page's own sheet, once. @param {string} name @returns {Promise<void>} */
function loadStyle(name) {
  const { href } = new URL(`./css/pages/${name}.css`, import.meta.url);
  if (document.querySelector(`link[href="${href}"]`)) return Promise.resolve();
  return new Promise((resolve) => {
    const link = el("link", { rel: "stylesheet", href, onload: () => resolve(), onerror: () => resolve() });
    document.head.append(link);
  });
}

/** @param {boolean} [first] whether the viewer has not been on another page */
async function show(first = false) {
  const { name, page, params } = route(location.hash);
  const mine = ++visit;
  unmount();
  unmount = () => {};
  for (const link of document.querySelectorAll("nav [data-page]")) {
    if (/** @type {HTMLElement} */ (link).dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    if (!page) throw new Error(`there is no page ${name}`);
    /** @type {[Page, {role: import("./lib/types.js").Role}]} */
    const [module, me] = await Promise.all([import(`./pages/${page}.js`), whoami]);
    await Promise.all((module.styles ?? []).map(loadStyle));
    if (mine !== visit) return;
    const root = el("div", { class: `page page-${page}` });
    replace(main, root);
    document.title = `${module.title} · rtb exchange`;
    unmount = module.mount(root, { live, api, go, params, role: me.role, time });
  } catch (error) {
    if (mine !== visit) return;
    document.title = "rtb exchange";
    const away = page && live.state !== "live";
    const line = away ? "the server does not answer; it opens when the server is back" : error instanceof Error ? error.message : String(error);
    replace(main, el("p", { class: "card", role: "alert" }, `This page does not open: ${line}`));
    // Browsers remember a module that could not be fetched: a server that is back is asked by a new page.
    if (away) live.on("state", (now) => now === "live" && location.reload());
  }
  document.documentElement.dataset.page = name;
  scrollTo(0, 0);
  if (!first) main.focus({ preventScroll: true });
}

/** The other pages, so that they open at once, also while the server is away. */
async function fetchPages() {
  for (const page of PAGES) {
    const module = await import(`./pages/${page}.js`);
    await Promise.all((module.styles ?? []).map(loadStyle));
  }
}

wireHeader(live, time, api, shown);
shown.then(() => (globalThis.requestIdleCallback ?? setTimeout)(() => fetchPages().catch(() => {})));
whoami.then(showAccount, () => {});
live.on("state", (state) => {
  if (state === "reconnecting") api.get("/api/me").catch(() => {}); // a session that is over leads to the login page
});
addEventListener("hashchange", () => {
  if (location.hash !== "#main") show();
});
show(true).then(() => requestAnimationFrame(stands));
