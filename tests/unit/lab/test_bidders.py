"""The lab's bidder."""

from __future__ import annotations

import asyncio

import pytest

from rtb.domain.intake import take_in
from rtb.domain.money import Rates
from rtb.lab.bidders import SlowBidder
from rtb.openrtb import BidRequest
from tests.unit.parts import bid_request, imp


async def test_it_bids_its_price_on_every_imp() -> None:
    """With bids that any exchange would take in."""
    request = bid_request(imp("1"), imp("2"), badv=["other.test"])
    response = await SlowBidder(wait_ms=0, cpu_us=0, cpm=1.5)(request)
    bids, rejected = take_in(response, request, "lab", Rates())
    assert rejected == []
    assert [(bid.impid, bid.seat, bid.price_micros) for bid in bids] == [
        ("1", "lab", 1_500_000),
        ("2", "lab", 1_500_000),
    ]
    assert response.id == "r"


async def test_it_gives_way_while_it_waits() -> None:
    """Its wait is not spent on the processor: it can be cancelled in it."""
    task = asyncio.ensure_future(SlowBidder(wait_ms=3_600_000, cpu_us=0, cpm=1.0)(bid_request()))
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_without_imps_gets_no_bids() -> None:
    """Nor an error."""
    response = await SlowBidder(wait_ms=0, cpu_us=100, cpm=1.0)(BidRequest(id="r"))
    assert [seat.bid for seat in response.seatbid or ()] == [[]]
