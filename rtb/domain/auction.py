"""Clearing: who wins an imp, what it pays, and why every other bid lost. Pure and synchronous.

What an imp is sold under is in rtb.domain.terms. Prices are integer CPM micros of the exchange currency
(rtb.domain.money). Sources: OpenRTB 2.6 3.2.1 (``at``), 3.2.12 (deals), 4.2.2 (``group``), 4.4.1 (minimum to win).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from operator import attrgetter
from typing import Any

from msgspec import Struct

from rtb.domain import money
from rtb.domain.groups import settled
from rtb.domain.terms import Terms, allows, floor_micros
from rtb.openrtb import AuctionType, Loss

HOUSE = "house"
"""The bidder that in-process campaigns bid as."""

TieBreak = Callable[[str, str], bytes]

# As plain numbers: looking up a member of an enum, and comparing with one, costs ten times as much.
_FIRST_PRICE, _SECOND_PRICE, _DEAL_PRICE = (int(at) for at in AuctionType)


class Bid(Struct, gc=False, kw_only=True):
    """A priced bid in an auction. `content` is what its bidder needs back, as the bid on the wire.

    `adomain` is lower case. `group` names a seatbid with ``group = 1``: its bids win all their imps or none. `mtype`
    and `dur` (seconds) choose the floor of a stream. `at` is the auction type agreed with its bidder, which counts in
    place of the imp's when it wins; 0 for none.
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
    at: int = 0
    content: Any = None


class Lost(Struct, gc=False):
    """A bid that lost, why, and the least price that would have won: None where price did not decide.

    Source: OpenRTB 2.6 4.4.1. A bid below its floor lost by its price; one that another auction rule kept out did not.
    """

    bid: Bid
    reason: Loss
    min_to_win_micros: int | None = None


class Result(Struct, gc=False):
    """How one imp was settled; `price_micros` and `min_to_win_micros` are the winner's.

    The bids that were outbid are kept as they are, beside what they had to beat; `refused` lost for another reason.
    `receipt` is what the winner's bidder gave for the cost it took.
    """

    impid: str
    winner: Bid | None
    price_micros: int
    min_to_win_micros: int
    refused: list[Lost]
    outbid: Sequence[Bid] = ()
    to_beat_micros: int = 0
    receipt: Any = None

    @property
    def losses(self) -> list[Lost]:
        """Every bid but the winner, and why it lost.

        A bid of the winner's own advertiser does not price it, and can lie above what it pays; then only the winner's
        own price would have won.
        """
        least, best = self.to_beat_micros, 0 if self.winner is None else self.winner.price_micros
        outbid = [Lost(bid, Loss.OUTBID, best if bid.price_micros > least else least) for bid in self.outbid]
        return self.refused + outbid


def tie_break(key: bytes, auction_id: str) -> TieBreak:
    """Order seats of equal price by a keyed hash of (auction id, imp, seat).

    Fair over time, the same on replay, and no bidder can grind for it without the key.
    """

    return partial(_keyed, key, auction_id)


def _keyed(key: bytes, auction_id: str, impid: str, seat: str) -> bytes:
    return blake2b(f"{auction_id}\0{impid}\0{seat}".encode(), key=key, digest_size=8).digest()


