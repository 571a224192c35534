"""Win rates of campaigns from a sample of the auctions."""

from __future__ import annotations

from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.domain.performance import NOTHING, Counters, Performed
from rtb.messages import PERFORMANCE_UPDATE, PerformanceUpdate
from rtb.ports import Message
from rtb.services.bid_sample import BidSample
from tests.unit.parts import Build, Prompt, World, bid_request, campaign, imp, offer

UTC = ZoneInfo("UTC")
DAY = "2026-01-01"
"""Of the clock that is set by hand."""


class Wire:
    """Carries updates from sample to sample, as ``ad.campaigns`` does."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def post(self, exchange: str, routing_key: str, message: Message) -> None:
        assert (exchange, routing_key, message.persistent) == ("ad.campaigns", "campaign.performance", False)
        self.messages.append(message)

    def updates(self) -> list[PerformanceUpdate]:
        """All that was told, one by one."""
        envelopes = [messages.decode(message.body) for message in self.messages]
        parts = [PERFORMANCE_UPDATE.decode(envelope.data).each(envelope.message_id) for envelope in envelopes]
        return [update for part in parts for update, _ in part]


def sample(clock: Any, instance: str = "i", every: int = 1, **options: Any) -> BidSample:
    """Of every auction, unless said otherwise."""
    return BidSample(clock, instance=instance, zone=lambda campaign_id: UTC, every=every, **options)


def told(bids: int, wins: int) -> Counters:
    """The sample's part of a campaign's counters."""
    return Counters(sampled_bids=bids, sampled_wins=wins)


async def test_bids_and_wins_by_hand(build: Build) -> None:
    """Of 5.00, 3.00 and 1.00 the first wins, whatever the floor; at a floor of 2.00 the last does not bid."""
    world = build(campaigns=[campaign("a", 5.0), campaign("b", 3.0), campaign("c", 1.0)])
    counts = sample(world.clock)
    world.exchange.listen(counts.auction_closed)
    for floor in (0.0, 0.0, 2.0):
        await world.run(bid_request(imp(bidfloor=floor)))
    assert [counts.current(name) for name in "abc"] == [told(3, 3), told(3, 0), told(2, 0)]
    assert (counts.current("a").win_rate, counts.current("b").win_rate) == (1.0, 0.0)
    assert counts.current("nobody") == NOTHING
    assert counts.auctions == 3


async def test_another_bidder_takes_wins_and_is_not_counted(build: Build) -> None:
    """The house's bid of 2.00 loses to 3.00 of another bidder; each imp counts."""
    world = build(Prompt("dsp", offer("dsp", 3.0, "1")), campaigns=[campaign("a", 2.0)])
    counts = sample(world.clock)
    world.exchange.listen(counts.auction_closed)
    await world.run(bid_request(imp("1"), imp("2")))
    assert counts.current("a") == told(2, 1)
    assert counts.performed("dsp") == []


async def test_rehearsals_do_not_count(build: Build) -> None:
    """Nor do tests: nothing is sold."""
    world = build(campaigns=[campaign("a", 5.0)])
    counts = sample(world.clock)
    world.exchange.listen(counts.auction_closed)
    await world.run(bid_request(), rehearsal=True)
    await world.run(bid_request(test=1))
    assert (counts.auctions, counts.current("a")) == (0, NOTHING)


async def test_one_in_sixteen_is_drawn_by_lot(build: Build) -> None:
    """Of 4,000 auctions 250, by more or less 8 at one sigma (gaps are even from 1 to 31); the rate is that of all:
    here every second auction is won, in a rhythm that a fixed step of 16 would take for always or never."""
    world = build(campaigns=[campaign("a", 2.0)])
    rival = Prompt("dsp", offer("dsp", 3.0))
    rivals: World = build(rival, campaigns=[campaign("a", 2.0)])
    counts = sample(world.clock, every=16, dice=Random(5))
    world.exchange.listen(counts.auction_closed)
    rivals.exchange.listen(counts.auction_closed)
    for number in range(4_000):
        (world, rivals)[number % 2].exchange.begin(bid_request(), world.clock.monotonic_ns())
    found = counts.current("a")
    assert 210 <= counts.auctions == found.sampled_bids <= 290
    assert found.win_rate == pytest.approx(0.5, abs=0.1)


async def test_instances_add_up(build: Build) -> None:
    """What one tells the others count once; its own updates come back to it and change nothing."""
    world = build(campaigns=[campaign("a", 5.0), campaign("b", 3.0)])
    wire = Wire()
    one, two = (sample(world.clock, name, post=wire.post) for name in ("one", "two"))
    world.exchange.listen(one.auction_closed)
    await world.run(bid_request())
    world.exchange.listen(two.auction_closed)
    await world.run(bid_request())
    for _ in range(2):
        await one.tell()
        await two.tell()
    assert len(wire.messages) == 2
    for update in wire.updates():
        assert one.hear(update)
        assert two.hear(update)
    for every in (one, two):
        assert every.performed("b") == [
            Performed("b", DAY, "one", told(2, 0)),
            Performed("b", DAY, "two", told(1, 0)),
        ]
        assert every.current("a") == told(3, 3)


async def test_other_updates_are_others_business() -> None:
    """What tracking tells has no sample; one that has both is heard by both."""
    counts = sample(ManualClock())
    assert not counts.hear(PerformanceUpdate("a", impressions=1, instance="x", day=DAY))
    assert not counts.hear(PerformanceUpdate("a", impressions=1, sampled_bids=4, sampled_wins=1, instance="x", day=DAY))
    assert counts.current("a") == told(4, 1)


async def test_dates_are_the_campaigns_own(build: Build) -> None:
    """At 2026-01-01 00:00 UTC it is still December in New York. Three dates are kept."""
    world = build(campaigns=[campaign("a", 5.0)])
    counts = BidSample(world.clock, instance="i", zone=lambda name: ZoneInfo("America/New_York"), every=1)
    world.exchange.listen(counts.auction_closed)
    for _ in range(5):
        await world.run(bid_request())
        await counts.tell()
        world.clock.advance(86_400.0)
    assert [part.date for part in counts.performed("a")] == ["2026-01-02", "2026-01-03", "2026-01-04"]
    assert [part.date for part in counts.performed("a", "2026-01-03", "2026-01-03")] == ["2026-01-03"]
    assert counts.current("a") == counts.current("a", "2026-01-04") == told(1, 1)
    assert counts.current("a", "2025-12-31") == NOTHING
    assert counts.hear(PerformanceUpdate("a", sampled_bids=1, instance="x", day="2025-12-31"))
    assert len(counts.performed("a")) == 3


async def test_many_campaigns_are_told_a_part_at_a_time(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time here, in messages of one; none is forgotten, and none told twice."""
    monkeypatch.setattr("rtb.services.bid_sample.TOLD_AT_ONCE", 2)
    monkeypatch.setattr("rtb.services.bid_sample.IN_A_STEP", 1)
    world = build(campaigns=[campaign(name, 5.0) for name in "abcde"])
    wire = Wire()
    counts = sample(world.clock, post=wire.post, campaigns=3)
    world.exchange.listen(counts.auction_closed)
    await world.run(bid_request())
    for expected in (2, 4, 5, 5):
        await counts.tell()
        assert len(wire.messages) == expected
    assert sorted(update.campaign_id for update in wire.updates()) == list("abcde")
    assert sum(bool(counts.performed(name)) for name in "abcde") == 3
