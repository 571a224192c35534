"""A request as clauses: what a campaign must, may not, or must if it cares, be posted under."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from rtb.domain.facts import Offer
from rtb.domain.remembered import Remembered
from rtb.domain.targeting.creatives import choose, fits, wrong_duration
from rtb.domain.targeting.criteria import category_in
from rtb.domain.targeting.geo import cells_around
from rtb.domain.targeting.postings import (
    ADVERTISER,
    CATEGORY,
    CELL,
    CITY,
    COUNTRY,
    DEAL,
    DEVICETYPE,
    DOMAIN,
    DOMAIN_EXCLUDE,
    INTEREST,
    LANGUAGE,
    OS,
    PARENT,
    REGION,
    SEAT,
    SEGMENT,
    SHAPE,
    SITE_CAT,
    SITE_CAT_EXCLUDE,
    Kind,
)

Values = Collection[Hashable]
Postings = Sequence[Mapping[Any, int]]

_Buyers = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]
_Audience = tuple[str, str, str, int, str, str, int, bool]
"""country, region, city, devicetype, os, language; the finest cell, `NOWHERE` for a user who may be anywhere; whether
the user is in no segment."""
NOWHERE = -1
_Categories = tuple[int, tuple[str, ...], tuple[str, ...] | None]
_MOST = 4096
_MOST_RACKS = 4


class Clause:
    """Conditions that are looked up together and whose bitmap every block remembers. Compared by identity.

    A campaign passes when for every `needed` (dimension, values) it is posted under one of the values; for every
    `wanted` (dimension, values) it is posted under one of the values or not under None; and under no `barred` value.
    """

    __slots__ = ("_barred", "_needed", "_wanted")

    def __init__(
        self,
        *,
        needed: Sequence[tuple[int, Values]] = (),
        wanted: Sequence[tuple[int, Values]] = (),
        barred: Sequence[tuple[int, Values]] = (),
    ) -> None:
        self._needed = [(dimension, _quick(values)) for dimension, values in needed]
        self._wanted = [(dimension, _quick(values)) for dimension, values in wanted]
        self._barred = [(dimension, _quick(values)) for dimension, values in barred]

    def mask(self, postings: Postings, used: int) -> int:
        """The slots of a block, of those `used`, that pass."""
        bits = used
        for dimension, values in self._needed:
            bits &= _any(postings[dimension], values)
        for dimension, values in self._wanted:
            masks = postings[dimension]
            particular = masks.get(None)
            if particular is not None:
                bits &= used ^ particular | _any(masks, values)
        for dimension, values in self._barred:
            masks = postings[dimension]
            if masks:
                bits &= ~_any(masks, values)
        return bits


Words = tuple[Clause, int, Collection[str]]
"""A dimension, some of its values, and the clause of those who want none in particular of it. The words of a request
differ from one to the next, so that no block remembers them."""


class Categories(Clause):
    """Whose categories in one taxonomy are all allowed (None: any) and none blocked."""

    __slots__ = ("_allowed", "_tax")

    def __init__(self, key: _Categories) -> None:
        self._tax, blocked, allowed = key
        named = [(self._tax, cat) for cat in blocked]
        super().__init__(barred=((CATEGORY, named), (PARENT, named)))
        self._allowed = None if allowed is None else frozenset(allowed)

    def mask(self, postings: Postings, used: int) -> int:
        """The slots of a block, of those `used`, that pass."""
        bits = super().mask(postings, used)
        if self._allowed is not None:
            for (tax, cat), mask in postings[CATEGORY].items():
                if tax == self._tax and not category_in(cat, self._allowed):
                    bits &= ~mask
        return bits


def _any(masks: Mapping[Hashable, int], values: Values) -> int:
    some = 0
    if len(values) > len(masks):  # a long list in the request, of which the block knows a few
        values = [value for value in masks if value in values]
    for value in values:
        mask = masks.get(value)
        if mask is not None:
            some |= mask
    return some


def _quick(values: Values) -> Values:
    """Values that may be searched often: a set when there are many."""
    return values if len(values) < 16 else frozenset(values)


class Shelf(Clause):
    """What an imp offers, as a clause: who has a creative of the media, size and duration of one of the offers. Which
    creative each kind of campaign would show is in `choices`, -1 when none fits, and blocks then narrow the mask."""

    __slots__ = ("_languages", "_offers", "_racks", "_secure", "choices")

    def __init__(self, key: tuple[tuple[Offer, ...], bool, tuple[str, ...] | None]) -> None:
        super().__init__()
        self._offers, self._secure, self._languages = key
        self.choices: Remembered[Kind, int] = Remembered(self._choose, 1000)
        self._racks: dict[str, Rack] = {}

    def rack(self, impid: str) -> Rack:
        """Where bids for an imp of this id are kept ready; one for another id when there were too many ids."""
        rack = self._racks.get(impid)
        if rack is None:
            if len(self._racks) >= _MOST_RACKS:
                return next(iter(self._racks.values()))
            rack = self._racks[impid] = Rack(self, impid)
        return rack

    def mask(self, postings: Postings, used: int) -> int:
        """The slots of a block, of those `used`, that pass."""
        bits = 0
        for (media, w, h, seconds), mask in postings[SHAPE].items():
            for offer in self._offers:
                if (
                    media is offer.media
                    and (not offer.sizes or (w, h) in offer.sizes or any(fits(w, h, size) for size in offer.sizes))
                    and not wrong_duration(seconds, offer)
                ):
                    bits |= mask
                    break
        return bits

    def _choose(self, kind: Kind) -> int:
        return choose(kind.creatives, self._offers, self._secure, self._languages)


class Rack:
    """A shelf and an impid: blocks keep bids ready by it, as most imps of a kind are called alike, "1" or "2"."""

    __slots__ = ("impid", "shelf")

    def __init__(self, shelf: Shelf, impid: str) -> None:
        self.shelf = shelf
        self.impid = impid


class Clauses:
    """The clauses of requests, by the facts they are made from: many requests share them."""

    def __init__(self) -> None:
        """Know none yet."""
        self.audiences: Remembered[_Audience, Clause] = Remembered(_audience, _MOST)
        """Who sees the ad, as far as users have it in common: where they are and what they hold."""
        self.venues: Remembered[tuple[tuple[str, ...], tuple[str, ...]], Clause] = Remembered(_venue, _MOST)
        """Where the ad would stand: domains, categories."""
        self.categories: Remembered[_Categories, Clause] = Remembered(Categories, _MOST)
        """cattax, bcat, acat."""
        self.buyers: Remembered[_Buyers, Clause] = Remembered(_buyers, _MOST)
        """badv, bseat, wseat."""
        self.deals: Remembered[tuple[str, ...], Clause] = Remembered(_invited, _MOST)
        """Deals of a private auction."""
        self.shelves: Remembered[tuple[tuple[Offer, ...], bool, tuple[str, ...] | None], Shelf]
        self.shelves = Remembered(Shelf, _MOST)
        """Offers, secure, languages allowed."""


def _audience(key: _Audience) -> Clause:
    country, region, city, devicetype, os, language, cell, no_segment = key
    cells: tuple[int, ...] = () if cell < 0 else cells_around(cell)
    wanted: list[tuple[int, Values]] = [(COUNTRY, (country,)), (REGION, (region,)), (CITY, (city,)), (CELL, cells)]
    wanted += [(DEVICETYPE, (devicetype,)), (OS, (os,)), (LANGUAGE, (language,))]
    if no_segment:
        wanted.append((SEGMENT, ()))
    return Clause(wanted=wanted)


def _venue(key: tuple[tuple[str, ...], tuple[str, ...]]) -> Clause:
    domains, cats = key
    return Clause(
        wanted=((DOMAIN, domains), (SITE_CAT, cats)),
        barred=((DOMAIN_EXCLUDE, domains), (SITE_CAT_EXCLUDE, cats)),
    )


def _buyers(key: _Buyers) -> Clause:
    adv_blocked, seat_blocked, seat_allowed = key
    return Clause(
        needed=() if seat_allowed is None else ((SEAT, seat_allowed),),
        barred=((SEAT, seat_blocked), (ADVERTISER, ("", *adv_blocked) if adv_blocked else ())),
    )


def _invited(dealids: tuple[str, ...]) -> Clause:
    return Clause(needed=((DEAL, dealids),))


NO_INTEREST, NO_SEGMENT = Clause(wanted=((INTEREST, ()),)), Clause(wanted=((SEGMENT, ()),))
