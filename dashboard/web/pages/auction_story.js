// @ts-check
/** One auction, told whole: what was asked, where the time went, who bid, who did not and why, who won at what price.
 * Everything in it comes from outside and stays text. */

import { el, put } from "../lib/dom.js";
import * as format from "../lib/format.js";

/**
 * @typedef {{id: string, request_id: string, at: number, outcome: string, nbr: number|null, imps: number, bids: number,
 *   took_ms: number, deadline_ms: number, late: string[], failed: string[], skipped?: string[],
 *   sold: {impid: string, bidder: string, seat: string, campaign: string, price: number, paid: number}[]}} AuctionRow
 * @typedef {{impid: string, bidder: string, verdict: string, campaign?: string, seat?: string, price?: number,
 *   criterion?: string, why?: string, loss?: number, min_to_win?: number}} Verdict
 * @typedef {{impid: string, media: string[]|string, w: number|null, h: number|null, floor: number, at: number,
 *   deals: any[]}} ImpFacts
 * @typedef {{auction: AuctionRow, request: Record<string, any> & {imps: ImpFacts[]},
 *   timing?: {asked_ms: number|null, answers: {bidder: string, ms: number|null, result: string, bids: number}[],
 *   settled_ms: number, deadline_ms: number},
 *   explanation: {outcome: string, nbr: number|null, nbr_name: string, floors: Record<string, number>,
 *   clearing: Record<string, number>, told_less: Record<string, string>, verdicts: Verdict[]},
 *   campaigns: number, judged: number}} Story
 */

const KINDS = /** @type {Record<string, string>} */ ({ won: "good", "no-bid": "", timeout: "bad", shed: "warn" });
const ORDER = ["won", "lost", "failed", "skipped", "no-bid"];
const MANY = 8;

export function outcomePill() {
  return el("span", { class: "pill" });
}

/** @param {HTMLElement} pill @param {{outcome: string}} row */
export function showOutcome(pill, row) {
  put(pill, row.outcome);
  pill.className = `pill ${KINDS[row.outcome] ?? ""}`;
}

/** @param {Story} found @param {string} currency @returns {HTMLElement[]} */
export function story(found, currency) {
  const { auction } = found;
  const pill = outcomePill();
  showOutcome(pill, auction);
  const why = found.explanation.nbr_name ? `, ${format.words(found.explanation.nbr_name)} (${found.explanation.nbr})` : "";
  return [
    el(
      "header",
      { class: "card story-head" },
      el("h2", { tabindex: "-1" }, pill, el("span", { text: `${summary(auction)}${why}` })),
      facts(found),
    ),
    found.timing ? waterfall(found.timing) : null,
    ...found.request.imps.map((imp) => impression(found, imp, currency)),
    rest(found),
  ].filter((part) => part !== null);
}

/** @param {AuctionRow} auction */
function summary(auction) {
  const [first, ...others] = auction.sold;
  if (!first) return `${auction.imps} imps, ${auction.bids} bids, nothing sold`;
  const who = first.campaign || first.seat || first.bidder;
  const more = others.length ? ` and ${others.length} more` : "";
  return `${who} pays ${format.money(first.paid)} CPM${more}`;
}

/** @param {Story} found */
function facts({ auction, request, explanation, campaigns, judged }) {
  const place = request.app ? `app ${request.app}` : request.site ? `site ${request.site}` : "";
  const where = [request.country, request.region, request.city].filter(Boolean).join(", ");
  const device = [request.os, request.language, request.devicetype ? `device type ${request.devicetype}` : ""].filter(Boolean).join(", ");
  /** @type {[string, string][]} */
  const rows = [
    ["Request", auction.request_id],
    ["Auction", auction.id],
    ["At", format.moment(auction.at)],
    ["Placed in", place],
    ["Where", where],
    ["Device", device],
    ["User", request.user ? (request.profile ? "known, with a profile" : "known, without a profile") : "not named"],
    ["tmax", request.tmax_ms ? `${request.tmax_ms} ms` : "none given"],
    ["Campaigns", `${format.count(campaigns)}, ${format.count(judged)} of them judged below`],
    ["Told less of the user", toldLess(explanation.told_less)],
  ];
  return el(
    "dl",
    { class: "facts" },
    rows.filter(([, text]) => text).map(([name, text]) => el("div", {}, el("dt", { text: name }), el("dd", { text }))),
  );
}

/** The bidders by how much less, and why. @param {Record<string, string>} told */
function toldLess(told) {
  const reasons = [...new Set(Object.values(told))];
  return reasons.map((why) => `${Object.keys(told).filter((bidder) => told[bidder] === why).join(", ")} (${why})`).join("; ");
}

