"""A block of the index: up to 1024 campaigns next to each other in rank, as bitmaps over their slots.

Campaigns rank by `Key`: the higher price first, then the lower id. Within a block they lie in a few strata, each a
bitmap of slots whose keys are between two bounds, so that the best are looked at first without keeping all in order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, cast

from msgspec import Struct

from rtb.domain.auction import HOUSE, Bid
from rtb.domain.campaign import Campaign, Creative
from rtb.domain.frequency import Cap, caps
from rtb.domain.markup import MARKUP_TYPE
from rtb.domain.remembered import Remembered
from rtb.domain.targeting.clauses import Clause, Rack, Words
from rtb.domain.targeting.geo import Around, around
from rtb.domain.targeting.hours import Hours
from rtb.domain.targeting.postings import DIMENSIONS, END, KIND, SCHEDULE, START, Kind, Posting

Key = tuple[int, str]
"""Minus the most it bids in CPM micros, and the id: smaller is better."""
Entry = tuple[int, str, Campaign, Kind]
"""A key and what it is the key of. Ids are unique, so that keys decide order."""

SLOTS = 1024
BITS = tuple(1 << slot for slot in range(SLOTS))
FIRST: Key = (-(1 << 62), "")
_LAST: Key = (1 << 62, "")
_STRATA = 8
_CROWDED = SLOTS // _STRATA * 2
_MOST_MASKS = 1024
_MOST_RACKS = 1024
_MOST_MADE = 16_384  # a third of a KB each; 4,000 requests of 1 KB for 10,000 campaigns need 6,000 in the first block
_EMPTY: list[Any] = [None]  # a slot that is not used, which nothing reads


def entry(campaign: Campaign, kind: Kind) -> Entry:
    """What a slot holds of a campaign."""
    return -campaign.top_micros, campaign.id, campaign, kind


class Prepared(Struct, gc=False):
    """What answers keep of an ad, once it has won: the part of a bid on the wire that is always the same.

    For a tracker at `base` it has gaps, `parts` between which the token of a win belongs, and `end` after its `exp`.
    """

    tail: bytes = b""
    base: str = ""
    parts: Sequence[bytes] = ()
    end: bytes = b""


class Candidate(Bid, kw_only=True):
    """A house campaign's bid for an imp, with the campaign and the creative it would show. The next auction may be
    given the same; one for another imp shares what is `prepared`."""

    campaign: Campaign
    creative: Creative
    prepared: Prepared
    caps: Sequence[Cap] = ()
    """The campaign's frequency caps."""


def candidate(campaign: Campaign, creative: Creative, price_micros: int, dealid: str | None, impid: str) -> Candidate:
    """The bid of a campaign: the advertiser is the seat, the house the bidder."""
    return Candidate(
        impid=impid,
        seat=campaign.advertiser,
        price_micros=price_micros,
        bidder=HOUSE,
        dealid=dealid,
        adomain=campaign.adomain,
        mtype=int(MARKUP_TYPE[creative.media]),
        dur=creative.dur,
        campaign=campaign,
        creative=creative,
        prepared=Prepared(),
        caps=caps(campaign),
    )


class Special(Struct, gc=False):
    """What sets few campaigns apart from those that bitmaps and one counter tell all about."""

    circles: Sequence[Around]
    caps: Sequence[Cap]
    """But for the one whose counter is in `Ready`."""
    optimises: bool
    paces: bool


Ready = tuple[Candidate, str, str, int, Special | None]
"""A bid made before, its seat; the counter of its campaign's frequency cap and how far it may go ("" and 0 without
one); and what else is to be checked."""


def _ready(bid: Candidate) -> Ready:
    campaign = bid.campaign
    first, *others = bid.caps or (_NO_CAP,)
    circles, optimises, paces = around(campaign.targeting.geo), campaign.optimises, campaign.paces
    special = Special(circles, others, optimises, paces) if circles or others or optimises or paces else None
    return bid, bid.seat, first.counter, first.count, special


_NO_CAP = Cap("", 0, 0)


