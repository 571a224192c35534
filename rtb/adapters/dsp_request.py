"""What is sent to bidders: the request's own bytes with a few members changed, so that unknown fields survive.

Bidders that are to get the same bytes share them: they are put together once an auction.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Sequence
from fractions import Fraction

import msgspec
from msgspec import Raw

from rtb import openrtb
from rtb.adapters.dsp_params import aliases, has_params, members_of, own_params
from rtb.adapters.dsp_privacy import stripped
from rtb.domain import money, privacy
from rtb.domain.intake import Offer
from rtb.domain.money import Rates
from rtb.domain.privacy import Treatment
from rtb.openrtb import Imp
from rtb.ports import OpenAuction

MOVED: dict[str, tuple[str, ...]] = {
    "source": ("schain",),
    "regs": ("gdpr", "us_privacy", "gpp", "gpp_sid"),
    "user": ("consent", "eids"),
}
"""Members that 2.6 has in the object and 2.5, by its extensions, in the object's ``ext``."""
MOST_VARIANTS = 1_024

_members = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode
_GZIP_LEVEL = 1
_TMAX = b'"tmax"'
_VALUE = re.compile(rb"\s*:\s*\d+(?=\s*[,}])")


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is sent.

    Attributes:
        version: "2.5" or "2.6": where moved members stand.
        imps: the places of those to offer; None for all.
        currencies: to be sent as ``cur``; () for what the request says.
        treatment: what is left out of it.
        compressed: by gzip.
        floor_micros: CPM micros of the exchange currency below which no imp is offered.
        adjustment: floors are divided by it, as the bids on them will be multiplied.
        at: the auction type to tell; 0 for that of the auction.
        bidder: whose parameters alone are left in the imps; "" where there are none.
    """

    version: str = "2.6"
    imps: tuple[int, ...] | None = None
    currencies: tuple[str, ...] = ()
    treatment: Treatment = Treatment.WHOLE
    compressed: bool = False
    floor_micros: int = 0
    adjustment: float = 1.0
    at: int = 0
    bidder: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the length of the auction and its type may differ from the request."""
        return self.version == "2.6" and not (
            self.imps is not None
            or self.floor_micros
            or self.adjustment != 1
            or self.currencies
            or self.treatment
            or self.bidder
        )


class Body:
    """The bytes in one form, of one auction at a time; `made` are those that were asked for, by their ``tmax``."""

    __slots__ = ("_is_plain", "_rates", "_stem", "_tail", "auction_id", "form", "made")

    def __init__(self, form: Form, rates: Rates) -> None:
        """Of no auction yet."""
        self.form = form
        self._rates = rates
        self._is_plain = form.is_plain
        self.auction_id = ""
        self._stem = self._tail = b""
        self.made: dict[int, bytes] = {}

    def of(self, auction: OpenAuction, tmax: int) -> bytes:
        """The bytes to post, with so many milliseconds as ``tmax``."""
        if auction.id != self.auction_id:
            found = _around_tmax(auction, self.form.at) if self._is_plain else None
            self._stem, self._tail = found or (_stem(auction, self.form, self._rates) + b",", b"}")
            self.auction_id = auction.id
            self.made = {}
        made = self.made.get(tmax)
        if made is None:
            body = b'%b"tmax":%d%b' % (self._stem, tmax, self._tail)
            made = self.made[tmax] = gzip.compress(body, _GZIP_LEVEL, mtime=0) if self.form.compressed else body
        return made


class Sale:
    """What the bidders of one auction share: what it says of privacy, and what their bids are checked against."""

    __slots__ = (
        "auction",
        "auction_id",
        "deadline_ns",
        "has_params",
        "now_ns",
        "offer",
        "request",
        "signals",
        "varies",
    )

    def __init__(self, auction: OpenAuction, now_ns: int) -> None:
        """Read the privacy signals; all are asked in one step of the loop, at this time."""
        self.auction = auction
        self.auction_id = auction.id
        self.now_ns = now_ns
        self.deadline_ns = auction.deadline_ns
        self.request = auction.request
        self.signals = privacy.signals(auction.request)
        self.has_params = has_params(auction.request)
        self.varies = self.signals is not None or auction.offered is not None or self.has_params
        """Whether it depends on the bidder what it may be told."""
        self.offer: Offer | None = None

    def prepare(self) -> Offer:
        """Make what bids are checked against, when the first is there."""
        self.offer = offer = Offer(self.request)
        return offer


