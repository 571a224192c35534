"""A remote bidder as it is configured, and which auctions it takes part in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from rtb.domain.breaker import BreakerPolicy
from rtb.domain.money import Rates
from rtb.domain.privacy import PrivacyPolicy
from rtb.domain.validation import is_or_under
from rtb.openrtb import BidRequest, Imp

_S = 1_000_000_000
_NOTHING: Mapping[str, str] = {}

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Media = Literal["banner", "video", "audio", "native"]
Size = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")]
Country = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Positive = Annotated[int, Meta(ge=1)]
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
Seconds = Annotated[float, Meta(gt=0, le=3_600)]


class BidderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bidder from configuration only. What is empty restricts nothing; an unknown key is an error.

    Attributes:
        url: where bid requests are posted.
        version: of OpenRTB that it speaks; 2.5 gets schain, gdpr, consent ... in ``ext``.
        seats: its seats; bids of others are refused, and without any bids are the bidder's own.
        timeout_ms: how long it may take; 0 for as long as the auction has.
        minimum_ms: with less left for its thinking it is not asked.
        margin_ms: taken off `tmax`, besides the measured round trip of the network.
        qps: requests a second, with bursts of a tenth of that; 0 without limit.
        max_in_flight: requests under way, and connections.
        warm: connections kept open ahead of need.
        sites, sites_excluded: domains of site or app, and below, or app bundles.
        countries, countries_excluded: ISO-3166-1 alpha-3; a request without a country is in no list.
        currencies: that it bids in; the request's ``cur`` is cut down to these.
        adjustment: what its prices are multiplied by, as where it bids gross of a fee; the floors it is told are
            divided by it.
        at: the auction type agreed with it, which it is told and pays by when it wins, whatever the request's: 1 is its
            bid, 2 the second price; 0 for the request's. A deal's own type comes before it.
        floor: CPM of the exchange currency that its adjusted prices have to reach, besides the floor of the imp.
        privacy: what it may be told of users.
        gzip: compress requests; `accept_gzip`: take compressed responses.
        headers: sent with each request; a value ``env:NAME`` is that variable of the environment.
        secondary: the auction does not wait for it once all others have answered.
    """

    name: Name
    url: str
    enabled: bool = True
    version: Literal["2.5", "2.6"] = "2.6"
    seats: tuple[str, ...] = ()
    timeout_ms: Milliseconds = 0
    minimum_ms: Milliseconds = 5
    margin_ms: Milliseconds = 2
    qps: Annotated[float, Meta(ge=0)] = 0.0
    max_in_flight: Positive = 256
    warm: Annotated[int, Meta(ge=0)] = 2
    keep_alive_s: Seconds = 15.0
    connect_s: Seconds = 1.0
    max_response_bytes: Positive = 262_144
    media: tuple[Media, ...] = ()
    sizes: tuple[Size, ...] = ()
    countries: tuple[Country, ...] = ()
    countries_excluded: tuple[Country, ...] = ()
    sites: tuple[str, ...] = ()
    sites_excluded: tuple[str, ...] = ()
    currencies: tuple[Currency, ...] = ()
    adjustment: Annotated[float, Meta(gt=0, le=10)] = 1.0
    at: Literal[0, 1, 2] = 0
    floor: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    privacy: PrivacyPolicy = PrivacyPolicy()
    gzip: bool = False
    accept_gzip: bool = True
    headers: Mapping[str, str] = _NOTHING
    secondary: bool = False
    breaker: BreakerPolicy = BreakerPolicy()


class Skip(StrEnum):
    """Why a bidder was not asked."""

    MEDIA = "no imp of its media and sizes"
    COUNTRY = "country"
    SITE = "site"
    SEAT = "its seats are not wanted"
    CURRENCY = "no currency in common"
    TIME = "too little time left"
    IN_FLIGHT = "too many requests under way"
    BREAKER = "throttled for its timeouts and errors"
    QPS = "over its requests a second"


class TokenBucket:
    """So many a second, with bursts of a tenth of a second's worth, at least one."""

    __slots__ = ("_burst_ns", "_next_ns", "_step_ns")

    def __init__(self, per_second: float) -> None:
        """Full. `per_second` is positive."""
        self._step_ns = _S / per_second
        self._burst_ns = max(_S / 10, self._step_ns) - self._step_ns
        self._next_ns = 0.0

    def takes(self, now_ns: int) -> bool:
        """Whether there is one for now; it is taken."""
        begin_ns = max(self._next_ns, now_ns)
        if begin_ns - now_ns > self._burst_ns:
            return False
        self._next_ns = begin_ns + self._step_ns
        return True


