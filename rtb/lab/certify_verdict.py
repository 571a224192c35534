"""What one answer to a bid request is worth, by the rules this exchange takes bids in by."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from rtb import openrtb
from rtb.domain import auction as rules
from rtb.domain.auction import Lost
from rtb.domain.intake import take_in
from rtb.domain.money import Rates
from rtb.domain.terms import terms_of
from rtb.errors import BadRequest
from rtb.openrtb import BidRequest, Loss

RATES = Rates("USD")
BIDDER = "certified"


class Kind(StrEnum):
    """What came of a request."""

    BID = "bid"
    NO_BID = "no-bid"
    TIMEOUT = "timeout"
    ERROR = "error"
    INVALID = "invalid"


class Verdict(Struct, frozen=True):
    """`reason` says what is wrong; `refused` are the reasons for which single bids would not be taken."""

    kind: Kind
    reason: str = ""
    refused: tuple[str, ...] = ()


def judged(request: BidRequest, status: int, content: bytes) -> Verdict:
    """The verdict on an answer that was in time.

    A no-bid is a 204, or a 200 that is empty, ``{}``, or without bids [OpenRTB 2.6 7.1]. An answer is invalid when it
    is no bid response, when it is for another request, or when not one of its bids can be taken in. Bids below their
    floor are refused but valid: they lose by their price.
    """
    if status == 204:
        return Verdict(Kind.NO_BID)
    if status != 200:
        return Verdict(Kind.ERROR, f"HTTP status {status}")
    try:
        response = openrtb.decode_response(content)
    except BadRequest as error:
        return Verdict(Kind.INVALID, str(error))
    if not any(seatbid.bid for seatbid in response.seatbid or ()):
        return Verdict(Kind.NO_BID)
    if response.id is not None and response.id != request.id:
        return Verdict(Kind.INVALID, "id: is not that of the request [4.2.1]")
    bids, rejected = take_in(response, request, BIDDER, RATES)
    invalid = [_named(lost) for lost in rejected]
    if not bids:
        return Verdict(Kind.INVALID, f"no bid can be taken: {invalid[0]}", tuple(invalid))
    refused = []
    for imp in request.imp or ():
        terms = terms_of(request, imp, RATES)
        result = rules.clear([bid for bid in bids if bid.impid == imp.id], terms, _in_order)
        refused += [_named(lost) for lost in result.refused if lost.reason is not Loss.LOST_TO_DEAL]
    return Verdict(Kind.BID, "", (*invalid, *refused))


def _named(lost: Lost) -> str:
    return f"{lost.reason.name.lower().replace('_', ' ')} ({int(lost.reason)})"


def _in_order(impid: str, seat: str) -> bytes:
    return seat.encode()
