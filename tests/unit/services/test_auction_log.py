"""The log line of an auction."""

from __future__ import annotations

from structlog.testing import capture_logs

from rtb.services.auction_log import AuctionLog
from tests.unit.parts import Build, Prompt, bid_request, offer


async def test_one_line_tells_the_auction(build: Build) -> None:
    """With a share of 1 each auction is one line: who won which imp, and what it pays (no floor, no rival: 0.01)."""
    world = build(Prompt("dsp", offer("dsp", 2.0)))
    world.exchange.listen(AuctionLog(1.0))
    with capture_logs() as lines:
        await world.run(bid_request())
    (line,) = [line for line in lines if line["event"] == "auction"]
    assert (line["outcome"], line["nbr"], line["imps"], line["bids"]) == ("won", None, 1, 1)
    assert (list(line["won"]), line["paid"]) == (["1"], {"1": 0.01})


async def test_a_share_of_nothing_and_rehearsals_are_silent(build: Build) -> None:
    """With a share of 0 nothing is logged; a rehearsal (`test` = 1) is not either, whatever the share."""
    world = build()
    world.exchange.listen(AuctionLog(0.0))
    rehearsed = build()
    rehearsed.exchange.listen(AuctionLog(1.0))
    with capture_logs() as lines:
        await world.run(bid_request())
        await rehearsed.run(bid_request(test=1))
    assert [line for line in lines if line["event"] == "auction"] == []
