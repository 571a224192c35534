/**
 * A publisher's page: Prebid.js asks the exchange for bids, as a Prebid Server, and renders the best.
 *
 * `publish(settings)` resolves with all that a page learns of it; window.events has Prebid's own events in their order.
 */
import pbjs from "prebid.js";
import "prebid.js/modules/prebidServerBidAdapter.js";

const HEARD = ["bidResponse", "bidRejected", "noBid", "bidWon", "adRenderSucceeded", "adRenderFailed", "pbsAnalytics"];
window.events = [];
for (const name of HEARD) {
  pbjs.onEvent(name, (detail) => window.events.push({ name, detail: JSON.parse(JSON.stringify(detail ?? null, leaveOut)) }));
}

/** What cannot be told as JSON. */
function leaveOut(key, value) {
  return key === "doc" || key === "metrics" || key === "adapterMetrics" ? undefined : value;
}

pbjs.processQueue();

window.publish = async ({ exchange, adUnits, s2s, config }) => {
  pbjs.setConfig({
    ...config,
    s2sConfig: {
      accountId: "1",
      enabled: true,
      timeout: 10_000,
      bidders: ["rtb"],
      endpoint: `${exchange}/openrtb2/auction`,
      syncEndpoint: `${exchange}/cookie_sync`,
      ...s2s,
    },
  });
  const { bids } = await pbjs.requestBids({ adUnits, timeout: 20_000 });
  const targeting = pbjs.getAdserverTargeting();
  const found = Object.values(bids ?? {}).flatMap((unit) => unit.bids);
  return { targeting, bids: found.map(({ metrics, ...bid }) => JSON.parse(JSON.stringify(bid))) };
};

/** Render an ad into a frame of its own, as an ad server's creative has it rendered. */
window.render = (adId) => {
  const frame = document.createElement("iframe");
  frame.id = "ad";
  document.body.append(frame);
  pbjs.renderAd(frame.contentDocument, adId);
};
