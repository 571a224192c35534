"""The index: which campaigns fit an imp, best first, at a cost that does not grow with their number.

Campaigns stand in blocks by rank (the higher price first, then the lower id), like the leaves of a B+-tree. In a block
every value that some campaign asks for has a bitmap, a plain integer, of the slots that do; a request ANDs and ORs
those of its own values, block after block from the top, until it has as many advertisers as it wants. What no bitmap
tells (circles, frequency caps, details of creatives and deals) is then checked campaign by campaign.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar

from msgspec import Struct

from rtb.domain import pricing
from rtb.domain.campaign import Campaign, Creative, Status
from rtb.domain.facts import Context, Placement
from rtb.domain.targeting import clauses, deals, geo
from rtb.domain.targeting.block import BITS, SLOTS, Block, Key
from rtb.domain.targeting.clauses import Clause, Shelf
from rtb.domain.targeting.criteria import category_objection
from rtb.domain.targeting.hours import Hours
from rtb.domain.targeting.postings import CELL, INTEREST, KIND, SEAT, SEGMENT, Kind, Posting, postings, traits

_FILL = SLOTS * 3 // 4
_SPARSE = SLOTS // 8
_MOST_REMEMBERED = 4096
_LOWEST: Key = (-(1 << 62), "")
_NO_PLACE: tuple[int, ...] = ()

_T = TypeVar("_T")


class Candidate(Struct, frozen=True, gc=False):
    """A campaign that may bid, the creative it would show, its price in CPM micros, and its deal."""

    campaign: Campaign
    creative: Creative
    price_micros: int
    dealid: str | None = None


class Index:
    """A catalogue that can be asked and changed at any time, in place; not thread-safe.

    `capped` counts the requests whose search was cut short: by `effort`, the most blocks looked at plus campaigns
    checked exactly, a safety net that keeps one request from holding up all others. Its default lets a search see all
    of a million campaigns as long as bitmaps reject them.
    """

    def __init__(self, campaigns: Iterable[Campaign] = (), *, effort: int = 4000) -> None:
        """Build it over the campaigns; of two with the same id the last counts."""
        self.capped = 0
        self._effort = effort
        self._firsts: list[Key] = [_LOWEST]
        self._blocks: list[Block] = [Block(0)]
        self._numbered: dict[int, Block] = {0: self._blocks[0]}
        self._next_number = 1
        self._places: dict[str, int] = {}
        self._dark: set[str] = set()
        self._kinds: dict[Hashable, Kind] = {}
        self._known: dict[int, dict[Any, int]] = {CELL: {}, INTEREST: {}, SEGMENT: {}}
        self._hours = Hours()
        self._shelves: dict[Hashable, Shelf] = {}
        self._clauses: dict[Hashable, Clause] = {}
        self._build(campaigns)

    def __len__(self) -> int:
        return len(self._places)

    def campaigns(self) -> Iterator[Campaign]:
        """Every campaign, in rank."""
        for block in self._blocks:
            for slot in block.slots():
                yield block.campaigns[slot]

    def get(self, campaign_id: str) -> Campaign | None:
        """The campaign, None when it is not here."""
        place = self._places.get(campaign_id)
        return None if place is None else self._numbered[place // SLOTS].campaigns[place % SLOTS]

    def set_live(self, campaign_id: str, live: bool) -> bool:
        """Let a campaign bid or not (budget, pacing), whatever else; whether it is here.

        The flag stays with the id when `put` replaces the campaign, and ends with `remove`.
        """
        place = self._places.get(campaign_id)
        if place is None:
            return False
        if live:
            self._dark.discard(campaign_id)
        else:
            self._dark.add(campaign_id)
        block, slot = self._numbered[place // SLOTS], place % SLOTS
        campaign = block.campaigns[slot]
        if live and campaign.status is Status.ACTIVE:
            block.live |= BITS[slot]
        else:
            block.live &= ~BITS[slot]
        return True

    def put(self, campaign: Campaign) -> None:
        """Insert a campaign, or replace the one of its id."""
        self._take(campaign.id)
        self._place(campaign)

    def remove(self, campaign_id: str) -> Campaign | None:
        """Take a campaign out; what it was, None when it was not here."""
        self._dark.discard(campaign_id)
        return self._take(campaign_id)

    def match(self, context: Context, placement: Placement, *, limit: int = 10) -> list[Candidate]:
        """The best campaigns for an imp, one an advertiser, by price from the top and then by id.

        Args:
            context: the facts of the request.
            placement: the facts of the imp.
            limit: the most advertisers.
        """
        found: list[Candidate] = []
        seats: set[str] = set()
        shelf = self._shelf(context, placement)
        strict = self._strict(context, placement, shelf)
        loose = self._loose(context)
        lowest = placement.floor_micros if placement.terms is None else placement.lowest_micros
        now, effort = context.now, self._effort
        exact = placement.private or placement.terms is not None or context.cat_allowed is not None
        exact = exact or bool(context.frequency)
        for block in self._blocks:
            if block.bound < lowest or limit <= 0:
                break
            effort -= 1
            if effort < 0:
                self.capped += 1
                break
            if not block.since <= now < block.until:
                block.tell_time(now, self._hours)
            bits = block.live & block.timely
            if not bits:
                continue
            masks = block.masks
            for clause in strict:
                mask = masks.get(clause)
                bits &= block.mask(clause) if mask is None else mask
                if not bits:
                    break
            else:
                for dimension, values in loose:
                    posted = block.postings[dimension]
                    marked = posted.get(None)
                    if marked is not None:
                        some = block.used ^ marked
                        for value in values:
                            mask = posted.get(value)
                            if mask is not None:
                                some |= mask
                        bits &= some
                        if not bits:
                            break
            if not bits:
                continue
            for number, stratum in enumerate(block.strata):
                some = bits & stratum
                if not some:
                    continue
                slots = []
                while some:
                    slot = some.bit_length() - 1
                    some ^= BITS[slot]
                    slots.append(slot)
                if len(slots) > 1 and not block.tidy[number]:
                    slots.sort(key=block.key)
                effort -= len(slots)
                for slot in slots:
                    price = block.prices[slot]
                    if price < lowest:
                        return found
                    campaign = block.campaigns[slot]
                    kind = block.kinds[slot]
                    seat = campaign.advertiser
                    if seat in seats:
                        bits &= ~block.postings[SEAT][seat]
                        continue
                    choice = shelf.choices.get(kind)
                    if choice is None:
                        choice = shelf.choice(kind)
                    if choice < 0:
                        bits &= ~block.postings[KIND][kind]
                        continue
                    creative = campaign.creatives[choice]
                    dealid = None
                    if exact or campaign.targeting.geo:
                        fits, dealid = _fits(campaign, creative, price, context, placement)
                        if not fits:
                            continue
                    found.append(Candidate(campaign, creative, price, dealid))
                    if len(found) == limit:
                        return found
                    seats.add(seat)
        return found

    def _shelf(self, context: Context, placement: Placement) -> Shelf:
        key = (placement.offers, placement.secure, context.language_allowed)
        shelf = self._shelves.get(key)
        if shelf is None:
            shapes = clauses.shapes(placement)
            clause = self._clauses.get(shapes) or _remember(self._clauses, shapes, clauses.in_shape(shapes))
            shelf = _remember(self._shelves, key, Shelf(placement, context.language_allowed, clause))
        return shelf

    def _strict(self, context: Context, placement: Placement, shelf: Shelf) -> list[Clause]:
        """What a campaign must pass, in clauses that many requests share."""
        known = self._clauses
        found = [shelf.shapes]
        if (
            context.cat_blocked
            or context.adv_blocked
            or context.seat_blocked
            or context.cat_allowed is not None
            or context.seat_allowed is not None
        ):
            lists = (
                context.cat_blocked,
                context.cat_allowed,
                context.cattax,
                context.adv_blocked,
                context.seat_allowed,
                context.seat_blocked,
            )
            clause = known.get(lists)
            found.append(_remember(known, lists, clauses.blocks(context)) if clause is None else clause)
        if placement.private:
            found.append(clauses.deals(placement))
        key: Hashable = (context.country, context.region, context.city)
        clause = known.get(key)
        found.append(_remember(known, key, clauses.place(context)) if clause is None else clause)
        key = (context.domains, context.site_cats)
        clause = known.get(key)
        found.append(_remember(known, key, clauses.venue(context)) if clause is None else clause)
        key = (context.devicetype, context.os, context.language)
        clause = known.get(key)
        found.append(_remember(known, key, clauses.device(context)) if clause is None else clause)
        return found

    def _loose(self, context: Context) -> list[tuple[int, Iterable[Any]]]:
        """What differs from request to request, only as far as some campaign cares."""
        found: list[tuple[int, Iterable[Any]]] = []
        known = self._known[INTEREST]
        if known:
            found.append((INTEREST, [name for name in context.interests if name in known]))
        if self._known[CELL]:
            if context.lat is None or context.lon is None:
                found.append((CELL, _NO_PLACE))
            else:
                found.append((CELL, geo.cells_of_point(context.lat, context.lon)))
        known = self._known[SEGMENT]
        if known:
            found.append((SEGMENT, [name for name in context.segments if name in known]))
        return found

    def _build(self, campaigns: Iterable[Campaign]) -> None:
        """Fill an empty index, three quarters of every block."""
        latest = {campaign.id: campaign for campaign in campaigns}
        ranked = sorted([(-pricing.bound(campaign), name) for name, campaign in latest.items()])
        for first in range(0, len(ranked), _FILL):
            block = self._blocks[0] if first == 0 else self._new_block(len(self._blocks), ranked[first])
            part = ranked[first : first + _FILL]
            for slot, (price, name) in zip(range(len(part) - 1, -1, -1), part, strict=True):
                campaign = latest[name]
                kind = self._kind(campaign)
                posted = postings(campaign, kind)
                self._count(posted, 1)
                block.fill(slot, campaign, -price, kind, posted, live=campaign.status is Status.ACTIVE)
                self._places[name] = block.number * SLOTS + slot
            block.stratify()

    def _place(self, campaign: Campaign) -> None:
        price = pricing.bound(campaign)
        rank = bisect_right(self._firsts, (-price, campaign.id)) - 1
        block = self._blocks[rank]
        if len(block) == SLOTS:
            self._split(rank)
            rank = bisect_right(self._firsts, (-price, campaign.id)) - 1
            block = self._blocks[rank]
        kind = self._kind(campaign)
        posted = postings(campaign, kind)
        self._count(posted, 1)
        live = campaign.status is Status.ACTIVE and campaign.id not in self._dark
        slot = block.add(campaign, price, kind, posted, live=live)
        self._places[campaign.id] = block.number * SLOTS + slot

    def _take(self, campaign_id: str) -> Campaign | None:
        place = self._places.pop(campaign_id, None)
        if place is None:
            return None
        block, slot = self._numbered[place // SLOTS], place % SLOTS
        campaign, kind = block.campaigns[slot], block.kinds[slot]
        posted = postings(campaign, kind)
        self._count(posted, -1)
        rank = bisect_right(self._firsts, block.key(slot)) - 1
        block.take(slot, posted)
        kind.users -= 1
        if not kind.users:
            del self._kinds[traits(campaign)]
        if len(block) < _SPARSE and len(self._blocks) > 1:
            self._merge(rank)
        return campaign

    def _split(self, rank: int) -> None:
        upper = self._blocks[rank]
        lower = upper.split(self._next_number)
        self._next_number += 1
        slots = lower.slots()
        self._insert_block(rank + 1, lower, lower.key(slots[0]))
        for slot in slots:
            self._places[lower.campaigns[slot].id] = lower.number * SLOTS + slot

    def _merge(self, rank: int) -> None:
        """Move what little is left in a block into a neighbour that has room."""
        block = self._blocks[rank]
        other = rank - 1 if rank else 1
        into = self._blocks[other]
        if len(block) + len(into) > _FILL:
            return
        for slot in block.slots():
            campaign, kind = block.campaigns[slot], block.kinds[slot]
            live = bool(block.live & BITS[slot])
            moved = into.add(campaign, block.prices[slot], kind, postings(campaign, kind), live=live)
            self._places[campaign.id] = into.number * SLOTS + moved
        into.stratify()
        del self._blocks[rank], self._numbered[block.number]
        del self._firsts[rank]
        self._firsts[0] = _LOWEST

    def _new_block(self, rank: int, first: Key) -> Block:
        block = Block(self._next_number)
        self._next_number += 1
        self._insert_block(rank, block, first)
        return block

    def _insert_block(self, rank: int, block: Block, first: Key) -> None:
        self._blocks.insert(rank, block)
        self._firsts.insert(rank, first)
        self._numbered[block.number] = block

    def _kind(self, campaign: Campaign) -> Kind:
        key = traits(campaign)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(campaign.creatives)
        kind.users += 1
        return kind

    def _count(self, posted: Iterable[Posting], step: int) -> None:
        """Keep the values that any campaign cares about, where a request may bring many others."""
        for dimension, value in posted:
            known = self._known.get(dimension)
            if known is not None:
                count = known.get(value, 0) + step
                if count:
                    known[value] = count
                else:
                    del known[value]


def _fits(
    campaign: Campaign, creative: Creative, price: int, context: Context, placement: Placement
) -> tuple[bool, str | None]:
    """What the bitmaps do not tell, and the deal."""
    targeting = campaign.targeting
    if targeting.geo and (
        context.lat is None or context.lon is None or not geo.inside(targeting.geo, context.lat, context.lon)
    ):
        return False, None
    cap = campaign.frequency_cap
    if cap is not None and context.frequency.get(campaign.id, 0) >= cap.count:
        return False, None
    if context.cat_allowed is not None and category_objection(campaign, context):
        return False, None
    if placement.terms is None:
        return price >= placement.floor_micros, None
    if placement.private and not deals.admitted(campaign, placement):
        return False, None
    dealid, floor = deals.settle(campaign, creative, price, placement)
    return price >= floor, dealid


def _remember(table: dict[Hashable, _T], key: Hashable, value: _T) -> _T:
    if len(table) >= _MOST_REMEMBERED:
        table.clear()
    table[key] = value
    return value
