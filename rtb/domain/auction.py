"""Clearing: who wins an imp, what it pays, and why every other bid lost. Pure and synchronous.

Prices are integer CPM micros of the exchange currency (rtb.domain.money). Sources: OpenRTB 2.6 3.2.1 (``at``),
3.2.11 and 3.2.12 (deals), 4.2.2 (``group``), 4.4.1 (minimum to win), 7.11.2 (floors).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Any

from msgspec import Struct

from rtb.domain import money
from rtb.openrtb import AuctionType, BidRequest, DurFloors, Imp, Loss, MarkupType

TieBreak = Callable[[str, str], bytes]


class DealTerms(Struct, gc=False, kw_only=True):
    """A deal on the table for an imp; `floor_micros` None means it gives no bidfloor of its own."""

    id: str
    at: int | None = None
    floor_micros: int | None = None
    wseat: frozenset[str] | None = None
    wadomain: frozenset[str] | None = None
    cpm_per_second_micros: int = 0
    durfloors: tuple[tuple[int, int, int], ...] = ()


class Terms(Struct, gc=False, kw_only=True):
    """What an imp is sold under.

    `streams` are the floors by duration of a video (mtype 2) or audio (3) offer: CPM micros a second, and
    (mindur, maxdur, floor) ranges, ends included.
    """

    impid: str
    at: int = AuctionType.SECOND_PRICE_PLUS
    floor_micros: int = 0
    deals: Mapping[str, DealTerms] | None = None
    private: bool = False
    streams: Mapping[int, tuple[int, tuple[tuple[int, int, int], ...]]] | None = None


class Bid(Struct, gc=False, kw_only=True):
    """A priced bid in an auction. `content` is what its bidder needs back (a wire bid, or a house candidate).

    `adomain` is lower case. `group` names a seatbid with ``group = 1``: its bids win all their imps or none. `mtype`
    and `dur` (seconds) choose the floor of a stream.
    """

    impid: str
    seat: str
    price_micros: int
    bidder: str = ""
    dealid: str | None = None
    adomain: Sequence[str] = ()
    mtype: int = 0
    dur: int = 0
    group: str = ""
    content: Any = None


class Lost(Struct, gc=False):
    """A bid that lost, why, and the least price that would have won: None where price did not decide."""

    bid: Bid
    reason: Loss
    min_to_win_micros: int | None = None


class Result(Struct, gc=False):
    """How one imp was settled; `price_micros` and `min_to_win_micros` are the winner's."""

    impid: str
    winner: Bid | None
    price_micros: int
    min_to_win_micros: int
    losses: list[Lost]


def tie_break(key: bytes, auction_id: str) -> TieBreak:
    """Order seats of equal price by a keyed hash of (auction id, imp, seat).

    Fair over time, the same on replay, and no bidder can grind for it without the key.
    """

    def rank(impid: str, seat: str) -> bytes:
        return blake2b(f"{auction_id}\0{impid}\0{seat}".encode(), key=key, digest_size=8).digest()

    return rank


def terms(request: BidRequest, imp: Imp, rates: money.Rates, *, at: int | None = None) -> Terms:
    """The terms an imp is sold under; deal floors do not inherit the imp's currency, stream floors do.

    Raises:
        KeyError: a floor is in a currency without a rate.
    """
    currency = imp.bidfloorcur or "USD"
    found = Terms(impid=imp.id or "", at=at or request.at or AuctionType.SECOND_PRICE_PLUS)
    if imp.bidfloor:
        found.floor_micros = rates.inward_micros(money.to_micros(imp.bidfloor), currency)
    if imp.video is not None or imp.audio is not None:
        streams = {}
        for mtype, stream in ((MarkupType.VIDEO, imp.video), (MarkupType.AUDIO, imp.audio)):
            if stream is not None and (stream.mincpmpersec or stream.durfloors):
                per_second = rates.inward_micros(money.to_micros(stream.mincpmpersec or 0.0), currency)
                streams[int(mtype)] = (per_second, _ranges(stream.durfloors, rates, currency))
        found.streams = streams or None
    if imp.pmp is not None:
        found.private = imp.pmp.private_auction == 1
        deals = {}
        for deal in imp.pmp.deals or ():
            code = deal.bidfloorcur or "USD"
            deals[deal.id or ""] = DealTerms(
                id=deal.id or "",
                at=deal.at,
                floor_micros=None
                if deal.bidfloor is None
                else rates.inward_micros(money.to_micros(deal.bidfloor), code),
                wseat=frozenset(deal.wseat) if deal.wseat else None,
                wadomain=frozenset(name.lower() for name in deal.wadomain) if deal.wadomain else None,
                cpm_per_second_micros=rates.inward_micros(money.to_micros(deal.mincpmpersec or 0.0), code),
                durfloors=_ranges(deal.durfloors, rates, code),
            )
        found.deals = deals or None
    return found