class Participation:
    """Which auctions a bidder takes part in, with which imps, by what the request says."""

    __slots__ = (
        "_checks",
        "_countries",
        "_media",
        "_not_countries",
        "_not_sites",
        "_rates",
        "_seats",
        "_sites",
        "_sizes",
        "chooses",
        "currencies",
        "selects",
    )

    def __init__(self, settings: BidderSettings, rates: Rates) -> None:
        """`rates` say which currencies the exchange can convert."""
        self._rates = rates
        self._media = settings.media
        self._sizes = frozenset((int(w), int(h)) for w, _, h in (size.partition("x") for size in settings.sizes))
        self._countries = frozenset(settings.countries)
        self._not_countries = frozenset(settings.countries_excluded)
        self._sites = frozenset(name.lower() for name in settings.sites)
        self._not_sites = frozenset(name.lower() for name in settings.sites_excluded)
        self._seats = frozenset(settings.seats)
        self.currencies = settings.currencies
        self.chooses = bool(settings.media or settings.sizes)
        """Whether some imps may not be for it."""
        self._checks = self._needed()
        self.selects = self.chooses or bool(self._checks)
        """Whether some requests, or some of their imps, may not be for it."""

    def objection(self, request: BidRequest) -> Skip | None:
        """Why it takes no part; None when it does."""
        for is_met, skip in self._checks:
            if not is_met(request):
                return skip
        return None

    def _needed(self) -> Sequence[tuple[Callable[[BidRequest], bool], Skip]]:
        """The checks that its settings ask for."""
        found: list[tuple[Callable[[BidRequest], bool], Skip]] = []
        if self._seats:
            found.append((self._seated, Skip.SEAT))
        if self._countries or self._not_countries:
            found.append((self._lives_in, Skip.COUNTRY))
        if self._sites or self._not_sites:
            found.append((self._visits, Skip.SITE))
        if self.currencies:
            found.append((lambda request: bool(self.sent_currencies(request)), Skip.CURRENCY))
        return found

    def sent_currencies(self, request: BidRequest) -> tuple[str, ...]:
        """The currencies to ask it for: those that it bids in, the request allows, and the exchange can convert."""
        allowed = request.cur or ("USD",)
        ours = self._rates.currency
        return tuple(code for code in self.currencies if (code in allowed or code == ours) and self._rates.knows(code))

    def imps(self, request: BidRequest, offered: Collection[str] | None = None) -> tuple[int, ...] | None:
        """The places of the imps to ask it for; None for all of them, () for none. `offered`: ids, where only these
        are offered to it."""
        if not self.chooses and offered is None:
            return None
        imps = request.imp or ()
        fitting = tuple(
            i
            for i, imp in enumerate(imps)
            if (offered is None or imp.id in offered) and (not self.chooses or self._fits(imp))
        )
        return None if len(fitting) == len(imps) else fitting

    def _fits(self, imp: Imp) -> bool:
        """Whether a media of the imp is taken, in one of the sizes where it has any."""
        for media in self._media or ("banner", "video", "audio", "native"):
            offer = getattr(imp, media)
            if offer is None:
                continue
            if not self._sizes or media in ("audio", "native"):
                return True
            sizes = {(format_.w, format_.h) for format_ in (media == "banner" and offer.format) or ()}
            if offer.w and offer.h:
                sizes.add((offer.w, offer.h))
            if not sizes or not self._sizes.isdisjoint(sizes):
                return True
        return False

    def _seated(self, request: BidRequest) -> bool:
        if not request.wseat and not request.bseat:
            return True
        seats = self._seats if not request.wseat else self._seats.intersection(request.wseat)
        return not seats <= frozenset(request.bseat or ())

    def _lives_in(self, request: BidRequest) -> bool:
        country = None
        for who in (request.device, request.user):
            if country is None and who is not None and who.geo is not None:
                country = who.geo.country
        return (not self._countries or country in self._countries) and country not in self._not_countries

    def _visits(self, request: BidRequest) -> bool:
        app = request.app
        places = (request.site, app, request.dooh)
        names = [place.domain for place in places if place is not None] + ([app.bundle] if app is not None else [])
        found = [name.lower() for name in names if name]
        if any(is_or_under(name, self._not_sites) for name in found):
            return False
        return not self._sites or any(is_or_under(name, self._sites) for name in found)
