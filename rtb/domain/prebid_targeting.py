"""The key-values by which an ad server picks a header bid: ``hb_pb``, ``hb_bidder``, ``hb_size`` ...

Prices go to the ad server as buckets, because it has one line item a bucket. Arithmetic is in CPM micros: a price of
1.15 in steps of 0.01 is "1.15", where floats make it 1.14.

Source: Prebid Server, endpoint /openrtb2/auction, "Targeting" and "Ad Server Targeting"; Prebid, "Price Granularity".
"""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated

from msgspec import Meta, Struct

from rtb.domain import money
from rtb.errors import BadRequest

MAX_KEY = 20
"""Characters of a key; ad servers take no more, so that what is longer is cut."""
PREFIX = "hb"
MAX_PREFIX = 8
"""Characters of a prefix: twelve are left for the longest key without a bidder."""

_FIELD = "ext.prebid.targeting"


class PriceRange(Struct, frozen=True):
    """Buckets of `increment` CPM, from the `max` of the range before (0) up to `max`."""

    max: Annotated[float, Meta(gt=0, le=1_000_000)]
    increment: Annotated[float, Meta(ge=0.000001, le=1_000_000)]


class Granularity(Struct, frozen=True):
    """Price buckets; `precision` is how many decimal places they are written with."""

    precision: Annotated[int, Meta(ge=0, le=15)] = 2
    ranges: tuple[PriceRange, ...] = ()

    def bucket(self, price_micros: int) -> str:
        """The lower end of the bucket that a price falls into; above all ranges the end of the last."""
        floor = 0
        for each in self.ranges:
            top = money.to_micros(each.max)
            if price_micros <= top:
                step = money.to_micros(each.increment)
                return self._written(floor + (price_micros - floor) // step * step)
            floor = top
        return self._written(floor)

    def _written(self, micros: int) -> str:
        return f"{Decimal(micros).scaleb(-6):.{self.precision}f}"


def _granularity(*ranges: tuple[float, float]) -> Granularity:
    return Granularity(ranges=tuple(PriceRange(top, increment) for top, increment in ranges))


_MEDIUM = _granularity((20, 0.10))
NAMED = {
    "low": _granularity((5, 0.50)),
    "med": _MEDIUM,
    "medium": _MEDIUM,
    "high": _granularity((20, 0.01)),
    "auto": _granularity((5, 0.05), (10, 0.10), (20, 0.50)),
    "dense": _granularity((3, 0.01), (8, 0.05), (20, 0.50)),
}
"""The granularities that have a name."""


class ByMedia(Struct, frozen=True):
    """Granularities of media that differ from the others."""

    banner: Granularity | str | None = None
    video: Granularity | str | None = None
    audio: Granularity | str | None = None
    native: Granularity | str | None = None


class Targeting(Struct, frozen=True):
    """``ext.prebid.targeting``: which key-values the bids are to carry. The defaults are Prebid Server's."""

    pricegranularity: Granularity | str | None = None
    mediatypepricegranularity: ByMedia | None = None
    includewinners: bool | None = None
    includebidderkeys: bool | None = None
    includeformat: bool = False
    alwaysincludedeals: bool = False
    prefix: Annotated[str, Meta(max_length=MAX_PREFIX)] = ""

    @property
    def winners(self) -> bool:
        """Whether keys without a bidder's name are wanted."""
        return self.includewinners is not False

    @property
    def bidder_keys(self) -> bool:
        """Whether keys with the bidder's name are wanted."""
        return self.includebidderkeys is not False

    def granularity(self, media: str) -> Granularity:
        """The buckets for prices of a banner, video, audio or native ad."""
        own = getattr(self.mediatypepricegranularity, media, None)
        return _resolved(own if own is not None else self.pricegranularity)

    def checked(self) -> Targeting:
        """Itself.

        Raises:
            BadRequest: it makes no sense; names the field.
        """
        _check(self.pricegranularity, f"{_FIELD}.pricegranularity")
        for media in ByMedia.__struct_fields__:
            own = getattr(self.mediatypepricegranularity, media, None)
            _check(own, f"{_FIELD}.mediatypepricegranularity.{media}")
        return self


def key_values(
    targeting: Targeting,
    *,
    bidder: str,
    price_micros: int,
    media: str,
    size: tuple[int, int] | None = None,
    dealid: str = "",
    app: bool = False,
    winner: bool = True,
) -> dict[str, str]:
    """The key-values of a bid.

    Args:
        targeting: what is wanted.
        bidder: the code that the page knows the bidder by.
        price_micros: in the currency of the response.
        media: banner, video, audio or native.
        size: w and h, where both are known.
        dealid: "" without a deal.
        app: the ad is for an app.
        winner: it won its imp; one that is offered besides has keys with its bidder's code alone.
    """
    values = {"pb": targeting.granularity(media).bucket(price_micros), "bidder": bidder}
    if size is not None:
        values["size"] = f"{size[0]}x{size[1]}"
    if targeting.includeformat:
        values["format"] = media
    if dealid:
        values["deal"] = dealid
    if app:
        values["env"] = "mobile-app"
    prefix = targeting.prefix or PREFIX
    found: dict[str, str] = {}
    if targeting.bidder_keys or (targeting.alwaysincludedeals and dealid):
        found |= {f"{prefix}_{name}_{bidder}"[:MAX_KEY]: value for name, value in values.items()}
    if targeting.winners and winner:
        found |= {f"{prefix}_{name}"[:MAX_KEY]: value for name, value in values.items()}
    return found


def _resolved(asked: Granularity | str | None) -> Granularity:
    if asked is None:
        return _MEDIUM
    if isinstance(asked, str):
        return NAMED[asked]
    return asked if asked.ranges else Granularity(asked.precision, _MEDIUM.ranges)


def _check(asked: Granularity | str | None, field: str) -> None:
    if isinstance(asked, str) and asked not in NAMED:
        raise BadRequest(f"{field}: {asked[:32]!r} is none of {', '.join(NAMED)}; or send ranges")
    if isinstance(asked, Granularity):
        for i, (before, after) in enumerate(pairwise(asked.ranges)):
            if after.max <= before.max:
                raise BadRequest(f"{field}.ranges[{i + 1}].max: {after.max} is not above that of the range before")
