"""Why a bidder won nothing, as ``ext.seatnonbid`` of a bid response tells it.

Source: IAB Tech Lab, OpenRTB community extension "Seat Non Bid Response"; 500 and above are an exchange's own.
"""

from __future__ import annotations

from enum import IntEnum

from rtb.domain.bidder_policy import Skip
from rtb.domain.privacy import Reason
from rtb.openrtb import Loss


class NonBid(IntEnum):
    """The status codes that this exchange gives."""

    NO_BID = 0
    ERROR = 100
    TIMEOUT = 101
    INVALID_RESPONSE = 102
    UNREACHABLE = 103
    BLOCKED = 200
    BLOCKED_MEDIA = 202
    BLOCKED_PRIVACY = 204
    BLOCKED_CURRENCY = 205
    REJECTED = 300
    BELOW_FLOOR = 301
    BELOW_DEAL_FLOOR = 304
    CREATIVE = 350
    CREATIVE_SIZE = 351
    CREATIVE_NOT_SECURE = 352
    CREATIVE_FORMAT = 353
    ADVERTISER_BLOCKED = 356
    CATEGORY = 357
    OUTBID = 602
    """Ours: 500 and the loss reason of OpenRTB 3.0."""
    LOST_TO_DEAL = 603


_BY_LOSS = {
    Loss.MARKUP_MISSING: NonBid.CREATIVE,
    Loss.BELOW_FLOOR: NonBid.BELOW_FLOOR,
    Loss.BELOW_DEAL_FLOOR: NonBid.BELOW_DEAL_FLOOR,
    Loss.OUTBID: NonBid.OUTBID,
    Loss.LOST_TO_DEAL: NonBid.LOST_TO_DEAL,
    Loss.SIZE: NonBid.CREATIVE_SIZE,
    Loss.FORMAT: NonBid.CREATIVE_FORMAT,
    Loss.ADVERTISER_BLOCKED: NonBid.ADVERTISER_BLOCKED,
    Loss.APP_BLOCKED: NonBid.CREATIVE,
    Loss.NOT_SECURE: NonBid.CREATIVE_NOT_SECURE,
    Loss.LANGUAGE: NonBid.CREATIVE,
    Loss.CATEGORY_BLOCKED: NonBid.CATEGORY,
    Loss.ATTRIBUTE_BLOCKED: NonBid.CREATIVE,
    Loss.AD_TYPE_BLOCKED: NonBid.CREATIVE,
}
_BY_FAILURE = {
    "timeout": NonBid.TIMEOUT,
    "connect": NonBid.UNREACHABLE,
    "refused": NonBid.UNREACHABLE,
    "malformed": NonBid.INVALID_RESPONSE,
    "too-large": NonBid.INVALID_RESPONSE,
    "response": NonBid.INVALID_RESPONSE,
    "intake": NonBid.INVALID_RESPONSE,
}
_BY_SKIP: dict[str, NonBid] = {
    Skip.MEDIA.value: NonBid.BLOCKED_MEDIA,
    Skip.CURRENCY.value: NonBid.BLOCKED_CURRENCY,
    **{reason.value: NonBid.BLOCKED_PRIVACY for reason in Reason},
}


def of_loss(reason: Loss) -> NonBid:
    """The status of a bid that was refused or lost."""
    return _BY_LOSS.get(reason, NonBid.REJECTED)


def of_failure(failure: str) -> NonBid:
    """The status of a bidder that failed; `failure` is its kind, a colon and what happened, as auctions keep it."""
    kind = failure.partition(":")[0]
    return NonBid.INVALID_RESPONSE if kind.startswith("status-") else _BY_FAILURE.get(kind, NonBid.ERROR)


def of_skip(reason: str) -> NonBid:
    """The status of a bidder that was not asked."""
    return _BY_SKIP.get(reason, NonBid.BLOCKED)
