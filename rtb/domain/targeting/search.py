"""One request's walk through the index: what it looks for, and what it has found."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from msgspec.structs import replace

from rtb.domain import pricing
from rtb.domain.facts import Context, Placement
from rtb.domain.targeting import deals, geo
from rtb.domain.targeting.block import BITS, Block, Candidate, Key, Special, candidate
from rtb.domain.targeting.clauses import Shelf
from rtb.domain.targeting.postings import SEAT

Admits = Callable[[str], bool]

LAST: Key = (1 << 62, "")


class Search:
    """Bids for one imp, the best first, one an advertiser, at most `limit`.

    Campaigns are met in rank, by the most they bid. One that optimises bids less than that: it waits with its price
    until all that could bid more have been met, and nobody asks for the price of those that come after the last place
    is taken.
    """

    __slots__ = ("_admits", "_context", "_limit", "_lowest", "_placement", "_shelf", "_waiting", "found", "misfits")

    def __init__(
        self,
        context: Context,
        placement: Placement,
        shelf: Shelf,
        *,
        limit: int,
        lowest_micros: int,
        admits: Admits | None,
    ) -> None:
        """`lowest_micros`: who bids less is below any floor of the imp. `admits`: see `Index.match`."""
        self.found: dict[str, Candidate] = {}
        """Bids by advertiser, in rank."""
        self.misfits = 0
        """Campaigns that did not fit after all."""
        self._context = context
        self._placement = placement
        self._shelf = shelf
        self._limit = limit
        self._lowest = lowest_micros
        self._admits = admits
        self._waiting: list[tuple[int, str, Candidate]] = []

    def pick(self, block: Block, bits: int) -> None:
        """Go through some slots of a block."""
        shelf, impid = self._shelf, self._placement.impid
        made, frequency, found, admits = block.made[shelf], self._context.frequency, self.found, self._admits
        same_for_all = self._placement.terms is None
        order: list[int] | None = None if block.tidy else []
        while bits:
            if order is None:
                slot = bits.bit_length() - 1
            else:
                order = order or block.order(bits)
                slot = order.pop()
            bits ^= BITS[slot]
            if self._waiting and self.settle(block.entries[slot][:2]):
                break
            ready = made.get(slot) or block.make(slot, shelf, impid)
            if ready is None:
                self.misfits += 1
                bits &= block.masks[shelf]
                order = order and []
                continue
            bid, seat, capped, most, special = ready
            if seat in found:
                bits &= ~block.postings[SEAT][seat]
                order = order and []
                continue
            if capped in frequency and frequency[capped] >= most:
                self.misfits += 1
                continue
            if special is not None and not self._suits(bid, special):
                self.misfits += 1
                continue
            if not same_for_all or bid.impid != impid:
                adapted = self._adapted(bid)
                if adapted is None:
                    self.misfits += 1
                    continue
                bid = adapted
            if admits is not None and not self._admitted(bid):
                self.misfits += 1
                continue
            found[seat] = bid
            if len(found) == self._limit:
                break

    def settle(self, key: Key = LAST) -> bool:
        """Take those who wait and whose price ranks before `key`; whether there are enough now."""
        waiting, found = self._waiting, self.found
        while waiting and waiting[0][:2] < key and len(found) < self._limit:
            bid = heappop(waiting)[2]
            if bid.seat not in found and self._admitted(bid):
                found[bid.seat] = bid
        return len(found) >= self._limit

    def _suits(self, bid: Candidate, special: Special) -> bool:
        """Whether a campaign fits by what no bitmap tells, and bids its best; one that optimises is made to wait."""
        context = self._context
        if special.circles:
            lat, lon = context.lat, context.lon
            if lat is None or lon is None or not geo.inside(special.circles, lat, lon):
                return False
        if not special.optimises:
            return True
        price = pricing.price_micros(bid.campaign, context, self._placement.floor_micros)
        priced = self._adapted(replace(bid, price_micros=price))
        if priced is not None:
            heappush(self._waiting, (-price, bid.campaign.id, priced))
        return False

    def _adapted(self, bid: Candidate) -> Candidate | None:
        """The bid for this imp, under the deal it settles for; None when it does not meet the imp's terms."""
        placement = self._placement
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
        return self._admits is None or (bid.price_micros >= self._lowest and self._admits(bid.campaign.id))
