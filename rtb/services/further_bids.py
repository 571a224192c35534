"""The bids that a page gets beside the winner of an imp: ``ext.prebid.multibid``.

An imp has one winner. The next bids of the codes that the page names there are offered too, as many of each as it
takes, the winner's among them: each at what it would have paid had those before it not been made, and as if in an
auction of its own, the n-th under the auction's id with ``.n`` behind it. So each has its own hold, its own tracking,
and one billing event at most, whichever is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy

from msgspec.structs import replace

from rtb.domain import auction as rules
from rtb.domain import money
from rtb.domain.auction import Bid, Result
from rtb.domain.intake import RemoteBid
from rtb.domain.prebid import Asked
from rtb.domain.terms import Terms
from rtb.openrtb import BidRequest, Source
from rtb.services.exchange import Auction, Exchange, Outcome, Status
from rtb.services.settling import Rules

Offered = Callable[[Auction, Outcome], None]
"""Hears of further bids as of an auction that has ended; the page decides whether they are sold (``source.fd`` = 1)."""


class FurtherBids:
    """Finds them, in the step in which an auction ended."""

    def __init__(self, exchange: Exchange, rules: Rules, tell: Offered | None = None) -> None:
        """Of the auctions of `exchange`, which runs under `rules`; `tell` hears of those that are offered."""
        self._exchange = exchange
        self._rules = rules
        self._tell = tell

    def of(self, asked: Asked, auction: Auction, outcome: Outcome) -> list[Outcome]:
        """One outcome for all second bids, one for all third ones ..., as far as the page takes any."""
        if not asked.limits or outcome.nbr is not None:
            return []
        view = copy(auction)
        view.request, view.rejected = _sold_elsewhere(auction.request), []
        by_place: dict[int, list[Result]] = {}
        for result, terms in zip(outcome.results, auction.terms, strict=True):
            for place, further in enumerate(self._offers(asked, view, auction.id, result, terms), 2):
                by_place.setdefault(place, []).append(further)
        found = [
            Outcome(_name(auction.id, place), Status.WON, None, results, outcome.currency)
            for place, results in by_place.items()
        ]
        outcome.further = [result.winner for one in found for result in one.results if result.winner is not None]
        for one in found:
            if self._tell is not None:
                told = copy(view)
                told.id = one.auction_id
                self._tell(told, one)
        return found

    def _offers(self, asked: Asked, view: Auction, name: str, result: Result, terms: Terms) -> Iterator[Result]:
        """The bids of an imp after its winner, the dearest first; those that cannot be paid for are passed over."""
        if result.winner is None:
            return
        wanted = Counter({code: limit.maxbids for code, limit in asked.limits.items()})
        wanted[asked.seat(result.winner).lower()] -= 1
        running: Sequence[Bid] = result.outbid
        place = 2
        while running and any(count > 0 for count in wanted.values()):
            cleared = rules.clear(
                running,
                terms,
                _as_they_came,
                increment_micros=self._rules.increment_micros,
                deals_first=self._rules.deals_first,
            )
            running, bid = cleared.outbid, cleared.winner
            if bid is None or bid.group or wanted[code := asked.seat(bid).lower()] <= 0:
                continue
            view.id = _name(name, place)
            if not view.rehearsal:
                receipt = self._claimed(view, bid, money.impression_nanos(cleared.price_micros, terms.multiplier))
                if not receipt:
                    continue
            else:
                receipt = None
            yield Result(terms.impid, bid, cleared.price_micros, cleared.min_to_win_micros, [], receipt=receipt)
            wanted[code] -= 1
            place += 1

    def _claimed(self, view: Auction, bid: Bid, cost_nanos: int) -> object:
        """What its bidder gives for the cost. A remote bid costs nobody here, and is a win once the page says so."""
        if isinstance(bid, RemoteBid):
            return True
        for bidder in self._exchange.bidders:
            if bidder.name == bid.bidder:
                return bidder.claim(view, bid, cost_nanos)
        return None


def _name(auction_id: str, place: int) -> str:
    return f"{auction_id}.{place}"


def _sold_elsewhere(request: BidRequest) -> BidRequest:
    """The request of an auction that does not decide the sale."""
    return replace(request, source=replace(request.source or Source(), fd=1))


def _as_they_came(impid: str, seat: str) -> bytes:
    """The order of equal bids, which the auction has put in order already."""
    return b""
