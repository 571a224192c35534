"""Recorded auctions: the lines of a replay log, all that it takes to run an auction again and to tell what came of it.

A log is JSON lines. A `Header` holds for the lines after it, a `CampaignLine` stands before the first auction that its
campaign bid in, and an `AuctionLine` is one auction. Prices are CPM micros of the exchange currency, times that end
in ``_ns`` count from the arrival of the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from rtb.domain.campaign import Campaign
from rtb.domain.profile import Profile
from rtb.errors import Malformed

VERSION = 1
"""Of the format; a log of another version is refused."""

Refused = tuple[int, int, int | None]
"""A bid (its place among the bids), the loss reason, and the least price that would have won."""


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="header"):
    """What holds for the auctions after it.

    Attributes:
        version: of the format.
        instance: the daemon that recorded.
        started_at: Unix seconds.
        share: of the auctions were recorded.
        currency, rates: the exchange's own, and what one unit of others is worth in it.
        tie_key: orders equal bids; hexadecimal, and secret.
        advertisers: of the house, that enter an auction at most.
        settings: every setting of the daemon, for people.
    """

    version: int
    instance: str
    started_at: float
    share: float
    currency: str
    rates: Mapping[str, float]
    increment_micros: int
    deals_first: bool
    first_price_types: Sequence[int]
    tie_key: str
    advertisers: int
    settings: Mapping[str, Any] = {}


class CampaignLine(Struct, frozen=True, omit_defaults=True, tag_field="line", tag="campaign"):
    """A campaign as it was when it bid."""

    campaign: Campaign


class RecordedBid(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A bid as the exchange took it.

    `id` is its bidder's, `at` the auction type agreed with that. `sent_micros` is its price before the bidder's
    adjustment, where that changed it. A bid of the house names campaign, version and creative. `unpaid`: it won, and
    its bidder could not take the cost.
    """

    impid: str
    bidder: str
    seat: str
    price_micros: int
    id: str = ""
    dealid: str | None = None
    adomain: tuple[str, ...] = ()
    mtype: int = 0
    dur: int = 0
    group: str = ""
    at: int = 0
    sent_micros: int | None = None
    campaign: str = ""
    version: int = 0
    creative: str = ""
    unpaid: bool = False


class RecordedResult(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How an imp was settled, bids by their place among those of the auction; see rtb.domain.auction.Result."""

    impid: str
    winner: int | None = None
    price_micros: int = 0
    min_to_win_micros: int = 0
    refused: Sequence[Refused] = ()
    outbid: Sequence[int] = ()
    to_beat_micros: int = 0
    paid: bool = False


class RecordedOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an auction came to."""

    status: str
    nbr: int | None = None
    currency: str = ""
    results: Sequence[RecordedResult] = ()


class AuctionLine(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="auction"):
    """One auction.

    Attributes:
        id: the exchange's, which orders equal bids.
        received_at: Unix seconds.
        deadline_ns: when it had to be over.
        asked_ns: when the bidders were asked; None where the request was refused before.
        took_ns: how long it took.
        request: the JSON as it came in.
        profile, frequency: what was known of the user before anything was won.
        bidders: everybody who was in the exchange.
        bids: the valid ones, in the order in which they were cleared, imp by imp.
        kept_out: what campaigns would have bid, had there been no floor.
        rejected: what was refused on intake, with the loss reason.
        failures, skipped: bidder -> why.
        late: who had not answered at the deadline.
        answered_ns: bidder -> when its answer was there.
        outcome: what it came to.
    """

    id: str
    received_at: float
    deadline_ns: int
    took_ns: int
    request: Raw
    outcome: RecordedOutcome
    asked_ns: int | None = None
    profile: Profile | None = None
    frequency: Mapping[str, int] = {}
    bidders: Sequence[str] = ()
    bids: Sequence[RecordedBid] = ()
    kept_out: Sequence[RecordedBid] = ()
    rejected: Sequence[tuple[RecordedBid, int]] = ()
    failures: Mapping[str, str] = {}
    skipped: Mapping[str, str] = {}
    late: Sequence[str] = ()
    answered_ns: Mapping[str, int] = {}


Line = Header | CampaignLine | AuctionLine

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Line).decode
_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def encode(line: Line | RecordedOutcome) -> bytes:
    """The JSON of a line, without the line break; equal values give equal bytes."""
    return _encode(line)


def decode(line: bytes) -> Line:
    """A line of a log.

    Raises:
        Malformed: it is none, or of another version.
    """
    try:
        found: Line = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a line of a replay log: {' '.join(str(error).split())[:200]}") from None
    if isinstance(found, Header) and found.version != VERSION:
        raise Malformed(f"a replay log of version {found.version}; this is a reader of version {VERSION}")
    return found


def one_line(request: bytes) -> Raw:
    """A request's JSON without line breaks: outside its strings they mean nothing, and inside there are none."""
    return Raw(request.translate(_BREAKS) if b"\n" in request or b"\r" in request else request)
