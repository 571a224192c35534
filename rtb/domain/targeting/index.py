"""The index: which campaigns fit an imp, best first, at a cost that does not grow with their number.

Campaigns stand in blocks by rank (the higher price first, then the lower id), like the leaves of a B+-tree. In a block
every value that some campaign asks for has a bitmap, a plain integer, of the slots that do; a request ANDs and ORs
those of its own values, block after block from the top, until it has as many advertisers as it wants. What no bitmap
tells (circles, frequency caps, details of creatives and deals) is then checked campaign by campaign
(rtb.domain.targeting.search). The price that ranks a campaign is the most it bids.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator

from rtb.domain.campaign import Campaign, Status
from rtb.domain.facts import Context, Placement
from rtb.domain.targeting import geo
from rtb.domain.targeting.block import BITS, FIRST, SLOTS, Block, Candidate, Key, entry
from rtb.domain.targeting.clauses import NO_INTEREST, NO_SEGMENT, NOWHERE, Clause, Clauses, Shelf, Words
from rtb.domain.targeting.hours import Hours
from rtb.domain.targeting.postings import INTEREST, SEGMENT, Kind, Posting, alike, postings, traits
from rtb.domain.targeting.search import Admits, Search

_FILL = SLOTS * 3 // 4
_SPARSE = SLOTS // 8
_FEW = 8


class Index:
    """A catalogue that can be asked and changed at any time, in place; not thread-safe.

    `capped` counts the requests whose search was cut short: by `effort`, the most blocks looked at plus campaigns
    that did not fit after all, a safety net that keeps one request from holding up all others. Its default lets a
    search see all of a million campaigns as long as bitmaps reject them.
    """

    def __init__(self, campaigns: Iterable[Campaign] = (), *, effort: int = 4000) -> None:
        """Build it over the campaigns; of two with the same id the last counts."""
        self.capped = 0
        self._effort = effort
        self._firsts: list[Key] = [FIRST]
        self._blocks: list[Block] = [Block(0)]
        self._numbered: dict[int, Block] = {0: self._blocks[0]}
        self._next_number = 1
        self._places: dict[str, int] = {}
        self._dark: set[str] = set()
        self._kinds: dict[Hashable, Kind] = {}
        self._interests: dict[str, int] = {}
        self._segments: dict[str, int] = {}
        self._circled = 0
        self._hours = Hours()
        self._clauses = Clauses()
        self._build(campaigns)

    def __len__(self) -> int:
        return len(self._places)

    def campaigns(self) -> Iterator[Campaign]:
        """Every campaign, in rank."""
        for block in self._blocks:
            for slot in block.slots():
                yield block.entries[slot][2]

    def get(self, campaign_id: str) -> Campaign | None:
        """The campaign, None when it is not here."""
        place = self._places.get(campaign_id)
        return None if place is None else self._numbered[place // SLOTS].entries[place % SLOTS][2]

    def set_live(self, campaign_id: str, live: bool) -> bool:
        """Let a campaign bid or not (budget), whatever else; whether it is here.

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
        if live and block.entries[slot][2].status is Status.ACTIVE:
            block.live |= BITS[slot]
        else:
            block.live &= ~BITS[slot]
        return True

    def put(self, campaign: Campaign) -> None:
        """Insert a campaign, or replace the one of its id."""
        place = self._places.get(campaign.id)
        if place is None:
            kind = self._kind(campaign)
            self._count(campaign, 1)
            self._insert(campaign, kind, postings(campaign, kind))
            return
        block, slot = self._numbered[place // SLOTS], place % SLOTS
        old, kind = block.entries[slot][2:4]
        if alike(old, campaign):
            row = entry(campaign, kind)
            if self._blocks[bisect_right(self._firsts, row[:2]) - 1] is block:
                block.replace(slot, row, live=self._may_bid(campaign))
                return
        posted = postings(old, kind)
        self._take(place, posted)
        if not alike(old, campaign):
            self._forget(old, kind)
            kind = self._kind(campaign)
            self._count(campaign, 1)
            posted = postings(campaign, kind)
        self._insert(campaign, kind, posted)

    def remove(self, campaign_id: str) -> Campaign | None:
        """Take a campaign out; what it was, None when it was not here."""
        self._dark.discard(campaign_id)
        place = self._places.pop(campaign_id, None)
        if place is None:
            return None
        campaign, kind = self._numbered[place // SLOTS].entries[place % SLOTS][2:4]
        self._take(place, postings(campaign, kind))
        self._forget(campaign, kind)
        return campaign

    def match(
        self, context: Context, placement: Placement, *, limit: int = 10, admits: Admits | None = None
    ) -> list[Candidate]:
        """The best campaigns for an imp, one an advertiser, by price from the top and then by id.

        Args:
            context: the facts of the request.
            placement: the facts of the imp.
            limit: the most advertisers, at least one.
            admits: asked last, by id, of a campaign that paces and would be taken; when it says no, the next takes its
                place.
        """
        shelf = self._clauses.shelves[placement.offers, placement.secure, context.language_allowed]
        clauses = self._clauses_of(context, placement, shelf)
        words = self._words_of(context)
        lowest = placement.floor_micros if placement.terms is None else placement.lowest_micros
        search = Search(context, placement, shelf.rack(placement.impid), limit, lowest, admits)
        now, effort = context.now, self._effort
        for block in self._blocks:
            if search.waiting:
                search.settle((-block.bound, ""))
            if block.bound < lowest or not search.room:
                break
            effort -= 1
            if effort < search.misfits:
                self.capped += 1
                break
            if not block.since <= now < block.until:
                block.tell_time(now, self._hours)
            if bits := block.fitting(clauses, words):
                search.pick(block, bits)
        if search.waiting:
            search.settle()
        bids = [*search.found.values()]
        while bids and bids[-1].price_micros < lowest:
            del bids[-1]
        return bids

    def _clauses_of(self, context: Context, placement: Placement, shelf: Shelf) -> list[Clause]:
        """What many requests have in common."""
        known, cell = self._clauses, NOWHERE
        if self._circled and context.lat is not None and context.lon is not None:
            cell = geo.cell_of_point(context.lat, context.lon)
        audience = (
            context.country,
            context.region,
            context.city,
            context.devicetype,
            context.os,
            context.language,
            cell,
            not context.segments,
        )
        clauses = [shelf, known.audiences[audience], known.venues[context.domains, context.site_cats]]
        if context.cat_blocked or context.cat_allowed is not None:
            clauses.append(known.categories[context.cattax, context.cat_blocked, context.cat_allowed])
        if context.adv_blocked or context.seat_blocked or context.seat_allowed is not None:
            clauses.append(known.buyers[context.adv_blocked, context.seat_blocked, context.seat_allowed])
        if placement.private:
            clauses.append(known.deals[placement.deals])
        return clauses

    def _words_of(self, context: Context) -> list[Words]:
        """Interests and segments, which differ from one request to the next; of very many, those that some campaign
        cares for."""
        words: list[Words] = []
        cared = self._interests
        if cared:
            names = context.interests
            words.append(
                (NO_INTEREST, INTEREST, names if len(names) <= _FEW else [name for name in names if name in cared])
            )
        cared = self._segments
        if cared and context.segments:
            names = context.segments
            words.append(
                (NO_SEGMENT, SEGMENT, names if len(names) <= _FEW else [name for name in names if name in cared])
            )
        return words

    def _build(self, campaigns: Iterable[Campaign]) -> None:
        """Fill an empty index, three quarters of every block."""
        latest = {campaign.id: campaign for campaign in campaigns}
        ranked = sorted([(-campaign.top_micros, name) for name, campaign in latest.items()])
        for first in range(0, len(ranked), _FILL):
            block = self._blocks[0] if first == 0 else self._new_block(len(self._blocks), ranked[first])
            part = ranked[first : first + _FILL]
            for slot, (_, name) in zip(range(len(part) - 1, -1, -1), part, strict=True):
                campaign = latest[name]
                kind = self._kind(campaign)
                block.fill(slot, entry(campaign, kind), postings(campaign, kind), live=campaign.status is Status.ACTIVE)
                self._count(campaign, 1)
                self._places[name] = block.number * SLOTS + slot
            block.stratify()

    def _insert(self, campaign: Campaign, kind: Kind, posted: list[Posting]) -> None:
        key = (-campaign.top_micros, campaign.id)
        rank = bisect_right(self._firsts, key) - 1
        if len(self._blocks[rank]) == SLOTS:
            self._split(rank)
            rank = bisect_right(self._firsts, key) - 1
        block = self._blocks[rank]
        slot = block.add(entry(campaign, kind), posted, live=self._may_bid(campaign))
        self._places[campaign.id] = block.number * SLOTS + slot

    def _may_bid(self, campaign: Campaign) -> bool:
        return campaign.status is Status.ACTIVE and campaign.id not in self._dark

    def _take(self, place: int, posted: list[Posting]) -> None:
        """Empty a place in a block."""
        block, slot = self._numbered[place // SLOTS], place % SLOTS
        key = block.entries[slot][:2]
        block.take(slot, posted)
        if len(block) < _SPARSE and len(self._blocks) > 1:
            self._merge(bisect_right(self._firsts, key) - 1)

    def _split(self, rank: int) -> None:
        lower = self._blocks[rank].split(self._next_number)
        self._next_number += 1
        slots = lower.slots()
        self._insert_block(rank + 1, lower, lower.entries[slots[0]][:2])
        for slot in slots:
            self._places[lower.entries[slot][1]] = lower.number * SLOTS + slot

    def _merge(self, rank: int) -> None:
        """Move what little is left in a block into a neighbour that has room."""
        block = self._blocks[rank]
        into = self._blocks[rank - 1 if rank else 1]
        if len(block) + len(into) > _FILL:
            return
        for slot in block.slots():
            row = block.entries[slot]
            moved = into.add(row, postings(row[2], row[3]), live=bool(block.live & BITS[slot]))
            self._places[row[1]] = into.number * SLOTS + moved
        into.stratify()
        del self._blocks[rank], self._numbered[block.number], self._firsts[rank]
        self._firsts[0] = FIRST

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

    def _forget(self, campaign: Campaign, kind: Kind) -> None:
        self._count(campaign, -1)
        kind.users -= 1
        if not kind.users:
            del self._kinds[traits(campaign)]

    def _count(self, campaign: Campaign, step: int) -> None:
        """Keep the words that any campaign cares about: a request may bring many others."""
        targeting = campaign.targeting
        self._circled += step * bool(targeting.geo)
        for known, words in ((self._interests, targeting.interests), (self._segments, targeting.segments)):
            for word in words:
                name = word.lower() if known is self._interests else word
                count = known.get(name, 0) + step
                if count:
                    known[name] = count
                else:
                    del known[name]
