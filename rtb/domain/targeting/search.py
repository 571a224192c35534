"""One request's walk through the index: what it looks for, and what it has found."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from msgspec import Struct
from msgspec.structs import replace

from rtb.domain import frequency, pricing
from rtb.domain.facts import Context, Placement
from rtb.domain.targeting import deals, geo
from rtb.domain.targeting.block import BITS, Block, Candidate, Key, Special, candidate
from rtb.domain.targeting.clauses import Rack
from rtb.domain.targeting.postings import SEAT

Admits = Callable[[str], bool]

LAST: Key = (1 << 62, "")


class Search(Struct, eq=False, gc=False):
    """Bids for one imp, the best first, one an advertiser, until there is no `room` for another.

    `lowest_micros`: who bids less is below any floor of the imp. `admits`: see `Index.match`.

    Campaigns are met in rank, by the most they bid. One that optimises bids less than that: it waits with its price
    until all that could bid more have been met, and nobody asks for the price of those that come after the last place
    is taken.
    """

    context: Context
    placement: Placement
    rack: Rack
    room: int
    lowest_micros: int
    admits: Admits | None
    found: dict[str, Candidate] = {}
    """Bids by advertiser, in rank."""
    waiting: list[tuple[int, str, Candidate]] = []
    """Who optimises, as a heap, the best first."""
    misfits: int = 0
    """Campaigns that did not fit after all."""

    def pick(self, block: Block, bits: int) -> None:
        """Take the best of some slots of a block. All that most campaigns go through stands in this one loop."""
        rack, placement, found, waiting = self.rack, self.placement, self.found, self.waiting
        made, counts, room = block.made[rack], self.context.frequency, self.room
        adapt = placement.terms is not None or placement.impid != rack.impid
        order: list[int] | None = None if block.tidy else []
        careful = bool(waiting) or order is not None
        while bits:
            if careful:
                if order is None:
                    slot = bits.bit_length() - 1
                else:
                    order = order or block.order(bits)
                    slot = order.pop()
                if waiting:
                    self.room = room
                    self.settle(block.entries[slot][:2])
                    room = self.room
                    if not room:
                        return
            else:
                slot = bits.bit_length() - 1
            bits ^= BITS[slot]
            try:
                bid, seat, counter, most, special = made[slot]
            except KeyError:
                ready = block.make(slot, rack)
                if ready is None:
                    self.misfits += 1
                    bits &= block.masks[rack.shelf]
                    order = order and []
                    continue
                bid, seat, counter, most, special = ready
            if seat in found:
                bits ^= bits & block.postings[SEAT][seat]
                order = order and []
                continue
            if counter in counts and counts[counter] >= most:
                self.misfits += 1
                continue
            if special is not None or adapt:
                examined = self._examined(bid, special, adapt)
                if examined is None:
                    self.misfits += 1
                    careful = careful or bool(waiting)
                    continue
                bid = examined
            found[seat] = bid
            room -= 1
            if not room:
                break
        self.room = room

    def settle(self, key: Key = LAST) -> None:
        """Take those who wait and whose price ranks before `key`, as long as there is room."""
        waiting, found = self.waiting, self.found
        while waiting and self.room and waiting[0][:2] < key:
            bid = heappop(waiting)[2]
            if bid.seat not in found and self._admitted(bid):
                found[bid.seat] = bid
                self.room -= 1

    def _examined(self, bid: Candidate, special: Special | None, adapt: bool) -> Candidate | None:
        """The bid for this imp when it fits by what no bitmap tells; one that optimises is made to wait."""
        if special is not None:
            context = self.context
            if special.circles:
                lat, lon = context.lat, context.lon
                if lat is None or lon is None or not geo.within(special.circles, lat, lon):
                    return None
            if special.caps and frequency.reached(special.caps, context.frequency):
                return None
            if special.optimises:
                price = pricing.price_micros(bid.campaign, context, self.placement.floor_micros)
                priced = self._adapted(replace(bid, price_micros=price))
                if priced is not None:
                    heappush(self.waiting, (-price, bid.campaign.id, priced))
                return None
        if adapt:
            adapted = self._adapted(bid)
            if adapted is None:
                return None
            bid = adapted
        return bid if special is None or not special.paces or self._admitted(bid) else None

    def _adapted(self, bid: Candidate) -> Candidate | None:
        """The bid for this imp, under the deal it settles for; None when it does not meet the imp's terms."""
        placement = self.placement
        if placement.terms is None:
            return replace(bid, impid=placement.impid)
        if placement.private and not deals.admitted(bid.campaign, placement):
            return None
        dealid, floor = deals.settle(bid.campaign, bid.creative, bid.price_micros, placement)
        if bid.price_micros < floor:
            return None
        if dealid is None:
            return replace(bid, impid=placement.impid)
        return candidate(bid.campaign, bid.creative, bid.price_micros, dealid, placement.impid)

    def _admitted(self, bid: Candidate) -> bool:
        """Asked last, of one that would be taken."""
        return (
            self.admits is None
            or not bid.campaign.paces
            or (bid.price_micros >= self.lowest_micros and self.admits(bid.campaign.id))
        )
