"""Who takes part: bidders that come and go, that are not asked, and that nobody waits for."""

from __future__ import annotations

import asyncio

from rtb.services.exchange import NOT_AWAITED, Auction, Status
from tests.unit.parts import Build, Prompt, Silent, bid_request, offer


def secondary(name: str) -> Silent:
    bidder = Silent(name)
    bidder.secondary = True
    return bidder


async def test_nobody_waits_for_a_secondary_bidder(build: Build) -> None:
    """The auction is settled when all others have answered; the secondary bidder is neither late nor failed."""
    first, second = Silent("first"), secondary("second")
    world = build(first, second)
    running = asyncio.create_task(world.run(bid_request()))
    await second.asked()
    auction = first.seen[0]
    assert isinstance(auction, Auction)
    auction.report(first, [offer("first", 2.0)])
    outcome = await running
    assert outcome.status is Status.WON
    assert (auction.skipped, auction.pending) == ({"second": NOT_AWAITED}, set())
    assert (world.metrics.bidder_skips, world.metrics.bidder_timeouts, world.metrics.bidder_errors) == (1, 0, 0)


async def test_a_secondary_bidder_that_is_early_competes(build: Build) -> None:
    """It bids in the same auction, at the same terms."""
    first, second = Silent("first"), secondary("second")
    world = build(first, second)
    running = asyncio.create_task(world.run(bid_request()))
    await second.asked()
    second.seen[0].report(second, [offer("second", 3.0)])
    first.seen[0].report(first, [offer("first", 2.0)])
    outcome = await running
    [result] = outcome.results
    assert result.winner is not None
    assert (result.winner.seat, result.price_micros) == ("second", 2_010_000)


async def test_auctions_that_are_complete_together_are_settled_before_any_is_answered(build: Build) -> None:
    """And who fails to take an answer keeps nobody else from one."""
    bidder = Silent("dsp")
    world = build(bidder)
    seen: list[tuple[str, bool]] = []
    over = asyncio.Event()

    def done(auction: Auction, failed: Exception | None) -> None:
        seen.append((auction.id, all(each.outcome is not None for each in begun)))
        if len(seen) == 3:
            over.set()
        raise ValueError("its own")

    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
    begun = [world.exchange.begin(bid_request(), world.clock.monotonic_ns()) for _ in range(3)]
    for auction in begun:
        world.exchange.conclude(auction, done)
    for auction in begun:
        auction.report(bidder, [offer("dsp", 2.0)])
        assert auction.outcome is None
    await over.wait()
    assert seen == [(auction.id, True) for auction in begun]
    assert [auction.outcome.status for auction in begun if auction.outcome] == [Status.WON] * 3
    assert heard == ["its own"] * 3


async def test_secondary_bidders_alone_are_waited_for(build: Build) -> None:
    """Nobody else takes longer than the house, which answers at once; not to wait would be never to ask them."""
    only = secondary("only")
    world = build(only)
    running = asyncio.create_task(world.run(bid_request()))
    await only.asked()
    only.seen[0].report(only, [offer("only", 2.0)])
    assert (await running).status is Status.WON


async def test_a_bidder_that_was_not_asked_did_not_fail(build: Build) -> None:
    """The reason is kept, and counted apart."""

    class Choosy(Prompt):
        def bid(self, auction: object) -> None:
            """Take no part."""
            assert isinstance(auction, Auction)
            auction.report(self, skipped="country")

    world = build(Choosy("choosy"), Prompt("dsp", offer("dsp", 1.0)))
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    assert auction.outcome is not None
    assert (auction.outcome.status, auction.skipped, auction.failures) == (Status.WON, {"choosy": "country"}, {})
    assert (world.metrics.bidder_skips, world.metrics.bidder_errors) == (1, 0)


async def test_bidders_come_and_go_between_auctions(build: Build) -> None:
    """The next auction knows the new ones; one under way goes on with those that it was given to, but a bid of one
    that is gone cannot win."""
    old, stays, new = Silent("old"), Silent("stays"), Prompt("new", offer("new", 9.0))
    world = build(old, stays)
    running = asyncio.create_task(world.run(bid_request()))
    await stays.asked()
    world.exchange.set_bidders([world.house, stays, new])
    old.seen[0].report(old, [offer("old", 5.0)])
    stays.seen[0].report(stays, [offer("stays", 2.0)])
    [result] = (await running).results
    assert result.winner is not None
    assert result.winner.seat == "stays"
    running = asyncio.create_task(world.run(bid_request()))
    await stays.asked(2)
    stays.seen[1].report(stays, [offer("stays", 2.0)])
    [result] = (await running).results
    assert result.winner is not None
    assert (result.winner.seat, result.price_micros) == ("new", 2_010_000)
    assert len(old.seen) == 1