def clear(
    bids: Sequence[Bid],
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
        rank: order of bids of equal price; of one seat's, the one it sent first is taken.
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
    losses: list[Lost] = []
    refused = 0
    if not imp.sold:
        return Result(imp.impid, None, 0, 0, [Lost(bid, Loss.INTERNAL_ERROR) for bid in bids])
    prices = [bid.price_micros for bid in bids]
    ranked = sorted(prices, reverse=True)
    admitted = [*bids]
    if ranked and not _all_plain(bids, ranked[-1], imp):
        admitted, losses = _admit(bids, imp)
        refused = len(losses)
        if deals_first and imp.deals is not None:
            admitted = _deals_before_open(admitted, losses)
        ranked = []
    if not admitted:
        return Result(imp.impid, None, 0, 0, losses)
    if ranked != prices:  # the house's bids come in order
        admitted.sort(key=_price, reverse=True)
    winner = admitted[0]
    if len(admitted) > 1 and admitted[1].price_micros == winner.price_micros:
        winner = _break_tie(admitted, rank)
    floor = imp.floor_micros if imp.deals is None and imp.streams is None else floor_micros(winner, imp)
    at = winner.at or imp.at if imp.deals is None else _auction_type(winner, imp)
    price = _price_paid(admitted, floor, at, increment_micros)
    to_beat = price if at == _SECOND_PRICE else winner.price_micros
    if refused:
        _tell_those_below(losses[:refused], winner, to_beat, deals_first)
    if len(admitted) == 1:
        return Result(imp.impid, winner, price, floor, losses)
    del admitted[0]
    return Result(imp.impid, winner, price, max(admitted[0].price_micros, floor), losses, admitted, to_beat)


def clear_ranked(
    bids: Sequence[Bid], imp: Terms, rank: TieBreak, *, increment_micros: int = money.CENT_MICROS
) -> Result:
    """As `clear`, for bids of which is known what that would find out first: the dearest stands first, none has a deal,
    a group or an auction type of its own, and the imp has no terms but a floor. So it is in most auctions."""
    if not bids:
        return Result(imp.impid, None, 0, 0, [])
    winner, floor, at = bids[0], imp.floor_micros, imp.at
    if bids[-1].price_micros < floor:
        return _clear_above(bids, imp, rank, increment_micros)
    if len(bids) == 1:
        return Result(imp.impid, winner, _price_paid(bids, floor, at, increment_micros), floor, [])
    best, second = winner.price_micros, bids[1].price_micros
    if best == second:
        return clear(bids, imp, rank, increment_micros=increment_micros)
    if at == _SECOND_PRICE and not same_advertiser(winner, bids[1]):
        price = second + increment_micros  # as _price_paid has it; nine auctions of ten end here
        if price < floor:
            price = floor
        elif price > best:
            price = best
    else:
        price = _price_paid(bids, floor, at, increment_micros)
    to_beat = price if at == _SECOND_PRICE else best
    return Result(imp.impid, winner, price, second if second > floor else floor, [], bids[1:], to_beat)


def _clear_above(bids: Sequence[Bid], imp: Terms, rank: TieBreak, increment_micros: int) -> Result:
    """As `clear_ranked`, with bids below the floor among them; each hears what it would have needed."""
    floor = imp.floor_micros
    admitted = [bid for bid in bids if bid.price_micros >= floor]
    result = clear_ranked(admitted, imp, rank, increment_micros=increment_micros)
    needed = floor
    if result.winner is not None:
        needed = max(floor, result.price_micros if imp.at == _SECOND_PRICE else result.winner.price_micros)
    result.refused = [Lost(bid, Loss.BELOW_FLOOR, needed) for bid in bids[len(admitted) :]]
    return result


def _all_plain(bids: Sequence[Bid], lowest_micros: int, imp: Terms) -> bool:
    """Whether these are open bids that meet the one floor of an imp without any other terms."""
    return (
        imp.deals is None
        and imp.streams is None
        and not imp.private
        and lowest_micros >= imp.floor_micros
        and [bid.dealid for bid in bids].count(None) == len(bids)
    )


def _admit(bids: Sequence[Bid], imp: Terms) -> tuple[list[Bid], list[Lost]]:
    """The bids that keep the imp's terms, and the loss of each that does not: below a floor, with that floor."""
    admitted: list[Bid] = []
    losses: list[Lost] = []
    for bid in bids:
        reason = _inadmissible(bid, imp)
        if reason is not None:
            losses.append(Lost(bid, reason))
        elif bid.price_micros >= (floor := floor_micros(bid, imp)):
            admitted.append(bid)
        else:
            losses.append(Lost(bid, Loss.BELOW_FLOOR if bid.dealid is None else Loss.BELOW_DEAL_FLOOR, floor))
    return admitted, losses


def _deals_before_open(admitted: list[Bid], losses: list[Lost]) -> list[Bid]:
    """The deal bids where there are any; the open ones then join the losses."""
    deals = [bid for bid in admitted if bid.dealid is not None]
    if not deals:
        return admitted
    losses += [Lost(bid, Loss.LOST_TO_DEAL) for bid in admitted if bid.dealid is None]
    return deals


def _break_tie(admitted: list[Bid], rank: TieBreak) -> Bid:
    """Put the bids of the highest price in the order of rank, and return the first.

    Two bidders may use one seat name, so that the bidder counts too; of one bidder's seat, its first bid leads.
    """
    best = admitted[0].price_micros
    tied = [bid for bid in admitted if bid.price_micros == best]
    tied.sort(key=lambda bid: (rank(bid.impid, bid.seat), rank(bid.impid, bid.bidder)))
    admitted[: len(tied)] = tied
    return tied[0]


def _tell_those_below(losses: Sequence[Lost], winner: Bid, to_beat_micros: int, deals_first: bool) -> None:
    """What a bid below its floor would have needed: its floor, and to beat the winner where the two compete."""
    for lost in losses:
        if lost.min_to_win_micros is None:
            continue
        if not deals_first or (lost.bid.dealid is None) == (winner.dealid is None):
            lost.min_to_win_micros = max(lost.min_to_win_micros, to_beat_micros)
        elif winner.dealid is not None:
            lost.min_to_win_micros = None  # no price of an open bid beats a deal


def tell_refused(
    refused: Sequence[Lost], results: Sequence[Result], imps: Sequence[Terms], *, deals_first: bool
) -> None:
    """What bids would have needed that were refused for a floor of their bidder's own: that, and to beat the winner of
    their imp where the two compete. `results` are those of `imps`, in their order."""
    for result, imp in zip(results, imps, strict=True):
        winner = result.winner
        mine = [lost for lost in refused if lost.bid.impid == imp.impid]
        if mine and winner is not None:
            at = _auction_type(winner, imp)
            to_beat = result.price_micros if at == _SECOND_PRICE else winner.price_micros
            _tell_those_below(mine, winner, to_beat, deals_first)


def clear_all(
    bids: Mapping[str, Sequence[Bid]],
    imps: Sequence[Terms],
    rank: TieBreak,
    *,
    increment_micros: int = money.CENT_MICROS,
    deals_first: bool = True,
) -> list[Result]:
    """Clear every imp of a request; `bids` are by impid.

    A group wins all the imps it bids on or is withdrawn (rtb.domain.groups); its bids then lose for what broke it,
    without a minimum to win.

    Source: OpenRTB 2.6 4.2.2 (``group``).
    """
    groups: dict[str, list[Bid]] = {}
    for of_imp in bids.values():
        for bid in [bid for bid in of_imp if bid.group]:
            groups.setdefault(bid.group, []).append(bid)
    if not groups:
        return [
            clear(bids.get(imp.impid, ()), imp, rank, increment_micros=increment_micros, deals_first=deals_first)
            for imp in imps
        ]

    def settle(out: Mapping[str, Loss]) -> list[Result]:
        running = {impid: [bid for bid in of_imp if bid.group not in out] for impid, of_imp in bids.items()}
        return [
            clear(running.get(imp.impid, ()), imp, rank, increment_micros=increment_micros, deals_first=deals_first)
            for imp in imps
        ]

    results, out = settled(groups, settle, rank)
    by_imp = {result.impid: result for result in results}
    for name, reason in out.items():
        for bid in groups[name]:
            by_imp[bid.impid].refused.append(Lost(bid, reason))
    return results


def _inadmissible(bid: Bid, imp: Terms) -> Loss | None:
    if bid.dealid is None:
        return Loss.INVALID_DEAL if imp.private else None
    deal = imp.deals.get(bid.dealid) if imp.deals is not None else None
    if deal is None:
        return Loss.INVALID_DEAL
    if deal.wseat is not None and bid.seat not in deal.wseat:
        return Loss.SEAT_BLOCKED
    if deal.wadomain is not None and not allows(deal.wadomain, bid.adomain):
        return Loss.ADVERTISER_BLOCKED if bid.adomain else Loss.ADOMAIN_MISSING
    return None


def _auction_type(winner: Bid, imp: Terms) -> int:
    """The winner's deal may override: 1, 2, 3 [3.2.12], or an exchange's own, from 500 on, which runs as first price.

    An agreed price (3) without that price, and a number that means nothing, fall back on the winner's own type, or on
    the request's.
    """
    otherwise = winner.at or imp.at
    if winner.dealid is None or imp.deals is None:
        return otherwise
    deal = imp.deals[winner.dealid]
    if deal.at is None or _DEAL_PRICE < deal.at < 500:
        return otherwise
    return otherwise if deal.at == _DEAL_PRICE and deal.floor_micros is None else deal.at


def _price_paid(admitted: Sequence[Bid], floor: int, at: int, increment_micros: int) -> int:
    winner = admitted[0]
    if at == _DEAL_PRICE:
        return floor
    if at != _SECOND_PRICE:
        return winner.price_micros
    for rival in admitted:
        if rival is not winner and not same_advertiser(winner, rival):
            return min(winner.price_micros, max(floor, rival.price_micros + increment_micros))
    return min(winner.price_micros, floor or increment_micros)


def same_advertiser(one: Bid, other: Bid) -> bool:
    """Whether two bids are for one advertiser: a common adomain, or one bidder's one seat where a bid names none."""
    theirs = other.adomain
    if one.adomain and theirs:
        return one.adomain[0] in theirs or (len(one.adomain) > 1 and not set(one.adomain).isdisjoint(theirs))
    return one.seat == other.seat and one.bidder == other.bidder


_price = attrgetter("price_micros")
