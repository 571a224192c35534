"""A bidder that is a coroutine: answers, failures, lateness."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.coroutine_bidder import CoroutineBidder
from rtb.domain.money import Rates
from rtb.domain.validation import CridRule
from rtb.errors import BadRequest
from rtb.openrtb import Bid, BidRequest, BidResponse, Loss, SeatBid
from rtb.services.exchange import Auction, Outcome, Status
from tests.unit.parts import Build, World, bid_request, campaign

HOUR_MS = 3_600_000
Respond = Callable[[BidRequest], Awaitable[BidResponse]]


Clocked = Callable[..., World]


@pytest.fixture
def clocked(build: Build) -> Clocked:
    """An exchange with a bidder made of this coroutine, on the same clock, and one campaign at 1.00 CPM."""

    def make(respond: Respond, ms: int = HOUR_MS, **options: Any) -> World:
        clock = ManualClock()
        bidder = CoroutineBidder("dsp", respond, clock, Rates(), **options)
        return build(bidder, clock=clock, deadline_ms=ms, campaigns=[campaign("a", 1.0)])

    return make


def response(*bids: Bid, cur: str = "USD") -> BidResponse:
    return BidResponse(id="r", cur=cur, seatbid=[SeatBid(seat="s", bid=list(bids))])


def bid(price: float, **fields: object) -> Bid:
    return Bid(**{"id": "b", "impid": "1", "price": price, "adm": "x", "adomain": ["d.test"], **fields})  # type: ignore[arg-type]


async def run(world: World) -> tuple[Auction, Outcome]:
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    return auction, await world.exchange.finish(auction)


async def test_its_bids_enter_the_auction(clocked: Clocked) -> None:
    """The request it gets is the auction's; the seat it names wins; its money is its own."""
    asked: list[BidRequest] = []

    async def respond(request: BidRequest) -> BidResponse:
        asked.append(request)
        return response(bid(2.0))

    world = clocked(respond)
    auction, outcome = await run(world)
    [result] = outcome.results
    assert asked == [auction.request]
    assert result.winner is not None
    assert (result.winner.seat, result.winner.bidder, result.price_micros) == ("s", "dsp", 1_010_000)
    assert (world.metrics.bids, world.metrics.wins, world.metrics.bidder_errors) == (2, 1, 0)


async def test_an_empty_answer_is_no_bid(clocked: Clocked) -> None:
    """[7.1]; not a failure, and nobody waits any longer."""

    async def respond(request: BidRequest) -> BidResponse:
        return BidResponse()

    auction, outcome = await run(clocked(respond))
    assert (outcome.status, auction.failures, len(auction.pending)) == (Status.WON, {}, 0)


async def test_bids_are_checked_on_intake(clocked: Clocked) -> None:
    """Each bad one loses with its reason and costs the good ones nothing; crid and adomain rules apply where set."""

    async def respond(request: BidRequest) -> BidResponse:
        return response(
            bid(9.0, impid="7", crid="c"), bid(9.0, adm=None, crid="c"), bid(9.0), bid(9.0, adomain=None, crid="c")
        )

    auction, outcome = await run(clocked(respond, crid=CridRule.ENFORCE, adomain=True))
    assert [lost.reason for lost in auction.rejected] == [
        Loss.INVALID_RESPONSE,
        Loss.MARKUP_MISSING,
        Loss.CRID_MISSING,
        Loss.ADOMAIN_MISSING,
    ]
    assert outcome.status is Status.WON
    lenient, outcome = await run(clocked(respond))
    assert [lost.reason for lost in lenient.rejected] == [Loss.INVALID_RESPONSE, Loss.MARKUP_MISSING]


async def test_an_unknown_currency_loses_whole(clocked: Clocked) -> None:
    """Reason 3 [4.2.1]."""

    async def respond(request: BidRequest) -> BidResponse:
        return response(bid(9.0), cur="XXX")

    auction, outcome = await run(clocked(respond))
    assert [lost.reason for lost in auction.rejected] == [Loss.INVALID_RESPONSE]
    assert outcome.status is Status.WON


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadRequest("seatbid: expected `array`"), "seatbid: expected `array`"),
        (ValueError("no model"), "ValueError: no model"),
        (ConnectionResetError("gone"), "ConnectionResetError: gone"),
        (TimeoutError("its own upstream"), "TimeoutError: its own upstream"),
    ],
)
async def test_an_exception_is_its_own_failure(clocked: Clocked, error: Exception, reason: str) -> None:
    """At once, with the reason: the auction does not wait for the deadline, nor lose anything else."""

    async def respond(request: BidRequest) -> BidResponse:
        raise error

    world = clocked(respond)
    auction, outcome = await run(world)
    assert (outcome.status, auction.failures) == (Status.WON, {"dsp": reason})
    assert (world.metrics.bidder_errors, world.metrics.bidder_timeouts) == (1, 0)


async def test_nonsense_in_place_of_a_response_is_a_failure(clocked: Clocked) -> None:
    """None, for one."""

    async def respond(request: BidRequest) -> BidResponse:
        return None  # type: ignore[return-value]

    auction, outcome = await run(clocked(respond))
    assert outcome.status is Status.WON
    assert "NoneType" in auction.failures["dsp"]


async def test_a_late_one_is_cancelled_and_late(clocked: Clocked) -> None:
    """At the deadline its coroutine ends, the auction settles without it, and it counts as late, not as failed."""
    ended = asyncio.Event()

    async def respond(request: BidRequest) -> BidResponse:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    world = clocked(respond, ms=3)
    auction, outcome = await run(world)
    await ended.wait()
    assert (outcome.status, auction.failures, auction.pending) == (Status.WON, {}, {"dsp"})
    assert (world.metrics.bidder_timeouts, world.metrics.bidder_errors) == (1, 0)


async def test_one_that_will_not_be_cancelled_holds_up_nobody(clocked: Clocked) -> None:
    """It goes on by itself; what it says after the deadline is forgotten."""
    free = asyncio.Event()
    done = asyncio.Event()

    async def respond(request: BidRequest) -> BidResponse:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                pass
        done.set()
        return response(bid(9.0))

    world = clocked(respond, ms=3)
    auction, outcome = await run(world)
    assert outcome.results[0].winner is not None
    assert outcome.results[0].winner.seat == "a"
    free.set()
    await done.wait()
    await asyncio.sleep(0)
    assert (auction.outcome, world.metrics.bids) == (outcome, 1)


async def test_auctions_at_once_do_not_meet(clocked: Clocked) -> None:
    """Each gets the answer to its own request."""

    async def respond(request: BidRequest) -> BidResponse:
        await asyncio.sleep(0)
        return response(bid(float((request.tmax or 0) % HOUR_MS + 2)))

    world = clocked(respond)

    async def one(tmax: int) -> int:
        return (await world.run(bid_request(at=1, tmax=tmax))).results[0].price_micros

    longest = range(HOUR_MS, HOUR_MS + 50)
    assert await asyncio.gather(*map(one, longest)) == [(n % HOUR_MS + 2) * 1_000_000 for n in longest]