class Block:
    """Bitmaps and slots. `live` has the campaigns that may bid, `timely` those in flight and open at any time from
    `since` until before `until` (Unix seconds); `bound` is no lower than any price in CPM micros. In a `tidy` block
    the higher slot has the better rank."""

    __slots__ = (
        "_asof",
        "_bounds",
        "_flights",
        "_flying",
        "_made",
        "_ready",
        "_strata",
        "bound",
        "entries",
        "live",
        "made",
        "mask_of",
        "masks",
        "number",
        "postings",
        "since",
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
        self.entries = cast("list[Entry]", _EMPTY * SLOTS)
        self.postings: list[dict[Any, int]] = [{} for _ in range(DIMENSIONS)]
        self.masks: Remembered[Clause, int] = Remembered(self._mask, _MOST_MASKS)
        """The slots that a clause lets through, until the block takes in another campaign."""
        self.mask_of = self.masks.__getitem__  # a subscript of a dictionary's subclass costs twice as much
        self.made: Remembered[Rack, dict[int, Ready]] = Remembered(lambda _: {}, _MOST_RACKS)
        """The bids made before, by what the imp offers and is called, and by slot."""
        self._made = 0
        self._ready = 0  # the slots that have bids there
        self._asof = 0.0
        self._flying = 0
        self._flights = math.inf, -math.inf
        self._strata = [0] * _STRATA
        self._bounds = [FIRST, *[_LAST] * (_STRATA - 1)]
        self.tidy = False

    def __len__(self) -> int:
        return self.used.bit_count()

    def add(self, row: Entry, postings: Iterable[Posting], *, live: bool) -> int:
        """Put a campaign into a free slot, of which there must be one; which."""
        free = ~self.used
        slot = (free & -free).bit_length() - 1
        self.fill(slot, row, postings, live=live)
        self.tidy = False
        self._tell_time_of(row[2], BITS[slot])
        stratum = bisect_right(self._bounds, row[:2]) - 1
        self._strata[stratum] |= BITS[slot]
        if self._strata[stratum].bit_count() > _CROWDED:
            self.stratify()
        return slot

    def fill(self, slot: int, row: Entry, postings: Iterable[Posting], *, live: bool) -> None:
        """Put a campaign into this slot, which is free, and leave strata and time to the caller."""
        bit = BITS[slot]
        of_dimension = self.postings
        for dimension, value in postings:
            masks = of_dimension[dimension]
            masks[value] = masks.get(value, 0) | bit
        self.entries[slot] = row
        self.used |= bit
        if live:
            self.live |= bit
        if -row[0] > self.bound:
            self.bound = -row[0]
        if self.masks:
            self.masks.clear()

    def take(self, slot: int, postings: Iterable[Posting]) -> None:
        """Empty a slot, whose campaign is posted under `postings`. What is remembered of it is masked by `live`."""
        bit = BITS[slot]
        self._strata[bisect_right(self._bounds, self.entries[slot][:2]) - 1] ^= bit
        of_dimension = self.postings
        for dimension, value in postings:
            masks = of_dimension[dimension]
            mask = masks.get(value, 0)
            if mask & bit:
                if mask == bit:
                    del masks[value]
                else:
                    masks[value] = mask ^ bit
        self.entries[slot : slot + 1] = _EMPTY
        self._forget(slot)
        self.used ^= bit
        self.live &= ~bit

    def replace(self, slot: int, row: Entry, *, live: bool) -> None:
        """Give a slot the next version of its campaign, posted under the same: only price and status may differ."""
        bit = BITS[slot]
        old = self.entries[slot]
        self.entries[slot] = row
        self._forget(slot)
        self.live = self.live | bit if live else self.live & ~bit
        if row[:2] == old[:2]:
            return
        self.tidy = False
        if -row[0] > self.bound:
            self.bound = -row[0]
        self._strata[bisect_right(self._bounds, old[:2]) - 1] ^= bit
        stratum = bisect_right(self._bounds, row[:2]) - 1
        self._strata[stratum] |= bit
        if self._strata[stratum].bit_count() > _CROWDED:
            self.stratify()

    def order(self, bits: int) -> list[int]:
        """The best of some slots, of which there must be one, the best of all last."""
        some = next(filter(None, map(bits.__and__, self._strata)))
        slots = []
        while some:
            slot = some.bit_length() - 1
            some ^= BITS[slot]
            slots.append(slot)
        slots.sort(key=self.entries.__getitem__, reverse=True)
        return slots

    def make(self, slot: int, rack: Rack) -> Ready | None:
        """A bid, kept for the next time; None when the campaign has no creative to show, and with it all of its kind,
        which the shelf's mask then leaves out."""
        minus_price, _, campaign, kind = self.entries[slot]
        choice = rack.shelf.choices[kind]
        if choice < 0:
            self.masks[rack.shelf] &= ~self.postings[KIND][kind]
            return None
        if self._made >= _MOST_MADE:
            self._forget_half()
        self._made += 1
        self._ready |= BITS[slot]
        ready = _ready(candidate(campaign, campaign.creatives[choice], -minus_price, None, rack.impid))
        self.made[rack][slot] = ready
        return ready

    def _forget(self, slot: int) -> None:
        if self._ready & BITS[slot]:
            self._ready ^= BITS[slot]
            for made in self.made.values():
                made.pop(slot, None)

    def _forget_half(self) -> None:
        for rack in [*self.made][: (len(self.made) + 1) // 2]:
            del self.made[rack]
        self._made = sum(map(len, self.made.values()))

    def fitting(self, clauses: Sequence[Clause], words: Sequence[Words]) -> int:
        """The slots that may bid now, that every clause lets through, and that want in every dimension of `words` one
        of these, or none in particular."""
        bits, mask_of = self.live & self.timely, self.mask_of
        for clause in clauses:
            bits &= mask_of(clause)
        for nothing, dimension, values in words:
            met, wanted = mask_of(nothing), self.postings[dimension]
            for value in values:
                if value in wanted:
                    met |= wanted[value]
            bits &= met
        return bits

    def _mask(self, clause: Clause) -> int:
        return clause.mask(self.postings, self.used)

    def tell_time(self, now: float, hours: Hours) -> None:
        """Bring `timely` up to date."""
        since, until = self._flights
        if not since <= now < until:
            self._tell_flights(now)
            since, until = self._flights
        closed = 0
        for (timezone, schedule), mask in self.postings[SCHEDULE].items():
            hour, begin, finish = hours.at(timezone, now)
            if not schedule >> hour & 1:
                closed |= mask
            if begin > since:
                since = begin
            if finish < until:
                until = finish
        self.timely = self._flying & ~closed
        self.since, self.until = since, until

    def _tell_flights(self, now: float) -> None:
        """Who is in flight, and from when until when nobody takes off or lands."""
        since, until = -math.inf, math.inf
        grounded = 0
        for start, mask in self.postings[START].items():
            if start > now:
                grounded |= mask
                if start < until:
                    until = start
            elif start > since:
                since = start
        for end, mask in self.postings[END].items():
            if end <= now:
                grounded |= mask
                if end > since:
                    since = end
            elif end < until:
                until = end
        self._flying = self.used & ~grounded
        self._flights = since, until
        self._asof = now

    def _tell_time_of(self, campaign: Campaign, bit: int) -> None:
        """Count in a campaign that has just come, as of the time the flights were last told."""
        since, until = self._flights
        flying = True
        if campaign.start is not None:
            start = campaign.start.timestamp()
            if start > self._asof:
                flying, until = False, min(until, start)
            else:
                since = max(since, start)
        if campaign.end is not None:
            end = campaign.end.timestamp()
            if end <= self._asof:
                flying, since = False, max(since, end)
            else:
                until = min(until, end)
        self._flying = self._flying | bit if flying else self._flying & ~bit
        self._flights = since, until
        self.until = -math.inf  # `timely` is told anew, which costs little without the flights

    def slots(self) -> list[int]:
        """Used slots, best rank first."""
        return sorted([slot for slot in range(SLOTS) if self.used & BITS[slot]], key=self.entries.__getitem__)

    def stratify(self) -> list[int]:
        """Even out the strata; the used slots, best rank first."""
        slots = self.slots()
        size = max(1, -(-len(slots) // _STRATA))
        for number in range(_STRATA):
            part = slots[number * size : (number + 1) * size]
            self._strata[number] = sum([BITS[slot] for slot in part])
            if number:
                self._bounds[number] = self.entries[part[0]][:2] if part else _LAST
        self.tidy = slots == sorted(slots, reverse=True)
        return slots

    def split(self, number: int) -> Block:
        """Move the lower half into a new block, slot by slot as they are."""
        slots = self.slots()
        lower = Block(number)
        moved = 0
        for slot in slots[len(slots) // 2 :]:
            moved |= BITS[slot]
            lower.entries[slot] = self.entries[slot]
            self.entries[slot : slot + 1] = _EMPTY
        self.made.clear()
        lower.used, lower.live = self.used & moved, self.live & moved
        lower.bound = -lower.entries[slots[len(slots) // 2]][0]
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
