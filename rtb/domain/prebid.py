"""What a Prebid client says in ``ext.prebid`` of the request and of its imps, and who is meant by its bidder codes.

A page knows bidders by codes. Here a code is the name of one of the exchange's bidders, an alias that the request gives
such a name, or the code of the exchange itself, which stands for all of them.

Source: Prebid Server, endpoint /openrtb2/auction, "OpenRTB Extensions". What is not done here is either refused or
ignored with a warning, see `NOT_DONE`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from rtb.domain.auction import Bid
from rtb.domain.prebid_multibid import ONE, BidLimit, MultiBid, limits
from rtb.domain.prebid_targeting import Targeting
from rtb.errors import BadRequest
from rtb.openrtb import BidRequest

MARK = b'"prebid"'
"""Stands in every ext that says something to Prebid."""
NOT_DONE = {
    "adservertargeting": "key-values are those of ext.prebid.targeting",
    "bidadjustmentfactors": "prices are adjusted by the exchange's own settings",
    "bidadjustments": "prices are adjusted by the exchange's own settings",
    "cache": "bids are not cached; the markup is in the response",
    "floors": "floors are those of the imps and their deals",
}
"""Members of ext.prebid that change nothing here: each is answered by a warning that says so."""
_STORED = ("storedrequest", "storedauctionresponse", "storedbidresponse")
_NOT_STORED = "nothing is stored here; send the whole imp"

_T = TypeVar("_T")


class AlternateCodes(Struct, frozen=True):
    """Seats under which a bidder may bid besides its own; without a list, any."""

    enabled: bool = False
    allowedbiddercodes: list[str] | None = None

    def allows(self, seat: str) -> bool:
        """Whether bids may stand under this seat."""
        codes = self.allowedbiddercodes
        return self.enabled and (codes is None or "*" in codes or seat.lower() in map(str.lower, codes))


class Alternates(Struct, frozen=True):
    """``ext.prebid.alternatebiddercodes``."""

    enabled: bool = False
    bidders: dict[str, AlternateCodes] = {}


class RequestPrebid(Struct, frozen=True, kw_only=True):
    """``ext.prebid`` of a request, what is read of it."""

    targeting: Targeting | None = None
    aliases: dict[str, str] | None = None
    alternatebiddercodes: Alternates | None = None
    returnallbidstatus: bool = False
    auctiontimestamp: Raw = Raw()
    passthrough: Raw = Raw()
    events: Raw = Raw()
    storedrequest: Raw = Raw()
    storedauctionresponse: Raw = Raw()
    adservertargeting: Raw = Raw()
    bidadjustmentfactors: Raw = Raw()
    bidadjustments: Raw = Raw()
    cache: Raw = Raw()
    floors: Raw = Raw()
    multibid: list[MultiBid] = []


class ImpPrebid(Struct, frozen=True, kw_only=True):
    """``imp.ext.prebid``; `bidder` has a member for each bidder that the imp is offered to, its parameters."""

    bidder: dict[str, Raw] | None = None
    passthrough: Raw = Raw()
    storedrequest: Raw = Raw()
    storedauctionresponse: Raw = Raw()
    storedbidresponse: Raw = Raw()


class _RequestExt(Struct, frozen=True):
    prebid: RequestPrebid | None = None


class _ImpExt(Struct, frozen=True):
    prebid: ImpPrebid | None = None


class _Storing(Struct, frozen=True):
    prebid: dict[str, Raw] = {}


class _StoringExt(Struct, frozen=True):
    ext: _Storing = _Storing()


class _StoringRequest(_StoringExt, frozen=True):
    imp: list[_StoringExt] = []


_request_decoder = msgspec.json.Decoder(_RequestExt)
_imp_decoder = msgspec.json.Decoder(_ImpExt)
_storing_decoder = msgspec.json.Decoder(_StoringRequest)
_NOTHING = RequestPrebid()
_NO_EXT, _NO_IMP_EXT = _RequestExt(), _ImpExt()
_NO_CODES: Mapping[str, str] = {}


class Asked(Struct, frozen=True):
    """What a request asks of Prebid.

    Attributes:
        request: its ``ext.prebid``.
        imps: those of its imps that ask, by id.
        codes: the bidder codes of each imp as they were written, with whom they mean; without any, everybody is meant.
        bidders: the names of the exchange's bidders.
        own: the code that stands for all of them.
        limits: how many bids of a code are wanted, by the code in small letters.
        flaws: what is wrong with those.
    """

    request: RequestPrebid
    imps: Mapping[str, ImpPrebid]
    codes: Mapping[str, Mapping[str, str]]
    bidders: Collection[str]
    own: str
    limits: Mapping[str, BidLimit] = {}
    flaws: Sequence[str] = ()

    def limit(self, code: str) -> BidLimit:
        """How many bids of a code are wanted on an imp."""
        return self.limits.get(code.lower(), ONE)

    @property
    def warnings(self) -> list[str]:
        """One line for each thing that is ignored."""
        asked = self.request
        lines = [f"ext.prebid.{name}: ignored, {why}" for name, why in NOT_DONE.items() if getattr(asked, name)]
        for part, where in ((asked, ""), *((imp, f"imp {impid!r}: ") for impid, imp in self.imps.items())):
            stored = [name for name in _STORED if getattr(part, name, None)]
            lines += [f"{where}ext.prebid.{name}: ignored, nothing is stored here" for name in stored]
        return lines

    @property
    def for_page(self) -> bool:
        """Whether the bids go to an ad server's page, and not on through another exchange."""
        return self.request.targeting is not None or bool(self.request.events)

    @property
    def offers(self) -> dict[str, set[str]] | None:
        """Whom each imp is offered to: bidder -> ids of imps; None when all are offered to everybody."""
        found: dict[str, set[str]] = {}
        everything = True
        for impid, codes in self.codes.items():
            meant = set(codes.values())
            if not meant or self.own in meant:
                meant = set(self.bidders)
            everything = everything and meant.issuperset(self.bidders)
            for name in meant.intersection(self.bidders):
                found.setdefault(name, set()).add(impid)
        return None if everything else found

    @property
    def unknown(self) -> list[str]:
        """The codes that mean nobody here."""
        known = {*self.bidders, self.own}
        return sorted({code for codes in self.codes.values() for code, name in codes.items() if name not in known})

    def label(self, bidder: str) -> str:
        """What the page calls a bidder, in any of its imps; else its name."""
        for codes in self.codes.values():
            for code, name in codes.items():
                if name == bidder:
                    return code
        return bidder

    def seat(self, bid: Bid) -> str:
        """The seat to answer a bid under: the page's code of its bidder, or the bid's own where the page allows it."""
        alternates = self.request.alternatebiddercodes
        if alternates is not None and alternates.enabled and bid.seat != bid.bidder:
            for name, allowed in alternates.bidders.items():
                if name.lower() == bid.bidder and allowed.allows(bid.seat):
                    return bid.seat
        codes = self.codes.get(bid.impid, _NO_CODES)
        for meant in (bid.bidder, self.own):
            for code, name in codes.items():
                if name == meant:
                    return code
        return bid.bidder


