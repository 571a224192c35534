"""The deadline belongs to the auction: who is late loses its turn, and the answer does not wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.daemon import Daemon, bids
from tests.support.http import Http, post
from tests.support.samples import bid_request, campaign

LATE = ("auction.deadline_ms=1000", "lab.bidder=true", "lab.bidder_ms=5000", "lab.bidder_cpm=50")
NEVER = ("auction.deadline_ms=2500", "lab.bidder=true", "lab.bidder_ms=3600000", "lab.bidder_cpm=50")
"""Had an answer to wait for this bidder, the test would end by its time limit."""
SHOES = {"domain": "shoes.test"}


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A bidder that never answers, and a campaign for shoes.test alone."""
    with Daemon(tmp_path_factory.mktemp("deadline"), *NEVER) as daemon:
        daemon.put_campaigns(campaign("shoes", targeting={"domain": ["shoes.test"]}))
        yield daemon


def test_a_late_bidder_loses_its_turn(tmp_path: Path) -> None:
    """After 1 s the house's 2.00 wins at the floor, though the bidder would have paid 50.00 after 5 s."""
    with Daemon(tmp_path, *LATE) as daemon:
        daemon.put_campaigns(campaign("shoes"))
        for _ in range(2):
            response = daemon.auction(bid_request())
            [seat] = bids(response).seatbid or ()
            assert response.headers["x-rtb-outcome"] == "won"
            assert [(bid.cid, bid.price) for bid in seat.bid or ()] == [("shoes", 0.5)]


def test_the_answer_comes_without_a_bidder_that_never_answers(waiting: Daemon) -> None:
    """By the exchange's deadline, or by the request's own where that is sooner; many at once on one connection too."""
    for tmax in (0, 500, 1000, 5000):
        assert bids(waiting.auction(bid_request(site=SHOES, tmax=tmax))).seatbid
    names = [f"r{n}" for n in range(100)]
    with Http(waiting.url) as http:
        http.send(b"".join(post(msgspec.json.encode(bid_request(id=name, site=SHOES))) for name in names))
        assert [bids(http.receive()).id for _ in names] == names


def test_nothing_but_a_late_bidder_makes_a_timeout(waiting: Daemon) -> None:
    """No bid arrived, and one might have: 204 with outcome timeout, or nbr 503 for who asks."""
    response = waiting.auction(bid_request())
    assert (response.status, response.headers["x-rtb-outcome"]) == (204, "timeout")
    asking = waiting.auction(bid_request(ext={"rtb": {"nbr": 1}}))
    assert (asking.status, asking.headers["x-rtb-outcome"]) == (200, "timeout")
    assert msgspec.json.decode(asking.body) == {"id": "request-1", "nbr": 503}


def test_a_bidder_in_time_is_heard(tmp_path: Path) -> None:
    """Long before the deadline: it wins at a cent above the house's 2.00."""
    with Daemon(tmp_path, "lab.bidder=true", "lab.bidder_ms=80", "lab.bidder_cpm=50") as daemon:
        daemon.put_campaigns(campaign("shoes"))
        [seat] = bids(daemon.auction(bid_request())).seatbid or ()
        assert (seat.seat, [bid.price for bid in seat.bid or ()]) == ("lab", [2.01])


def test_too_little_time_is_no_auction(waiting: Daemon) -> None:
    """tmax 14 less 10 for the way back is less than the 5 ms that an auction takes: nbr 15 at once."""
    short = waiting.auction(bid_request(site=SHOES, tmax=14, ext={"rtb": {"nbr": 1}}))
    assert msgspec.json.decode(short.body) == {"id": "request-1", "nbr": 15}
