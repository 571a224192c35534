"""Groups of bids that win all their imps or none [OpenRTB 2.6 4.2.2, ``seatbid.group``]: which of them stay in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rtb.openrtb import Loss

if TYPE_CHECKING:
    from rtb.domain.auction import Bid, Result, TieBreak

MAX_WITHDRAWALS = 16

Settle = Callable[[Mapping[str, Loss]], "list[Result]"]


def settled(
    groups: Mapping[str, Sequence[Bid]], settle: Settle, rank: TieBreak
) -> tuple[list[Result], dict[str, Loss]]:
    """The auction without the groups that cannot win all their imps, and what broke each of those.

    The highest bid wins its imp, grouped or not. A group that does not win all its imps is withdrawn and the auction
    cleared again, the group with the lowest sum of prices first. Then each withdrawn group, the highest sum first,
    comes back if it now wins all its imps and breaks no other: what beat it may have been withdrawn after it. Both go
    one at a time up to MAX_WITHDRAWALS, so that a bidder that sends very many groups cannot hold up the exchange.

    Args:
        groups: every group's bids.
        settle: clears all imps without the named groups.
        rank: order of groups of equal sums.
    """
    dearest_first = sorted(groups, key=lambda name: (-_sum_of_prices(groups[name]), rank("", name)))
    out: dict[str, Loss] = {}
    results = settle(out)
    while broken := _broken(dearest_first, out, groups, results):
        for name in broken[-1:] if len(out) < MAX_WITHDRAWALS else broken:
            out[name] = _what_broke(name, results)
        results = settle(out)
    for name in [name for name in dearest_first if name in out][:MAX_WITHDRAWALS]:
        fewer = {other: reason for other, reason in out.items() if other != name}
        with_it = settle(fewer)
        if not _broken(dearest_first, fewer, groups, with_it):
            out, results = fewer, with_it
    return results, out


def _sum_of_prices(members: Sequence[Bid]) -> int:
    """Of its best bid on each imp."""
    best: dict[str, int] = {}
    for bid in members:
        best[bid.impid] = max(best.get(bid.impid, 0), bid.price_micros)
    return sum(best.values())


def _broken(
    names: Sequence[str], out: Mapping[str, Loss], groups: Mapping[str, Sequence[Bid]], results: Sequence[Result]
) -> list[str]:
    """The groups in the auction that do not win all their imps, in the order of `names`."""
    won = {result.impid: result.winner.group for result in results if result.winner is not None}
    return [name for name in names if name not in out and any(won.get(bid.impid) != name for bid in groups[name])]


def _what_broke(name: str, results: Sequence[Result]) -> Loss:
    """The rule that one of its bids fell foul of, else that it was outbid."""
    reasons = (lost.reason for result in results for lost in result.losses if lost.bid.group == name)
    return next((reason for reason in reasons if reason is not Loss.OUTBID), Loss.OUTBID)
