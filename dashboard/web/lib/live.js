// @ts-check
/** The live connection: it comes back by itself, fills its gaps, and says honestly whether what one sees is live. */

import { History } from "./history.js";

const STALE_MS = 3000;
const SILENT_MS = 10_000;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8000;
const AT_ONCE = 6;
const KEPT_S = 3600;

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Snapshot} Snapshot */
/** @typedef {"update"|"auction"|"alert"|"instance"|"bidder"|"queue"|"report"|"state"} Kind */
/** @typedef {{campaign_id: string}|{channel: string}|{instance: string}} Topic */
/** @typedef {{message: Record<string, unknown>, resolve: (data: any) => void, reject: (error: Error) => void}} Request */
/** @typedef {{topic: Topic, fns: Set<(data: any) => void>, last: any}} Subscription */

export class Live {
  /**
   * @param {string} url @param {Promise<boolean>} speaks whether the server takes messages
   * @param {Promise<unknown>} shown when the first page stands: of the past, what is not in sight waits for it
   * @param {{socket: WebSocket, messages: string[]}} [early] a connection that was made before, and what it has brought
   */
  constructor(url, speaks, shown, early) {
    this.url = url;
    this.shown = shown;
    this.early = early;
    /** @type {State} */
    this.state = "connecting";
    /** The newest, null before the first. @type {Snapshot|null} */
    this.snapshot = null;
    this.history = new History();
    /** One instance alone, where it is followed (`follow`). @type {{instance: string, snapshot: Snapshot|null, history: History}|null} */
    this.view = null;
    /** What the server's first message was besides its snapshot. @type {Record<string, any>} */
    this.about = {};
    /** @type {string[]} */
    this.campaignFields = [];
    /** @type {Map<Kind, Set<(data: any) => void>>} */
    this.listeners = new Map();
    /** @type {Map<string, Subscription>} */
    this.subscriptions = new Map();
    /** @type {Request[]} */
    this.queue = [];
    /** @type {Map<number, Request>} */
    this.waiting = new Map();
    this.nextId = 1;
    this.speaks = false;
    /** @type {WebSocket|null} */
    this.socket = null;
    this.greeted = false;
    this.failures = 0;
    this.heardAt = 0;
    this.freshAt = 0;
    this.seq = -1;
    /** Since when points are missing, Unix seconds. */
    this.missing = 0;
    this.last = "";
    this.retry = 0;
    /** @type {(() => void)|null} */
    this.release = null;
    speaks.then(
      (yes) => {
        this.speaks = yes;
        if (this.greeted) this.catchUp();
      },
      () => {}, // nobody is logged in: the login page comes
    );
    setInterval(() => this.watch(), 500);
    addEventListener("online", () => this.connectNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.connectNow());
    this.connect();
  }

  /**
   * Call `fn` with: the snapshot of every 'update', the state of every change of 'state', the data of every other
   * message of that type.
   * @param {Kind} kind @param {(data: any) => void} fn @returns {() => void} ends it
   */
  on(kind, fn) {
    const fns = this.listeners.get(kind) ?? new Set();
    this.listeners.set(kind, fns.add(fn));
    return () => fns.delete(fn);
  }

  /**
   * Ask the server for something, as in {type: "pause", campaign_id}.
   * @param {Record<string, unknown>} message without an id
   * @returns {Promise<any>} the answer's data; rejected with the server's line, or when the connection is lost
   */
  send(message) {
    return new Promise((resolve, reject) => {
      if (!this.greeted || !this.socket) reject(new Error("there is no connection to the server; try again"));
      else if (!this.speaks) reject(new Error("this server only tells, it takes no commands"));
      else {
        this.queue.push({ message, resolve, reject });
        this.flush();
      }
    });
  }

  /**
   * Follow a campaign or a channel, over reconnects. A campaign's `fn` gets an object of what changes, every second, and
   * null when the campaign is gone; a channel's `fn` the data of each of its messages, and of the last one at once
   * (of `auctions`, which has none, null).
   * @param {Topic} topic @param {(data: any) => void} fn @returns {() => void} release
   */
  subscribe(topic, fn) {
    const key = JSON.stringify(topic);
    let subscription = this.subscriptions.get(key);
    if (!subscription) {
      this.subscriptions.set(key, (subscription = { topic, fns: new Set(), last: undefined }));
      this.ask(subscription);
    } else if (subscription.last !== undefined) fn(subscription.last);
    const { fns } = subscription;
    fns.add(fn);
    return () => {
      if (!fns.delete(fn) || fns.size || this.subscriptions.get(key)?.fns !== fns) return;
      this.subscriptions.delete(key);
      this.send({ type: "unsubscribe", ...topic }).catch(() => {});
    };
  }

  /** @param {Subscription} subscription */
  ask(subscription) {
    this.send({ type: "subscribe", ...subscription.topic }).then(
      (row) => (row || "channel" in subscription.topic) && this.hand(subscription, row),
      () => {}, // made anew after the next reconnect
    );
  }

  /** @param {Subscription} subscription @param {any} data */
  hand(subscription, data) {
    if (!("channel" in subscription.topic) || subscription.topic.channel !== "auctions") subscription.last = data;
    for (const fn of [...subscription.fns]) fn(data);
  }