class Bodies:
    """The outgoing bodies of one auction at a time: whoever asks first for a form has it put together."""

    def __init__(self, rates: Rates) -> None:
        """Of no auction yet; floors are converted by `rates`."""
        self._rates = rates
        self._bodies: dict[Form, Body] = {}
        self.latest: Sale | None = None
        """Of the auction that was asked for last."""

    def form(self, form: Form) -> Body:
        """The bytes in a form: the same object for equal forms."""
        found = self._bodies.get(form)
        if found is None:
            if len(self._bodies) >= MOST_VARIANTS:
                self._bodies.clear()
            found = self._bodies[form] = Body(form, self._rates)
        return found

    def sale(self, auction: OpenAuction, now_ns: int) -> Sale:
        """What the bidders of an auction share, which is asked for the first time."""
        sale = self.latest = Sale(auction, now_ns)
        return sale


def _around_tmax(auction: OpenAuction, at: int) -> tuple[bytes, bytes] | None:
    """The request as it came, cut where its ``tmax`` stands; None where more than that is to be changed, or that is not
    plain to see."""
    request, body = auction.request, auction.body
    if auction.rehearsal or not request.tmax or not auction.terms or request.at != (at or auction.terms[0].at):
        return None
    for holder in (request.source, request.regs, request.user):
        if holder is not None and holder.ext:
            return None
    parts = body.split(_TMAX)
    if len(parts) != 2:
        return None
    before, after = parts
    value = _VALUE.match(after)
    return None if value is None else (before, after[value.end() :])


def _stem(auction: OpenAuction, form: Form, rates: Rates) -> bytes:
    """The request but for ``tmax`` and its last brace."""
    members = _members.decode(auction.body or openrtb.encode(auction.request))
    members.pop("tmax", None)
    members["at"] = Raw(b"%d" % (form.at or (auction.terms[0].at if auction.terms else 2)))
    if auction.rehearsal:
        members["test"] = Raw(b"1")
    if form.imps is not None or form.floor_micros or form.adjustment != 1:
        members["imp"] = Raw(_encode(_imps(_list.decode(members["imp"]), auction.request.imp or (), form, rates)))
    if form.bidder:
        known_as = aliases(auction.request)
        imps = [own_params(imp, form.bidder, known_as) for imp in _list.decode(members["imp"])]
        members["imp"] = Raw(_encode(imps))
    if form.currencies:
        members["cur"] = Raw(_encode(form.currencies))
    for name, moved in MOVED.items():
        if name in members:
            members[name] = (_lowered if form.version == "2.5" else _raised)(members[name], moved)
    return _encode(stripped(members, form.treatment) if form.treatment else members)[:-1]


def _imps(sent: Sequence[Raw], imps: Sequence[Imp], form: Form, rates: Rates) -> list[Raw]:
    """The chosen imps, with the floors that this bidder has to meet."""
    places = range(len(sent)) if form.imps is None else form.imps
    if not form.floor_micros and form.adjustment == 1:
        return [sent[i] for i in places]
    return [_floored(sent[i], imps[i], form, rates) for i in places]


def _floored(raw: Raw, imp: Imp, form: Form, rates: Rates) -> Raw:
    """An imp at the higher floor, its own or the bidder's, in the imp's currency; where that has no rate, as it was."""
    code = imp.bidfloorcur or "USD"
    if not rates.knows(code):
        return raw
    micros = max(money.to_micros(imp.bidfloor or 0.0), rates.outward_micros(form.floor_micros, code))
    if not micros:
        return raw
    members = _members.decode(raw)
    members["bidfloor"] = Raw(_encode(money.to_cpm(math.ceil(micros / Fraction(str(form.adjustment))))))
    members["bidfloorcur"] = Raw(_encode(code))
    return Raw(_encode(members))


def _lowered(raw: Raw, moved: Sequence[str]) -> Raw:
    """The object as 2.5 has it: these members in its ``ext``."""
    members = members_of(raw)
    here = [name for name in moved if name in members]
    if not here:
        return raw
    ext = members_of(members.get("ext", Raw()))
    for name in here:
        ext.setdefault(name, members.pop(name))
    members["ext"] = Raw(_encode(ext))
    return Raw(_encode(members))


def _raised(raw: Raw, moved: Sequence[str]) -> Raw:
    """The object as 2.6 has it: these members beside its ``ext``."""
    if b'"ext"' not in bytes(raw):
        return raw
    members = members_of(raw)
    ext = members_of(members.get("ext", Raw()))
    there = [name for name in moved if name in ext]
    if not there:
        return raw
    for name in there:
        members.setdefault(name, ext.pop(name))
    members["ext"] = Raw(_encode(ext))
    return Raw(_encode(members))