def floor_micros(bid: Bid, imp: Terms) -> int:
    """The floor this bid must reach: its deal's guidance, else the stream's, else the imp's.

    Source: OpenRTB 2.6 7.11.2 and 3.2.35; where several ranges of durfloors apply, the lowest floor does.
    """
    if bid.dealid is not None and imp.deals is not None:
        deal = imp.deals[bid.dealid]
        if deal.floor_micros is not None:
            return deal.floor_micros
        by_duration = _by_duration(deal.cpm_per_second_micros, deal.durfloors, bid.dur)
        if by_duration is not None:
            return by_duration
    if imp.streams is not None and bid.mtype in imp.streams:
        per_second, ranges = imp.streams[bid.mtype]
        by_duration = _by_duration(per_second, ranges, bid.dur)
        if by_duration is not None:
            return by_duration
    return imp.floor_micros


def clear(
    bids: Iterable[Bid],
    imp: Terms,
    rank: TieBreak,
    *,
    increment_micros: int = money.CENT_MICROS,
    deals_first: bool = True,
) -> Result:
    """Pick the winner of one imp and the price it pays.

    O(n log n) in the number of bids.

    Args:
        bids: the imp's bids, already valid on their own (rtb.domain.validation); floors and deals are checked here.
        imp: the terms it is sold under; a bid equal to its floor is eligible.
        rank: order of bids of equal price.
        increment_micros: the "plus" of second price plus.
        deals_first: an open bid neither beats nor prices a deal bid.

    Returns:
        A result with a loss for every bid but the winner. floor <= price_micros <= the winner's bid.

    Raises:
        ValueError: a negative increment.

    Source: OpenRTB 2.6 3.2.1 (``at``) and the tables of 4.4.1; the design's "Clearing one imp".
    """
    if increment_micros < 0:
        raise ValueError("increment_micros must not be negative")
    admitted, losses = _admit(bids, imp)
    if not admitted:
        return Result(imp.impid, None, 0, 0, losses)
    if len(admitted) > 1:
        if deals_first and imp.deals is not None:
            preferred = [bid for bid in admitted if bid.dealid is not None]
            if preferred and len(preferred) < len(admitted):
                losses += [Lost(bid, Loss.LOST_TO_DEAL) for bid in admitted if bid.dealid is None]
                admitted = preferred
        admitted.sort(key=_price, reverse=True)
        best = admitted[0].price_micros
        if len(admitted) > 1 and admitted[1].price_micros == best:
            tied = [bid for bid in admitted if bid.price_micros == best]
            tied.sort(key=lambda bid: rank(bid.impid, bid.seat))
            admitted[: len(tied)] = tied
    winner = admitted[0]
    floor = floor_micros(winner, imp)
    at = _auction_type(winner, imp)
    price = _price_paid(admitted, floor, at, increment_micros)
    if len(admitted) == 1:
        return Result(imp.impid, winner, price, floor, losses)
    to_beat = price if at == AuctionType.SECOND_PRICE_PLUS else winner.price_micros
    losses += [Lost(bid, Loss.OUTBID, to_beat) for bid in admitted[1:]]
    return Result(imp.impid, winner, price, max(admitted[1].price_micros, floor), losses)


def _admit(bids: Iterable[Bid], imp: Terms) -> tuple[list[Bid], list[Lost]]:
    """The bids that keep the imp's terms, and the loss of each that does not."""
    admitted: list[Bid] = []
    losses: list[Lost] = []
    plain = imp.deals is None and imp.streams is None and not imp.private
    floor = imp.floor_micros
    for bid in bids:
        reason: Loss | None = None
        if not plain or bid.dealid is not None:
            reason = _inadmissible(bid, imp)
            floor = 0 if reason is not None else floor_micros(bid, imp)
        if reason is None:
            if bid.price_micros >= floor:
                admitted.append(bid)
                continue
            reason = Loss.BELOW_FLOOR if bid.dealid is None else Loss.BELOW_DEAL_FLOOR
        losses.append(Lost(bid, reason))
        floor = imp.floor_micros
    return admitted, losses