/** From arrival to the answer, against the deadline. @param {NonNullable<Story["timing"]>} timing */
function waterfall(timing) {
  const { asked_ms: asked, settled_ms: settled, deadline_ms: deadline, answers } = timing;
  const end = Math.max(deadline, settled, ...answers.map((answer) => answer.ms ?? 0)) * 1.04;
  const from = asked ?? 0;
  const lines = [
    bar("user known", 0, from, end, "wait", asked === null ? "nobody was asked" : `${format.ms(from)} ms`),
    ...answers.map((answer) => {
      const late = answer.result === "late";
      const until = answer.ms ?? (late ? settled : from);
      const text = answer.ms === null ? words(answer) : `${format.ms(answer.ms)} ms, ${words(answer)}`;
      return bar(answer.bidder, from, until, end, late || answer.result === "failed" ? "bad" : "", text);
    }),
    bar("settled", settled, settled, end, "mark", `${format.ms(settled)} ms`),
  ];
  return el(
    "section",
    { class: "card", "aria-label": "Timing" },
    el("h2", {}, "Timing", el("span", { class: "unit", text: `the line is the deadline, ${format.ms(deadline)} ms` })),
    el("ul", { class: "waterfall", style: { "--deadline": `${(deadline / end) * 100}%` } }, lines),
  );
}

/** @param {{result: string, bids: number}} answer */
function words({ result, bids }) {
  if (result === "bids") return bids === 1 ? "1 bid" : `${bids} bids`;
  return result === "no-bid" ? "no bid" : result;
}

/** @param {string} name @param {number} from @param {number} to @param {number} end @param {string} kind @param {string} text */
function bar(name, from, to, end, kind, text) {
  const style = { "--from": `${(from / end) * 100}%`, "--length": `${(Math.max(0, to - from) / end) * 100}%` };
  return el(
    "li",
    {},
    el("span", { class: "who", text: name }),
    el("span", { class: "lane", "aria-hidden": "true" }, el("span", { class: `span ${kind}`, style })),
    el("span", { class: "took", text }),
  );
}

/** One imp and everybody's fate in it. @param {Story} found @param {ImpFacts} imp @param {string} currency */
function impression({ explanation }, imp, currency) {
  const verdicts = explanation.verdicts.filter((verdict) => verdict.impid === imp.impid);
  const size = imp.w && imp.h ? ` ${imp.w}×${imp.h}` : "";
  const clearing = explanation.clearing[imp.impid];
  const media = Array.isArray(imp.media) ? imp.media.join(", ") : imp.media;
  const sale = clearing === undefined ? "not sold" : `sold at ${format.money(clearing)}`;
  const deals = imp.deals?.length ? `, ${imp.deals.length} deals` : "";
  return el(
    "section",
    { class: "card", "aria-label": `Imp ${imp.impid}` },
    el("h2", {}, `Imp ${imp.impid}`, el("span", { class: "unit", text: `${media}${size}, floor ${format.money(imp.floor)}, ${imp.at === 1 ? "first price" : "second price"}${deals}, ${sale} ${currency} CPM` })),
    fates(verdicts),
  );
}

/** Bidders that said nothing about any imp. @param {Story} found */
function rest({ explanation, request }) {
  const known = new Set(request.imps.map((imp) => imp.impid));
  const verdicts = explanation.verdicts.filter((verdict) => !known.has(verdict.impid));
  if (!verdicts.length) return null;
  return el("section", { class: "card", "aria-label": "Bidders without a bid" }, el("h2", { text: "Bidders without a bid" }), fates(verdicts));
}

/** Bids first; those who made none are grouped by their reason. @param {Verdict[]} verdicts */
function fates(verdicts) {
  const bids = verdicts.filter((verdict) => verdict.verdict !== "no-bid");
  bids.sort((a, b) => ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict) || (b.price ?? 0) - (a.price ?? 0));
  /** @type {Map<string, Verdict[]>} */
  const silent = new Map();
  for (const verdict of verdicts) {
    if (verdict.verdict !== "no-bid") continue;
    const key = verdict.criterion || "no bid";
    silent.set(key, [...(silent.get(key) ?? []), verdict]);
  }
  const groups = [...silent].sort(([, a], [, b]) => b.length - a.length);
  return el(
    "div",
    { class: "fates" },
    bids.length ? table(bids) : groups.length ? null : el("p", { class: "empty", text: "nobody bid" }),
    groups.map(([criterion, group]) =>
      el(
        "details",
        { open: bids.length === 0 && groups.length === 1 && group.length <= MANY },
        el("summary", {}, `${group.length} made no bid: `, el("b", { text: format.words(criterion) })),
        table(group),
      ),
    ),
  );
}

/** @param {Verdict[]} verdicts */
function table(verdicts) {
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "list verdicts" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Who" }), el("th", { scope: "col", class: "num", text: "Bid" }), el("th", { scope: "col", text: "Fate" }))),
      el(
        "tbody",
        {},
        verdicts.map((verdict) =>
          el(
            "tr",
            { class: `fate-${verdict.verdict}` },
            el("th", { scope: "row" }, verdict.campaign || verdict.seat || verdict.bidder, el("span", { class: "code", text: verdict.bidder })),
            el("td", { class: "num", text: format.money(verdict.price) }),
            el("td", { class: "why", text: verdict.why || verdict.verdict }),
          ),
        ),
      ),
    ),
  );
}
