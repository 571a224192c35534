"""The index: which campaigns fit an imp, best first, at a cost that does not grow with their number.

Campaigns stand in blocks by rank (the higher price first, then the lower id), like the leaves of a B+-tree. In a block
every value that some campaign asks for has a bitmap, a plain integer, of the slots that do; a request ANDs and ORs
those of its own values, block after block from the top, until it has as many advertisers as it wants. What no bitmap
tells (circles, frequency caps, details of creatives and deals) is then checked campaign by campaign.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator

from rtb.domain import pricing
from rtb.domain.auction import HOUSE, Bid
from rtb.domain.campaign import Campaign, Creative, Status
from rtb.domain.facts import Context, Placement
from rtb.domain.markup import MARKUP_TYPE
from rtb.domain.targeting import deals, geo
from rtb.domain.targeting.block import BITS, FIRST, SLOTS, Block, Key, entry
from rtb.domain.targeting.clauses import Clause, Clauses
from rtb.domain.targeting.hours import Hours
from rtb.domain.targeting.postings import INTEREST, KIND, SEAT, SEGMENT, Kind, Posting, alike, postings, traits

_FILL = SLOTS * 3 // 4
_SPARSE = SLOTS // 8
_SPARE = 2  # campaigns fetched beyond those still wanted, as some turn out not to fit


class Candidate(Bid, kw_only=True):
    """A house campaign's bid for an imp, with the campaign and the creative it would show. The next auction
    may be given the same."""

    campaign: Campaign
    creative: Creative
    adm: str = ""
    """Its markup, once somebody has asked for it."""


def candidate(campaign: Campaign, creative: Creative, price_micros: int, dealid: str | None, impid: str) -> Candidate:
    """The bid of a campaign: the advertiser is the seat, the house the bidder."""
    return Candidate(
        impid=impid,
        seat=campaign.advertiser,
        price_micros=price_micros,
        bidder=HOUSE,
        dealid=dealid,
        adomain=campaign.adomain,
        mtype=MARKUP_TYPE[creative.media],
        dur=creative.dur,
        campaign=campaign,
        creative=creative,
    )


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
            row = entry(campaign, pricing.bound(campaign), kind)
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

    def match(self, context: Context, placement: Placement, *, limit: int = 10) -> list[Candidate]:
        """The best campaigns for an imp, one an advertiser, by price from the top and then by id.

        Args:
            context: the facts of the request.
            placement: the facts of the imp.
            limit: the most advertisers.
        """
        found: list[Candidate] = []
        seats: set[str] = set()
        shelf = self._clauses.shelves[placement.offers, placement.secure, context.language_allowed]
        choices = shelf.choices
        strict, words = self._question(context, placement, shelf.shapes)
        lowest = placement.floor_micros if placement.terms is None else placement.lowest_micros
        ceiling = -lowest
        lat, lon = context.lat, context.lon
        now, effort, room = context.now, self._effort, limit
        frequency, terms, impid = context.frequency, placement.terms, placement.impid
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
            masks = block.masks
            for clause in strict:
                bits &= masks[clause]
                if not bits:
                    break
            if not bits:
                continue
            for dimension, values in words:
                posted = block.postings[dimension]
                if None in posted:
                    some = block.used ^ posted[None]
                    for value in values:
                        if value in posted:
                            some |= posted[value]
                    bits &= some
            while bits:
                rows, bits = block.best(bits, room + _SPARE)
                effort -= len(rows)
                for minus_price, name, campaign, kind, circles, seat, cap, made in rows:
                    if minus_price > ceiling:
                        return found
                    if seat in seats:
                        bits &= ~block.postings[SEAT][seat]
                        continue
                    choice = choices[kind]
                    if choice < 0:
                        bits &= ~block.postings[KIND][kind]
                        continue
                    if circles and (lat is None or lon is None or not geo.inside(circles, lat, lon)):
                        continue
                    if cap is not None and name in frequency and frequency[name] >= cap.count:
                        continue
                    key: Hashable = choice
                    dealid = None
                    if terms is not None:
                        fits, dealid = _deal(campaign, campaign.creatives[choice], -minus_price, placement)
                        if not fits:
                            continue
                        if dealid is not None:
                            key = choice, dealid
                    bid = made.get(key)
                    if bid is None or bid.impid != impid:
                        bid = candidate(campaign, campaign.creatives[choice], -minus_price, dealid, impid)
                        made[key] = bid
                    found.append(bid)
                    room -= 1
                    if not room:
                        return found
                    seats.add(seat)
        return found

    def _question(
        self, context: Context, placement: Placement, shapes: Clause
    ) -> tuple[list[Clause], list[tuple[int, list[str]]]]:
        """The request as clauses, which many requests share, what rejects most first; and interests and segments,
        which differ from one request to the next, as far as some campaign cares for them."""
        known = self._clauses
        strict = [
            shapes,
            known.places[context.country, context.region, context.city],
            known.devices[context.devicetype, context.os, context.language],
            known.venues[context.domains, context.site_cats],
        ]
        if context.cat_blocked or context.cat_allowed is not None:
            strict.append(known.categories[context.cattax, context.cat_blocked, context.cat_allowed])
        if context.adv_blocked or context.seat_blocked or context.seat_allowed is not None:
            strict.append(known.buyers[context.adv_blocked, context.seat_blocked, context.seat_allowed])
        if placement.private:
            strict.insert(0, known.deals[placement.deals])
        if self._circled:
            lat, lon = context.lat, context.lon
            strict.append(known.cells[None if lat is None or lon is None else geo.cell_of_point(lat, lon)])
        words = []
        cared = self._interests
        if cared:
            names = [name for name in context.interests if name in cared]
            if names:
                words.append((INTEREST, names))
            else:
                strict.append(known.no_interest)
        cared = self._segments
        if cared:
            names = [name for name in context.segments if name in cared]
            if names:
                words.append((SEGMENT, names))
            else:
                strict.append(known.no_segment)
        return strict, words

    def _build(self, campaigns: Iterable[Campaign]) -> None:
        """Fill an empty index, three quarters of every block."""
        latest = {campaign.id: campaign for campaign in campaigns}
        ranked = sorted([(-pricing.bound(campaign), name) for name, campaign in latest.items()])
        for first in range(0, len(ranked), _FILL):
            block = self._blocks[0] if first == 0 else self._new_block(len(self._blocks), ranked[first])
            part = ranked[first : first + _FILL]
            for slot, (minus_price, name) in zip(range(len(part) - 1, -1, -1), part, strict=True):
                campaign = latest[name]
                kind = self._kind(campaign)
                row = entry(campaign, -minus_price, kind)
                block.fill(slot, row, postings(campaign, kind), live=campaign.status is Status.ACTIVE)
                self._count(campaign, 1)
                self._places[name] = block.number * SLOTS + slot
            block.stratify()

    def _insert(self, campaign: Campaign, kind: Kind, posted: list[Posting]) -> None:
        price = pricing.bound(campaign)
        key = (-price, campaign.id)
        rank = bisect_right(self._firsts, key) - 1
        if len(self._blocks[rank]) == SLOTS:
            self._split(rank)
            rank = bisect_right(self._firsts, key) - 1
        block = self._blocks[rank]
        slot = block.add(entry(campaign, price, kind), posted, live=self._may_bid(campaign))
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


def _deal(campaign: Campaign, creative: Creative, price: int, placement: Placement) -> tuple[bool, str | None]:
    """Whether the price meets the imp's terms, and under which deal."""
    if placement.private and not deals.admitted(campaign, placement):
        return False, None
    dealid, floor = deals.settle(campaign, creative, price, placement)
    return price >= floor, dealid
