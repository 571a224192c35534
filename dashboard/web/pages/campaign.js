// @ts-check
import { el } from "../lib/dom.js";

export const title = "Campaigns";

/** @param {HTMLElement} root @param {import("../lib/types.js").Context} _context @returns {() => void} */
export function mount(root, _context) {
  root.append(el("div", { class: "page-head" }, el("h1", { text: title })));
  return () => {};
}