  connect() {
    const { early } = this;
    this.early = undefined;
    const open = early && early.socket.readyState <= WebSocket.OPEN;
    const socket = open ? early.socket : new WebSocket(this.url);
    this.socket = socket;
    this.heardAt = performance.now();
    // Once everybody listens who does from the beginning.
    if (open) queueMicrotask(() => early.messages.forEach((text) => this.socket === socket && this.receive(text)));
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
    const message = JSON.parse(text);
    this.failures = 0;
    this.heardAt = performance.now();
    if (message.type === "initial") this.greet(message);
    else if (message.type === "metrics_update") this.update(message);
    else if (message.id !== undefined && message.id !== null) this.answer(message);
    else if (message.type === "error") console.warn(message.error);
    else {
      this.emit(message.type, message.data);
      const channel = this.subscriptions.get(JSON.stringify({ channel: `${message.type}s` }));
      if (channel) this.hand(channel, message.data);
    }
    this.watch();
  }

  /** @param {any} message */
  greet(message) {
    const { data, seq } = message;
    this.greeted = true;
    this.missing = this.history.newest || data.snapshot.time - (data.kept_s ?? KEPT_S);
    this.about = data;
    this.campaignFields = data.campaign_fields ?? [];
    this.history.fields = data.point_fields ?? this.history.fields;
    this.history.fill(data.history ?? []);
    this.seq = seq;
    this.show(data.snapshot, seq);
    if (this.speaks) this.catchUp();
  }

  /** @param {any} message */
  update(message) {
    const { data, seq } = message;
    const missed = seq > this.seq + 1 && this.speaks;
    const since = this.history.newest;
    this.seq = seq;
    this.snapshot = data.snapshot; // its time is that of the campaigns
    if (data.campaigns) this.showCampaigns(data.campaigns);
    if (data.view) this.showView(data.view);
    this.show(data.snapshot, seq, data.point);
    if (missed) this.backfill(since);
  }

  /** @param {Snapshot} snapshot @param {number} seq @param {any[]} [point] */
  show(snapshot, seq, point) {
    if (seq <= 0) return; // before the server's first second
    // Being connected is not being live: only a snapshot not seen before is.
    const identity = `${seq} ${snapshot.time}`;
    if (identity !== this.last) {
      this.last = identity;
      this.freshAt = performance.now();
      if (point) this.history.fill([point]);
    }
    this.snapshot = snapshot;
    this.watch(); // the badge first
    this.emit("update", snapshot);
  }

  /** Follow one instance alone, "" for none; `view` has it. @param {string} instance */
  follow(instance) {
    this.release?.();
    this.release = null;
    this.view = null;
    if (!instance) return;
    const history = new History();
    history.fields = this.history.fields;
    this.view = { instance, snapshot: null, history };
    // Messages of several instances follow each other: what comes late for an old one is not taken.
    this.release = this.subscribe({ instance }, (data) => this.showView(data));
  }

  /** @param {{instance: string, snapshot: Snapshot|null, point?: any[]|null, history?: any[][]}} data */
  showView({ instance, snapshot, point, history }) {
    const { view } = this;
    if (view?.instance !== instance) return;
    view.snapshot = snapshot;
    if (history) view.history.fill(history);
    if (point) view.history.fill([point]);
    if (history && this.snapshot) this.emit("update", this.snapshot);
  }

  /** @param {Record<string, any[]|null>} campaigns */
  showCampaigns(campaigns) {
    for (const [campaign_id, row] of Object.entries(campaigns)) {
      const subscription = this.subscriptions.get(JSON.stringify({ campaign_id }));
      if (!subscription) continue;
      this.hand(subscription, row && Object.fromEntries(row.map((value, i) => [this.campaignFields[i], value])));
    }
  }

  /** After the first message of a connection: what was missed, and what is wanted. */
  catchUp() {
    const { missing } = this;
    this.shown.then(() => this.backfill(missing));
    for (const subscription of this.subscriptions.values()) this.ask(subscription);
  }

  /** Ask for points, piece by piece. @param {number} since Unix seconds */
  async backfill(since) {
    try {
      for (let more = true; more; ) {
        const data = await this.send({ type: "backfill", since });
        this.history.fill(data.points);
        more = data.more && data.points.length > 0;
        if (more) since = data.points.at(-1)[0];
      }
    } catch {
      return; // tried again after the next reconnect
    }
    if (this.snapshot) this.emit("update", this.snapshot);
  }

  flush() {
    while (this.queue.length && this.waiting.size < AT_ONCE && this.socket) {
      const request = /** @type {Request} */ (this.queue.shift());
      const id = this.nextId++;
      this.waiting.set(id, request);
      this.socket.send(JSON.stringify({ ...request.message, id }));
    }
  }

  /** @param {{type: string, id: number, data?: any, error?: string}} message */
  answer(message) {
    const request = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    this.flush();
    if (message.type === "error") request?.reject(new Error(message.error));
    else request?.resolve(message.data);
  }

  /** @param {Kind} kind @param {any} data */
  emit(kind, data) {
    for (const fn of [...(this.listeners.get(kind) ?? [])]) {
      try {
        fn(data);
      } catch (error) {
        console.error(error); // one listener's fault is not the others'
      }
    }
  }

  lost() {
    this.socket = null;
    this.greeted = false;
    const unanswered = [...this.waiting.values(), ...this.queue];
    this.waiting.clear();
    this.queue = [];
    for (const request of unanswered) request.reject(new Error("the connection was lost; look whether it was done"));
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
    } else if (this.greeted && this.last) {
      this.become(now - this.freshAt > STALE_MS ? "stale" : "live");
    }
  }

  /** @param {State} state */
  become(state) {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", state);
  }
}
