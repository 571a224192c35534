// @ts-check
/** The live connection: it comes back by itself, and says honestly whether what is on the screen is live. */

const STALE_MS = 3000;
const SILENT_MS = 10_000;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8000;

/** @typedef {"connecting"|"live"|"stale"|"reconnecting"} State */

export class Live {
  /**
   * @param {string} url
   * @param {(message: import("./types.js").Message) => void} onMessage
   * @param {(state: State) => void} onState
   */
  constructor(url, onMessage, onState) {
    this.url = url;
    this.onMessage = onMessage;
    this.onState = onState;
    /** @type {State} */
    this.state = "connecting";
    /** @type {WebSocket|null} */
    this.socket = null;
    this.failures = 0;
    this.heardAt = 0;
    this.freshAt = 0;
    this.last = "";
    this.retry = 0;
    setInterval(() => this.watch(), 500);
    addEventListener("online", () => this.connectNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.connectNow());
    this.connect();
  }

  connect() {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    this.heardAt = performance.now();
    socket.onmessage = (event) => this.socket === socket && this.receive(event.data);
    socket.onclose = () => this.socket === socket && this.lost();
  }

  /** Do not wait out the delay: the network or the viewer is back. */
  connectNow() {
    if (this.socket) return;
    clearTimeout(this.retry);
    this.connect();
  }

  /** @param {string} text */
  receive(text) {
    /** @type {import("./types.js").Message} */
    const message = JSON.parse(text);
    this.failures = 0;
    this.heardAt = performance.now();
    if (message.type !== "initial" && message.type !== "metrics_update") return;
    // Being connected is not being live: only a snapshot not seen before is.
    const identity = `${message.seq} ${message.data.snapshot.time}`;
    if (message.seq > 0 && identity !== this.last) {
      this.last = identity;
      this.freshAt = this.heardAt;
    }
    this.onMessage(message);
    this.watch();
  }

  lost() {
    this.socket = null;
    this.become("reconnecting");
    const ceiling = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** this.failures++);
    // Spread out, or all dashboards come back in the same moment.
    this.retry = setTimeout(() => this.connect(), ceiling * (0.5 + Math.random() / 2));
  }

  watch() {
    const now = performance.now();
    if (!this.socket) return;
    if (now - this.heardAt > SILENT_MS) {
      // A half-open connection would stay silent for minutes.
      const socket = this.socket;
      this.lost();
      socket.close();
    } else if (this.socket.readyState === WebSocket.OPEN && this.last) {
      this.become(now - this.freshAt > STALE_MS ? "stale" : "live");
    }
  }

  /** @param {State} state */
  become(state) {
    if (state === this.state) return;
    this.state = state;
    this.onState(state);
  }
}
