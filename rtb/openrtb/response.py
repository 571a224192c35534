"""A bid response: bids by seat, or the reason why there are none.

Source: OpenRTB 2.6-202606, sections in brackets.
"""

from __future__ import annotations

from typing import Any

from rtb.openrtb.wire import Wire


class Bid(Wire, kw_only=True):
    """[4.2.3]"""

    id: str | None = None
    impid: str | None = None
    price: float | None = None
    nurl: str | None = None
    burl: str | None = None
    lurl: str | None = None
    adm: str | None = None
    adid: str | None = None
    adomain: list[str] | None = None
    bundle: str | None = None
    iurl: str | None = None
    cid: str | None = None
    crid: str | None = None
    cat: list[str] | None = None
    cattax: int | None = None
    attr: list[int] | None = None
    apis: list[int] | None = None
    api: int | None = None
    protocol: int | None = None
    language: str | None = None
    langb: str | None = None
    dealid: str | None = None
    w: int | None = None
    h: int | None = None
    exp: int | None = None
    dur: int | None = None
    mtype: int | None = None
    ext: Any = None


class SeatBid(Wire, kw_only=True):
    """[4.2.2]"""

    bid: list[Bid] | None = None
    seat: str | None = None
    group: int | None = None
    ext: Any = None


class BidResponse(Wire, kw_only=True):
    """[4.2.1]"""

    id: str | None = None
    seatbid: list[SeatBid] | None = None
    bidid: str | None = None
    cur: str | None = None
    nbr: int | None = None
    ext: Any = None
