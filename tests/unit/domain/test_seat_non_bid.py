"""Status codes of seats that did not bid: IAB Tech Lab, community extension "Seat Non Bid Response"."""

from __future__ import annotations

import pytest

from rtb.adapters.http_call import Failure
from rtb.domain.bidder_policy import Skip
from rtb.domain.privacy import Reason
from rtb.domain.seat_non_bid import of_failure, of_loss, of_skip
from rtb.openrtb import Loss


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Loss.BELOW_FLOOR, 301),
        (Loss.BELOW_DEAL_FLOOR, 304),
        (Loss.SIZE, 351),
        (Loss.NOT_SECURE, 352),
        (Loss.FORMAT, 353),
        (Loss.ADVERTISER_BLOCKED, 356),
        (Loss.CATEGORY_BLOCKED, 357),
        (Loss.ATTRIBUTE_BLOCKED, 350),
        (Loss.INVALID_DEAL, 300),
        (Loss.OUTBID, 602),
        (Loss.LOST_TO_DEAL, 603),
    ],
)
def test_bids_that_lost(reason: Loss, status: int) -> None:
    """By the list; what it does not have by 500 and the loss reason, or as rejected for no reason given."""
    assert of_loss(reason) == status


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Failure.TIMEOUT, 101),
        (Failure.CONNECT, 103),
        (Failure.REFUSED, 103),
        (Failure.MALFORMED, 102),
        (Failure.TOO_LARGE, 102),
        (Failure.CLOSED, 100),
        (Failure.BUSY, 100),
        ("status-503", 102),
        ("response", 102),
        ("RuntimeError", 100),
    ],
)
def test_bidders_that_failed(kind: str, status: int) -> None:
    """By the kind before the colon, as an auction keeps failures."""
    assert of_failure(f"{kind}: timeout or something") == status


@pytest.mark.parametrize(
    ("reason", "status"),
    [(Skip.MEDIA, 202), (Skip.CURRENCY, 205), (Skip.BREAKER, 200), (Skip.QPS, 200), ("anything", 200)]
    + [(reason, 204) for reason in Reason],
)
def test_bidders_that_were_not_asked(reason: str, status: int) -> None:
    """Media, currency and privacy have codes of their own."""
    assert of_skip(str(reason)) == status