def clear_all(
    bids: Mapping[str, Sequence[Bid]],
    imps: Sequence[Terms],
    rank: TieBreak,
    *,
    increment_micros: int = money.CENT_MICROS,
    deals_first: bool = True,
) -> list[Result]:
    """Clear every imp of a request; `bids` are by impid.

    A group that does not win all the imps it bids on is withdrawn and the auction cleared again, the group with the
    lowest sum of prices first; its withdrawn bids lose as outbid, without a minimum to win.

    Source: OpenRTB 2.6 4.2.2 (``group``).
    """
    groups: dict[str, list[Bid]] = {}
    for of_imp in bids.values():
        for bid in of_imp:
            if bid.group:
                groups.setdefault(bid.group, []).append(bid)
    withdrawn: list[Bid] = []
    while True:
        results = []
        for imp in imps:
            running = bids.get(imp.impid, ())
            if withdrawn:
                running = [bid for bid in running if not bid.group or bid.group in groups]
            results.append(clear(running, imp, rank, increment_micros=increment_micros, deals_first=deals_first))
        broken = _broken_groups(groups, results)
        if not broken:
            break
        loser = min(broken, key=lambda name: sum(bid.price_micros for bid in groups[name]))
        withdrawn += groups.pop(loser)
    for result in results:
        result.losses += [Lost(bid, Loss.OUTBID) for bid in withdrawn if bid.impid == result.impid]
    return results


def _broken_groups(groups: Mapping[str, Sequence[Bid]], results: Sequence[Result]) -> list[str]:
    if not groups:
        return []
    won = {result.impid: result.winner.group for result in results if result.winner is not None}
    return [name for name, members in groups.items() if any(won.get(bid.impid) != name for bid in members)]


def _inadmissible(bid: Bid, imp: Terms) -> Loss | None:
    if bid.dealid is None:
        return Loss.INVALID_DEAL if imp.private else None
    deal = imp.deals.get(bid.dealid) if imp.deals is not None else None
    if deal is None:
        return Loss.INVALID_DEAL
    if deal.wseat is not None and bid.seat not in deal.wseat:
        return Loss.SEAT_BLOCKED
    if deal.wadomain is not None and not any(name in deal.wadomain for name in bid.adomain):
        return Loss.ADVERTISER_BLOCKED
    return None


def _auction_type(winner: Bid, imp: Terms) -> int:
    """The winner's deal may override; a deal at an agreed price without that price falls back on the request's."""
    if winner.dealid is not None and imp.deals is not None:
        deal = imp.deals[winner.dealid]
        if deal.at is not None and not (deal.at == AuctionType.DEAL_PRICE and deal.floor_micros is None):
            return deal.at
    return imp.at


def _price_paid(admitted: Sequence[Bid], floor: int, at: int, increment_micros: int) -> int:
    winner = admitted[0]
    if at == AuctionType.DEAL_PRICE:
        return floor
    if at != AuctionType.SECOND_PRICE_PLUS:
        return winner.price_micros
    for rival in admitted[1:]:
        if not same_advertiser(winner, rival):
            return min(winner.price_micros, max(floor, rival.price_micros + increment_micros))
    return min(winner.price_micros, floor or increment_micros)


def same_advertiser(one: Bid, other: Bid) -> bool:
    """Whether two bids are for one advertiser: a common adomain, or one seat where a bid names no adomain."""
    if one.adomain and other.adomain:
        return any(name in other.adomain for name in one.adomain)
    return one.seat == other.seat


_price = attrgetter("price_micros")


def _ranges(floors: Sequence[DurFloors] | None, rates: money.Rates, code: str) -> tuple[tuple[int, int, int], ...]:
    if not floors:
        return ()
    return tuple(
        (
            floor.mindur or 0,
            10**9 if floor.maxdur is None else floor.maxdur,
            rates.inward_micros(money.to_micros(floor.bidfloor or 0.0), code),
        )
        for floor in floors
    )


def _by_duration(per_second_micros: int, ranges: Iterable[tuple[int, int, int]], dur: int) -> int | None:
    if per_second_micros and dur:
        return per_second_micros * dur
    fitting = [floor for low, high, floor in ranges if low <= dur <= high]
    return min(fitting) if fitting and dur else None
