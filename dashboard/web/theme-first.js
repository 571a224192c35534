// Before the first paint, or a dark page would flash white; lib/theme.js does the rest.
document.documentElement.dataset.theme = localStorage.getItem("rtb.theme") || "auto";
// The connection is made while the modules are still coming; lib/live.js takes it over.
const early = { socket: new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`), messages: /** @type {string[]} */ ([]) };
early.socket.onmessage = (/** @type {MessageEvent} */ event) => early.messages.push(event.data);
/** @type {any} */ (globalThis).rtbEarly = early;
