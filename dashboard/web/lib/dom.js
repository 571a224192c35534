// @ts-check
/** Elements without markup: what comes from outside becomes text, never HTML. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node|string|number|null|undefined|false} Child */

/**
 * An element. Of the props, `class` and `text` are what they say, `data` and `style` are objects (style may set custom
 * properties), functions are listeners (`onclick`), false, null and undefined leave an attribute out, true sets it
 * empty.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} [props] @param {...(Child|Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  assign(element, props);
  append(element, children);
  return element;
}

/**
 * The same for SVG.
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} [props] @param {...(Child|Child[])} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  assign(element, props);
  append(element, children);
  return element;
}

/** @param {Element} parent @param {(Child|Child[])[]} children */
function append(parent, children) {
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) {
      parent.append(child instanceof Node ? child : String(child));
    }
  }
}

/** @param {HTMLElement|SVGElement} element @param {Record<string, any>} props */
function assign(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (name === "text") element.textContent = String(value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
    else if (name === "value" && "value" in element) element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Change a text only where it changes: no needless layout, selections survive. @param {Node} node @param {string} text */
export function put(node, text) {
  const only = node.firstChild;
  // The data of a text node is cheaper to change than the children of an element.
  if (only instanceof Text && !only.nextSibling) {
    if (only.data !== text) only.data = text;
  } else if (node.textContent !== text) node.textContent = text;
}

/** Add and remove children in place of the present ones. @param {Element} parent @param {...Child} children */
export function replace(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * Make the children of `parent` those of `items`, keeping the elements of items that were there before.
 * @template T
 * @template {HTMLElement} E
 * @param {HTMLElement} parent @param {readonly T[]} items
 * @param {(item: T) => string} key @param {(item: T) => E} make
 * @param {(element: E, item: T) => void} update called for new ones, too
 */
export function keyed(parent, items, key, make, update) {
  /** @type {Map<string, E>} */
  const old = new Map();
  for (const child of /** @type {Iterable<E>} */ (/** @type {unknown} */ (parent.children))) {
    old.set(child.dataset.key ?? "", child);
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let element = old.get(name);
    old.delete(name);
    if (!element) {
      element = make(item);
      element.dataset.key = name;
    }
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
    update(element, item);
  }
  for (const element of old.values()) element.remove();
}

let announcer = /** @type {HTMLElement|null} */ (null);

/** Say something: to everybody in the corner of the window for a few seconds, and to screen readers.
 * @param {string} text @param {"info"|"error"} [kind] */
export function toast(text, kind = "info") {
  announcer ??= document.getElementById("toasts");
  if (!announcer) return;
  const line = el("p", { class: `toast ${kind}`, text });
  announcer.append(line);
  while (announcer.childElementCount > 3) announcer.firstElementChild?.remove();
  setTimeout(() => line.remove(), kind === "error" ? 10_000 : 4_000);
}
