"""Imps that are offered to some bidders only, as a Prebid page wants it."""

from __future__ import annotations

from rtb.services.exchange import NOT_OFFERED
from tests.unit.parts import Build, Prompt, bid_request, campaign, imp, offer


async def test_who_is_offered_nothing_is_not_asked(build: Build) -> None:
    """The dearer bid is not made; the house wins."""
    dsp = Prompt("dsp", offer("dsp", 9.0))
    world = build(dsp, campaigns=[campaign("a", 3.0)])
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns(), offered={"house": {"1"}})
    assert auction.outcome is not None
    [result] = auction.outcome.results
    assert result.winner is not None
    assert (result.winner.seat, auction.skipped) == ("a", {"dsp": NOT_OFFERED})
    assert world.metrics.bidder_skips == 1


async def test_a_bid_on_an_imp_that_was_not_offered_does_not_count(build: Build) -> None:
    """The bidder is asked for its own imp and bids on both."""
    dsp = Prompt("dsp", offer("dsp", 9.0, "1"), offer("dsp", 9.0, "2"))
    world = build(dsp, campaigns=[campaign("a", 3.0)])
    request = bid_request(imp("1"), imp("2"))
    auction = world.exchange.begin(request, world.clock.monotonic_ns(), offered={"house": {"1", "2"}, "dsp": {"2"}})
    assert auction.outcome is not None
    winners = [result.winner for result in auction.outcome.results]
    assert [winner and winner.seat for winner in winners] == ["a", "dsp"]