def may_ask(request: BidRequest) -> bool:
    """Whether there is any ext that could say something to Prebid: most requests of servers are sorted out by it."""
    if request.ext:
        return True
    for imp in request.imp or ():  # noqa: SIM110  a generator costs five times that
        if imp.ext:
            return True
    return False


def read(request: BidRequest, bidders: Collection[str], own: str) -> Asked | None:
    """What the request asks of Prebid; None when it does not mention it.

    Args:
        request: decoded and valid.
        bidders: the names of the exchange's bidders.
        own: the bidder code that stands for all of them.

    Raises:
        BadRequest: a member of the wrong type or without sense.
    """
    asked = _decoded(_request_decoder, request.ext, "", _NO_EXT).prebid if request.ext else None
    imps: dict[str, ImpPrebid] = {}
    for i, imp in enumerate(request.imp or ()):
        if imp.ext:
            said = _decoded(_imp_decoder, imp.ext, f"imp[{i}].", _NO_IMP_EXT).prebid
            if said is not None:
                imps[imp.id or ""] = said
    if asked is None:
        if not imps:
            return None
        asked = _NOTHING
    if asked.targeting is not None:
        asked.targeting.checked()
    aliases = asked.aliases or _NO_CODES
    codes: dict[str, Mapping[str, str]] = {}
    for imp in request.imp or ():
        said = imps.get(imp.id or "")
        named = said.bidder if said is not None else None
        codes[imp.id or ""] = {code: aliases.get(code, code).lower() for code in named or ()}
    return Asked(asked, imps, codes, bidders, own, *limits(asked.multibid))


def storing(body: bytes) -> str:
    """Why a request that breaks OpenRTB does: it counts on something stored. "" when that is not so."""
    if MARK not in body or not any(name.encode() in body for name in _STORED):
        return ""
    try:
        request = _storing_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    for name in _STORED:
        if name in request.ext.prebid:
            return f"ext.prebid.{name}: {_NOT_STORED}"
        for i, imp in enumerate(request.imp):
            if name in imp.ext.prebid:
                return f"imp[{i}].ext.prebid.{name}: {_NOT_STORED}"
    return ""


def _decoded(decoder: msgspec.json.Decoder[_T], raw: Raw, place: str, nothing: _T) -> _T:
    """What an ext says to Prebid; one that is no object, and does not mention it, says nothing."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        if MARK not in bytes(raw):
            return nothing
        what, _, where = " ".join(str(error).split())[:300].partition(" - at `$")
        raise BadRequest(f"{place}ext{where.rstrip('`')}: {what[:1].lower()}{what[1:]}") from None
