"""A block of the index: up to 1024 campaigns next to each other in rank, as bitmaps over their slots.

Campaigns rank by `Key`: the higher price first, then the lower id. Within a block they lie in a few strata, each a
bitmap of slots whose keys are between two bounds, so that the best are looked at first without keeping all in order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, cast

from rtb.domain.campaign import Campaign
from rtb.domain.targeting.clauses import Clause
from rtb.domain.targeting.hours import Hours
from rtb.domain.targeting.postings import DIMENSIONS, END, SCHEDULE, START, Kind, Posting

Key = tuple[int, str]

SLOTS = 1024
BITS = tuple(1 << slot for slot in range(SLOTS))
_STRATA = 8
_CROWDED = SLOTS // _STRATA * 2
_MOST_MASKS = 256
_EMPTY: list[Any] = [None]  # a slot that is not used, which nothing reads


class Block:
    """Bitmaps and slots. `live` has the campaigns that may bid, `timely` those in flight and open at any time from
    `since` until before `until` (Unix seconds); `bound` is no lower than any price in CPM micros."""

    __slots__ = (
        "bound",
        "bounds",
        "campaigns",
        "kinds",
        "live",
        "masks",
        "number",
        "postings",
        "prices",
        "since",
        "strata",
        "tidy",
        "timely",
        "until",
        "used",
    )

    def __init__(self, number: int) -> None:
        """An empty block; `number` names it for good, wherever it moves in rank."""
        self.number = number
        self.bound = 0
        self.used = 0
        self.live = 0
        self.timely = 0
        self.since = math.inf
        self.until = -math.inf
        self.campaigns = cast("list[Campaign]", _EMPTY * SLOTS)
        self.prices = [0] * SLOTS
        self.kinds = cast("list[Kind]", _EMPTY * SLOTS)
        self.postings: list[dict[Any, int]] = [{} for _ in range(DIMENSIONS)]
        self.strata = [0] * _STRATA
        self.bounds: list[Key] = [(-(1 << 62), "")] * _STRATA
        self.tidy = [True] * _STRATA
        self.masks: dict[Clause, int] = {}

    def __len__(self) -> int:
        return self.used.bit_count()

    def key(self, slot: int) -> Key:
        """The rank of the campaign in a slot."""
        return -self.prices[slot], self.campaigns[slot].id

    def add(self, campaign: Campaign, price: int, kind: Kind, postings: Iterable[Posting], *, live: bool) -> int:
        """Put a campaign into a free slot; there must be one. The slot."""
        free = ~self.used
        slot = (free & -free).bit_length() - 1
        self.fill(slot, campaign, price, kind, postings, live=live)
        key = (-price, campaign.id)
        stratum = bisect_right(self.bounds, key) - 1
        self.strata[stratum] |= BITS[slot]
        self.tidy[stratum] = False
        if self.strata[stratum].bit_count() > _CROWDED:
            self.stratify()
        return slot

    def fill(
        self, slot: int, campaign: Campaign, price: int, kind: Kind, postings: Iterable[Posting], *, live: bool
    ) -> None:
        """Put a campaign into this slot, which is free, and leave the strata to the caller."""
        bit = BITS[slot]
        of_dimension = self.postings
        for dimension, value in postings:
            masks = of_dimension[dimension]
            masks[value] = masks.get(value, 0) | bit
        self.campaigns[slot] = campaign
        self.prices[slot] = price
        self.kinds[slot] = kind
        self.used |= bit
        if live:
            self.live |= bit
        if price > self.bound:
            self.bound = price
        self.until = -math.inf
        if self.masks:
            self.masks.clear()

    def take(self, slot: int, postings: Iterable[Posting]) -> None:
        """Empty a slot, whose campaign is posted under `postings`. What is remembered of it is masked by `live`."""
        bit = BITS[slot]
        stratum = bisect_right(self.bounds, self.key(slot)) - 1
        self.strata[stratum] &= ~bit
        of_dimension = self.postings
        for dimension, value in postings:
            masks = of_dimension[dimension]
            mask = masks.get(value, 0)
            if mask & bit:
                if mask == bit:
                    del masks[value]
                else:
                    masks[value] = mask ^ bit
        self.campaigns[slot : slot + 1] = self.kinds[slot : slot + 1] = _EMPTY
        self.used &= ~bit
        self.live &= ~bit

    def mask(self, clause: Clause) -> int:
        """The slots that the clause lets through, remembered until the block takes in another campaign."""
        mask = self.masks.get(clause)
        if mask is None:
            mask = clause.mask(self.postings, self.used)
            if len(self.masks) >= _MOST_MASKS:
                self.masks.clear()
            self.masks[clause] = mask
        return mask

    def tell_time(self, now: float, hours: Hours) -> None:
        """Bring `timely` up to date."""
        since, until = -math.inf, math.inf
        closed = 0
        for start, mask in self.postings[START].items():
            if start > now:
                closed |= mask
                until = min(until, start)
            else:
                since = max(since, start)
        for end, mask in self.postings[END].items():
            if end <= now:
                closed |= mask
                since = max(since, end)
            else:
                until = min(until, end)
        for (timezone, schedule), mask in self.postings[SCHEDULE].items():
            hour, begin, finish = hours.at(timezone, now)
            if not schedule >> hour & 1:
                closed |= mask
            since, until = max(since, begin), min(until, finish)
        self.timely = self.used & ~closed
        self.since, self.until = since, until

    def slots(self) -> list[int]:
        """Used slots, best rank first."""
        return sorted((slot for slot in range(SLOTS) if self.used >> slot & 1), key=self.key)

    def stratify(self) -> None:
        """Even out the strata."""
        slots = self.slots()
        size = max(1, -(-len(slots) // _STRATA))
        for number in range(_STRATA):
            part = slots[number * size : (number + 1) * size]
            self.strata[number] = sum(BITS[slot] for slot in part)
            self.tidy[number] = part == sorted(part, reverse=True)
            if number and part:
                self.bounds[number] = self.key(part[0])
            elif number:
                self.bounds[number] = (1 << 62, "")

    def split(self, number: int) -> Block:
        """Move the lower half into a new block, slot by slot as they are."""
        slots = self.slots()
        lower = Block(number)
        moved = 0
        for slot in slots[len(slots) // 2 :]:
            moved |= BITS[slot]
            lower.campaigns[slot], lower.kinds[slot] = self.campaigns[slot], self.kinds[slot]
            lower.prices[slot] = self.prices[slot]
            self.campaigns[slot : slot + 1] = self.kinds[slot : slot + 1] = _EMPTY
        lower.used, lower.live = self.used & moved, self.live & moved
        lower.bound = lower.prices[slots[len(slots) // 2]]
        self.used ^= lower.used
        self.live ^= lower.live
        for dimension, masks in enumerate(self.postings):
            kept, given = {}, {}
            for value, mask in masks.items():
                theirs = mask & moved
                if theirs:
                    given[value] = theirs
                if theirs != mask:
                    kept[value] = mask ^ theirs
            self.postings[dimension], lower.postings[dimension] = kept, given
        self.stratify()
        lower.stratify()
        return lower
