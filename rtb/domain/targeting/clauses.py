"""A request as clauses: what a campaign must, may not, or must if it cares, be posted under."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from rtb.domain.facts import Context, Placement
from rtb.domain.targeting.creatives import choose
from rtb.domain.targeting.postings import (
    ADVERTISER,
    CATEGORY,
    CITY,
    COUNTRY,
    DEAL,
    DEVICETYPE,
    DOMAIN,
    DOMAIN_EXCLUDE,
    LANGUAGE,
    OS,
    REGION,
    SEAT,
    SHAPE,
    SITE_CAT,
    SITE_CAT_EXCLUDE,
    Kind,
)

Values = Sequence[Hashable]


class Clause:
    """Conditions that are looked up together and whose bitmap every block remembers. Compared by identity.

    A campaign passes when for every `needed` (dimension, values) it is posted under one of the values; for every
    `wanted` (dimension, mark, values) it is posted under one of the values or not under the mark; and under no
    `barred` value.
    """

    __slots__ = ("_barred", "_needed", "_wanted")

    def __init__(
        self,
        *,
        needed: Sequence[tuple[int, Values]] = (),
        wanted: Sequence[tuple[int, Hashable, Values]] = (),
        barred: Sequence[tuple[int, Values]] = (),
    ) -> None:
        self._needed = needed
        self._wanted = wanted
        self._barred = barred

    def mask(self, postings: Sequence[dict[Any, int]], full: int) -> int:
        """The slots of a block with these postings that pass."""
        bits = full
        for dimension, values in self._needed:
            masks = postings[dimension]
            some = 0
            for value in values:
                some |= masks.get(value, 0)
            bits &= some
        for dimension, mark, values in self._wanted:
            masks = postings[dimension]
            marked = masks.get(mark)
            if marked is not None:
                some = full ^ marked
                for value in values:
                    some |= masks.get(value, 0)
                bits &= some
        for dimension, values in self._barred:
            masks = postings[dimension]
            if masks:
                for value in values:
                    mask = masks.get(value)
                    if mask is not None:
                        bits &= full ^ mask
        return bits


class Shelf:
    """The offers of an imp: the shapes they take, and which creative of a kind of campaign they choose."""

    __slots__ = ("_languages", "_offers", "_secure", "choices", "shapes")

    def __init__(self, placement: Placement, languages: Sequence[str] | None, shapes: Clause) -> None:
        self._offers = placement.offers
        self._secure = placement.secure
        self._languages = languages
        self.choices: dict[Kind, int] = {}
        self.shapes = shapes

    def choice(self, kind: Kind) -> int:
        """The index of the creative to show, -1 when none fits."""
        choice = self.choices.get(kind)
        if choice is None:
            if len(self.choices) >= 1000:
                self.choices.clear()
            choice = self.choices[kind] = choose(kind.creatives, self._offers, self._secure, self._languages)
        return choice


def venue(context: Context) -> Clause:
    """Where the ad would stand."""
    return Clause(
        wanted=((DOMAIN, None, context.domains), (SITE_CAT, None, context.site_cats)),
        barred=((DOMAIN_EXCLUDE, context.domains), (SITE_CAT_EXCLUDE, context.site_cats)),
    )


def place(context: Context) -> Clause:
    """Where the user is."""
    return Clause(
        wanted=(
            (COUNTRY, None, (context.country,)),
            (REGION, None, (context.region,)),
            (CITY, None, (context.city,)),
        )
    )


def device(context: Context) -> Clause:
    """What the user holds."""
    return Clause(
        wanted=(
            (DEVICETYPE, None, (context.devicetype,)),
            (OS, None, (context.os,)),
            (LANGUAGE, None, (context.language,)),
        )
    )


def blocks(context: Context) -> Clause:
    """Whom the publisher lets in."""
    needed = [] if context.seat_allowed is None else [(SEAT, context.seat_allowed)]
    tax = context.cattax
    wanted = []
    if context.cat_allowed is not None:  # necessary, not sufficient: all categories must be allowed
        wanted.append((CATEGORY, tax, tuple((tax, cat) for cat in context.cat_allowed)))
    barred: list[tuple[int, Values]] = [(SEAT, context.seat_blocked)]
    barred.append((CATEGORY, tuple((tax, cat) for cat in context.cat_blocked)))
    if context.adv_blocked:
        barred.append((ADVERTISER, ("", *context.adv_blocked)))
    return Clause(needed=needed, wanted=wanted, barred=barred)


def deals(placement: Placement) -> Clause:
    """Who is invited to a private auction."""
    return Clause(needed=((DEAL, placement.deals),))


def in_shape(shapes: tuple[Hashable, ...]) -> Clause:
    """Who has a creative of one of the shapes."""
    return Clause(needed=((SHAPE, shapes),))


def shapes(placement: Placement) -> tuple[Hashable, ...]:
    """The shapes a creative may have."""
    found: dict[Hashable, None] = {}
    for offer in placement.offers:
        if offer.sizes:
            found[(offer.media, 0, 0)] = None
            for w, h in offer.sizes:
                found[(offer.media, w, h)] = None
        else:
            found[offer.media] = None
    return tuple(found)
