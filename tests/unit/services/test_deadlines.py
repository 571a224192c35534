"""Deadlines of auctions, kept by one timer."""

from __future__ import annotations

import asyncio

from rtb.adapters.clock import SystemClock
from rtb.openrtb import BidRequest
from rtb.services.deadlines import Deadlines, Done
from rtb.services.open_auction import Auction

MS = 1_000_000
SLOT_NS = 1 << 20


def auction(deadline_ns: int) -> Auction:
    """One that is to end then."""
    return Auction("a", BidRequest(id="r"), 0, deadline_ns)


def heard(auction: Auction, error: Exception | None) -> None:
    """Nobody waits."""


async def test_each_auction_ends_once_in_the_order_of_deadlines() -> None:
    """Whatever the order they come in, and not earlier than a slot before, but for the timer's own resolution."""
    clock = SystemClock()
    ended: list[tuple[Auction, int]] = []
    over = asyncio.Event()

    def expire(auction: Auction, done: Done) -> None:
        assert done is heard
        ended.append((auction, clock.monotonic_ns()))
        if len(ended) == 4:
            over.set()

    deadlines = Deadlines(clock, expire)
    now_ns = clock.monotonic_ns()
    made = [auction(now_ns + after_ms * MS) for after_ms in (30, 10, 20, -5)]
    for item in made:
        deadlines.add(item, heard)
    await over.wait()
    assert [item for item, _ in ended] == [made[3], made[1], made[2], made[0]]
    for item, ended_ns in ended:
        assert ended_ns >= item.deadline_ns - SLOT_NS - MS


async def test_one_that_is_removed_is_not_ended() -> None:
    """Who was to hear of it is told instead."""
    clock = SystemClock()
    ended: list[Auction] = []
    over = asyncio.Event()

    def expire(auction: Auction, done: Done) -> None:
        ended.append(auction)
        over.set()

    deadlines = Deadlines(clock, expire)
    deadline_ns = clock.monotonic_ns() + 5 * MS
    complete, late = auction(deadline_ns), auction(deadline_ns + 3 * MS)
    deadlines.add(complete, heard)
    deadlines.add(late, heard)
    assert deadlines.remove(complete) is heard
    await over.wait()
    assert ended == [late]


async def test_another_may_be_added_while_one_ends() -> None:
    """As when an answer is followed by the next request."""
    clock = SystemClock()
    ended: list[Auction] = []
    over = asyncio.Event()

    def expire(ending: Auction, done: Done) -> None:
        ended.append(ending)
        if len(ended) < 3:
            deadlines.add(auction(clock.monotonic_ns() + 2 * MS), heard)
        else:
            over.set()

    deadlines = Deadlines(clock, expire)
    deadlines.add(auction(clock.monotonic_ns()), heard)
    await over.wait()
    assert len(ended) == 3


async def test_one_that_fails_takes_no_other_with_it() -> None:
    """Three of one slot: each is ended, and the loop hears of the two that failed."""
    clock = SystemClock()
    ended: list[str] = []
    heard_of: list[str] = []
    over = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard_of.append(str(context["exception"])))

    def expire(auction: Auction, done: Done) -> None:
        ended.append(auction.id)
        if len(ended) < 3:
            raise ValueError(auction.id)
        over.set()

    deadlines = Deadlines(clock, expire)
    deadline_ns = clock.monotonic_ns() // SLOT_NS * SLOT_NS + 5 * SLOT_NS
    for name in "abc":
        deadlines.add(Auction(name, BidRequest(id="r"), 0, deadline_ns), heard)
    await over.wait()
    assert sorted(ended) == ["a", "b", "c"]
    assert heard_of == ended[:2]


async def test_the_end_of_one_may_complete_another_of_its_time() -> None:
    """It is removed as if it had completed a moment before, and not ended besides."""
    clock = SystemClock()
    ended: list[Auction] = []
    over = asyncio.Event()
    deadline_ns = clock.monotonic_ns() + 5 * MS
    one, other = auction(deadline_ns), auction(deadline_ns)

    def expire(ending: Auction, done: Done) -> None:
        ended.append(ending)
        assert deadlines.remove(other if ending is one else one) is heard
        over.set()

    deadlines = Deadlines(clock, expire)
    deadlines.add(one, heard)
    deadlines.add(other, heard)
    await over.wait()
    await asyncio.sleep(0)
    assert len(ended) == 1
