"""A remote bidder with an auction type of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from rtb.adapters.clock import SystemClock
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.money import Rates
from rtb.openrtb import Deal, Pmp
from rtb.wiring.bidders import RemoteBidders
from tests.support.http_server import HttpServer, Reply
from tests.unit.parts import Build, Prompt, bid_request, imp, offer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A bidder that bids 3.00, on the deal where it is offered."""
    async with HttpServer() as server:
        yield server


@pytest.mark.parametrize(
    ("own", "asked", "deal", "told", "price_micros"),
    [
        (0, 2, None, 2, 2_010_000),
        (1, 2, None, 1, 3_000_000),
        (2, 2, None, 2, 2_010_000),
        (0, 1, None, 1, 3_000_000),
        (1, 1, None, 1, 3_000_000),
        (2, 1, None, 2, 2_010_000),
        (1, 2, 2, 1, 1_000_000),
        (2, 1, 1, 2, 3_000_000),
        (1, 2, 3, 1, 1_000_000),
    ],
)
async def test_it_is_told_the_type_it_pays_by(
    build: Build, server: HttpServer, own: int, asked: int, deal: int | None, told: int, price_micros: int
) -> None:
    """Its own before the request's, a deal's before both. 3.00 against 2.00; on the deal it is alone, above 1.00."""
    bid = {"id": "b", "impid": "1", "price": 3.0, "adm": "<b>ad</b>", "adomain": ["brand.test"]}
    if deal is not None:
        bid["dealid"] = "x"
    server.default = Reply(200, body=json.dumps({"id": "r", "seatbid": [{"bid": [bid]}]}).encode())
    clock = SystemClock()
    remotes = RemoteBidders(clock, Rates(), {}, allow=["127.0.0.0/8"])
    settings = msgspec.convert({"name": "dsp", "url": server.url("/bid"), "at": own}, BidderSettings)
    bidders = remotes.apply([settings])
    world = build(*bidders, Prompt("rival", offer("rival", 2.0)), clock=clock, deadline_ms=20_000)
    pmp = None if deal is None else Pmp(deals=[Deal(id="x", bidfloor=1.0, at=deal)])
    outcome = await world.run(bid_request(imp(pmp=pmp), at=asked))
    await remotes.close()
    [result] = outcome.results
    assert result.winner is not None
    assert (result.winner.bidder, result.price_micros) == ("dsp", price_micros)
    assert json.loads(server.requests[0].body)["at"] == told
