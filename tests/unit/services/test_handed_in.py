"""Answers that are handed in as they come, and read when their auction waits for nobody any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rtb.ports import Report
from rtb.services.exchange import NOT_AWAITED, Auction, Status
from tests.unit.parts import Build, Silent, World, bid_request, offer


class Distant(Silent):
    """Hands in a price when a test has it do so, and writes down when it reads one; what is no price breaks it."""

    def __init__(self, name: str, lines: list[str], *, secondary: bool = False) -> None:
        super().__init__(name)
        self.lines = lines
        self.secondary = secondary

    def answer(self, price: object, place: int = -1) -> bool:
        """To one of the auctions that it has seen."""
        return self.seen[place].hand_in(self, price)

    def read(self, answer: object) -> Report:
        """A bid of that price; none, and why, of no price."""
        self.lines.append(f"{self.name} read {answer}")
        if not isinstance(answer, float):
            return Report(failure=f"{answer} is no price", answered_ns=7)
        return Report([offer(self.name, answer)], [], None, 7)


def begin(world: World) -> Auction:
    """An auction that waits for its bidders."""
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    assert auction.outcome is None
    return auction


async def ended(world: World, auctions: Sequence[Auction], lines: list[str]) -> asyncio.Event:
    """Set when all of these are answered; how each ended is written down."""
    over = asyncio.Event()

    def done(auction: Auction, failed: Exception | None) -> None:
        lines.append(f"answered {None if failed is None else failed}")
        left.remove(auction)
        if not left:
            over.set()

    left = [*auctions]

    for auction in auctions:
        world.exchange.conclude(auction, done)
    return over


async def test_answers_are_read_when_the_last_is_there(build: Build) -> None:
    """They compete as if they had been reported; when each of them was there is remembered."""
    lines: list[str] = []
    one, other = Distant("one", lines), Distant("other", lines)
    world = build(one, other)
    auction = begin(world)
    finished = asyncio.ensure_future(world.exchange.finish(auction))
    await asyncio.sleep(0)
    assert one.answer(2.0)
    assert (lines, auction.pending) == ([], {"other"})
    assert other.answer(3.0)
    [result] = (await finished).results
    assert result.winner is not None
    assert (result.winner.seat, result.price_micros) == ("other", 2_010_000)
    assert lines == ["one read 2.0", "other read 3.0"]
    assert auction.answered_ns == {"one": 7, "other": 7}


async def test_all_is_read_before_any_is_settled(build: Build) -> None:
    """Of auctions that are complete in one step of the loop."""
    lines: list[str] = []
    bidder = Distant("dsp", lines)
    world = build(bidder)
    world.exchange.listen(lambda auction, outcome: lines.append(outcome.status.value))
    auctions = [begin(world) for _ in range(2)]
    over = await ended(world, auctions, lines)
    assert bidder.answer(2.0, 0)
    assert bidder.answer(4.0, 1)
    await over.wait()
    assert lines == ["dsp read 2.0", "dsp read 4.0", "won", "won", "answered None", "answered None"]


async def test_what_cannot_be_read_is_a_failure(build: Build) -> None:
    """Of its bidder; the others compete."""
    lines: list[str] = []
    bad, good = Distant("bad", lines), Distant("good", lines)
    world = build(bad, good)
    auction = begin(world)
    over = await ended(world, [auction], lines)
    assert bad.answer("much")
    assert good.answer(2.0)
    await over.wait()
    assert auction.outcome is not None
    assert (auction.outcome.status, auction.failures) == (Status.WON, {"bad": "much is no price"})
    assert (world.metrics.bidder_errors, world.metrics.bidder_timeouts) == (1, 0)


async def test_a_reader_that_is_broken_costs_its_own_auction_alone(build: Build) -> None:
    """Who waits for that one hears of it; the others of the same step are settled."""

    class Broken(Distant):
        def read(self, answer: object) -> Report:
            """Do what it must not, once."""
            if answer == "bad":
                raise ValueError("a bug")
            return super().read(answer)

    lines: list[str] = []
    bidder = Broken("dsp", lines)
    world = build(bidder)
    auctions = [begin(world) for _ in range(2)]
    over = await ended(world, auctions, lines)
    assert bidder.answer("bad", 0)
    assert bidder.answer(2.0, 1)
    await over.wait()
    assert lines == ["dsp read 2.0", "answered a bug", "answered None"]
    assert [auction.outcome.status for auction in auctions if auction.outcome] == [Status.NO_BID, Status.WON]


async def test_at_the_deadline_what_was_handed_in_is_read(build: Build) -> None:
    """And who has not answered is late; its answer is not taken any more."""
    lines: list[str] = []
    quick, slow = Distant("quick", lines), Distant("slow", lines)
    world = build(quick, slow, deadline_ms=300, network_margin_ms=0)
    auction = begin(world)
    assert quick.answer(2.0)
    outcome = await world.exchange.finish(auction)
    assert (outcome.status, auction.pending, lines) == (Status.WON, {"slow"}, ["quick read 2.0"])
    assert not slow.answer(3.0)
    assert not quick.answer(3.0)
    assert list(auction.bids) == ["1"]


async def test_a_bidder_answers_once(build: Build) -> None:
    """Neither a second answer nor a report after the answer counts."""
    lines: list[str] = []
    bidder, other = Distant("dsp", lines), Distant("other", lines)
    world = build(bidder, other)
    auction = begin(world)
    over = await ended(world, [auction], lines)
    assert bidder.answer(2.0)
    assert not bidder.answer(9.0)
    auction.report(bidder, [offer("dsp", 9.0)])
    assert other.answer(1.0)
    await over.wait()
    assert [bid.price_micros for bid in auction.bids["1"]] == [2_000_000, 1_000_000]


async def test_nobody_waits_for_a_secondary_bidders_answer(build: Build) -> None:
    """One that is there in time is read with the others; one that comes as the auction ends is not."""
    lines: list[str] = []
    first = Distant("first", lines)
    early, late = Distant("early", lines, secondary=True), Distant("late", lines, secondary=True)
    world = build(first, early, late)
    auction = begin(world)
    over = await ended(world, [auction], lines)
    assert early.answer(3.0)
    assert first.answer(2.0)
    assert not late.answer(4.0)
    await over.wait()
    assert auction.skipped == {"late": NOT_AWAITED}
    assert lines == ["early read 3.0", "first read 2.0", "answered None"]


async def test_an_answer_in_the_step_of_the_request_is_read_as_well(build: Build) -> None:
    """An auction whose bidders have all answered when they were asked ends at once."""

    class Instant(Distant):
        def bid(self, auction: object) -> None:
            """Answer at once."""
            assert isinstance(auction, Auction)
            auction.hand_in(self, 2.0)

    world = build(Instant("dsp", []))
    outcome = world.exchange.begin(bid_request(), world.clock.monotonic_ns()).outcome
    assert outcome is not None
    assert outcome.status is Status.WON


async def test_an_auction_that_nobody_waits_for_is_read_all_the_same(build: Build) -> None:
    """Its bidders are to know how they did."""
    lines: list[str] = []
    quick, slow = Distant("quick", lines), Distant("slow", lines)
    world = build(quick, slow, deadline_ms=3_600_000)
    auction = begin(world)
    running = asyncio.ensure_future(world.exchange.finish(auction))
    await asyncio.sleep(0)
    assert quick.answer(2.0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert lines == ["quick read 2.0"]
    assert auction.outcome is not None
    assert auction.outcome.status is Status.NO_BID
