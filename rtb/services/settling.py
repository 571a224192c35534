"""How an auction ends: its imps are cleared, the winners' costs claimed, all of it counted and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from msgspec import Struct

from rtb.domain import auction as rules
from rtb.domain import money
from rtb.domain.auction import Bid, Lost, Result
from rtb.domain.terms import Terms
from rtb.openrtb import Loss, NoBid
from rtb.ports import Bidder, Clock
from rtb.services.metrics import Metrics
from rtb.services.open_auction import Auction, Outcome, Status

Listener = Callable[[Auction, Outcome], None]

_WON, _NO_BID = Status.WON, Status.NO_BID  # a look-up in an enum costs ten times that of a name
_OUTBID = int(Loss.OUTBID)
_price = attrgetter("price_micros")


class Rules(Struct, frozen=True, kw_only=True):
    """The rules every auction of the exchange runs under; see config/default.toml, section auction."""

    increment_micros: int = money.CENT_MICROS
    deals_first: bool = True
    first_price_types: frozenset[int] = frozenset()
    tie_key: bytes = b""


class Settling:
    """Settles auctions."""

    def __init__(self, rules: Rules, tie_key: bytes, metrics: Metrics, clock: Clock) -> None:
        """Under `rules`; bids of equal price are ordered by `tie_key`."""
        self.bidders: Mapping[str, Bidder] = {}
        """Whose bids can win, by name."""
        self.listeners: list[Listener] = []
        """Called with every auction that has ended."""
        self._increment_micros = rules.increment_micros
        self._deals_first = rules.deals_first
        self._tie_key = tie_key
        self._metrics = metrics
        self._now_ns = clock.monotonic_ns

    def settle(self, auction: Auction) -> None:
        """Clear and claim in one step of the loop, without an await: what was checked is what is spent."""
        if auction.unread:
            auction.read()
        results: list[Result] = []
        bids = 0
        for of_imp in auction.bids.values():
            bids += len(of_imp)
        if bids:
            rank = rules.tie_break(self._tie_key, auction.id)
            results = self._cleared(auction, rank)
            if not auction.rehearsal:
                self._claim(auction, results, rank)
        if auction.rejected and results:
            rules.tell_refused(auction.rejected, results, auction.terms, deals_first=self._deals_first)
        if not auction.rehearsal:
            self._count_bids(auction, bids, results)
        for result in results:
            if result.winner is not None:
                outcome = Outcome(auction.id, _WON, None, results, auction.currency)
                break
        else:
            outcome = _unsold(auction, bids, results)
        self.close(auction, outcome)

    def close(self, auction: Auction, outcome: Outcome) -> None:
        """The end of every auction: counted once, told to the listeners."""
        auction.outcome = outcome
        self._metrics.in_flight -= 1
        if not auction.rehearsal:
            self._count(auction, outcome)
        for listener in self.listeners:
            listener(auction, outcome)

    def _cleared(self, auction: Auction, rank: rules.TieBreak) -> list[Result]:
        bids, increment_micros = auction.bids, self._increment_micros
        ranked = (bids if auction.ranked else _ranked(auction)) if auction.plain else None
        if ranked is not None:
            results = []
            for terms in auction.terms:
                of_imp = ranked.get(terms.impid, ())
                results.append(rules.clear_ranked(of_imp, terms, rank, increment_micros=increment_micros))
            return results
        return rules.clear_all(
            bids, auction.terms, rank, increment_micros=increment_micros, deals_first=self._deals_first
        )

    def _claim(self, auction: Auction, results: list[Result], rank: rules.TieBreak) -> None:
        """Have each winner's bidder take the cost; an imp whose winner cannot is cleared again without it."""
        metrics = self._metrics
        for i, result in enumerate(results):
            withdrawn: list[Lost] = []
            while (winner := result.winner) is not None:
                terms = auction.terms[i]
                cost_nanos = result.price_micros
                if terms.multiplier != 1.0:
                    cost_nanos = money.impression_nanos(cost_nanos, terms.multiplier)
                bidder = self.bidders.get(winner.bidder)
                if bidder is not None and (receipt := bidder.claim(auction, winner, cost_nanos)):
                    result.receipt = receipt
                    metrics.wins += 1
                    metrics.spend_nanos += cost_nanos
                    break
                withdrawn.append(Lost(winner, Loss.INTERNAL_ERROR))
                result = results[i] = self._cleared_without(auction, winner, terms, rank, withdrawn)

    def _cleared_without(
        self, auction: Auction, winner: Bid, terms: Terms, rank: rules.TieBreak, withdrawn: list[Lost]
    ) -> Result:
        """Clear an imp again without a bid that cannot be paid for."""
        others = [bid for bid in auction.bids[terms.impid] if bid is not winner]
        running = [bid for bid in others if not bid.group]  # a group has lost here, or it would have won here
        withdrawn += [Lost(bid, Loss.OUTBID) for bid in others if bid.group]
        auction.bids[terms.impid] = running
        result = rules.clear(
            running, terms, rank, increment_micros=self._increment_micros, deals_first=self._deals_first
        )
        result.refused += withdrawn
        return result

    def _count_bids(self, auction: Auction, bids: int, results: Sequence[Result]) -> None:
        metrics = self._metrics
        metrics.bids += bids
        if auction.pending or auction.failures or auction.skipped:
            metrics.bidder_timeouts += len(auction.pending)
            metrics.bidder_errors += len(auction.failures)
            metrics.bidder_skips += len(auction.skipped)
        losses = metrics.losses
        for result in results:
            if result.outbid:
                losses[_OUTBID] += len(result.outbid)
            if result.refused:
                for lost in result.refused:
                    losses[lost.reason] += 1
        if auction.rejected:
            for lost in auction.rejected:
                losses[lost.reason] += 1

    def _count(self, auction: Auction, outcome: Outcome) -> None:
        metrics = self._metrics
        metrics.imps += len(auction.terms)
        if outcome.nbr is None:
            metrics.won += 1
        else:
            metrics.nbr[outcome.nbr] += 1
            if outcome.status is _NO_BID:
                metrics.no_bid += 1
            elif outcome.status is Status.TIMEOUT:
                metrics.timeout += 1
            else:
                metrics.shed += 1
                return
        auction.settled_ns = now_ns = self._now_ns()
        metrics.latency.record(now_ns - auction.received_ns)


def _ranked(auction: Auction) -> dict[str, list[Bid]] | None:
    """Each imp's bids, the dearest first; None unless all of them are open ones, as most are."""
    found = {}
    for impid, of_imp in auction.bids.items():
        for bid in of_imp:
            if bid.dealid is not None or bid.group or bid.at:
                return None
        found[impid] = sorted(of_imp, key=_price, reverse=True) if len(of_imp) > 1 else of_imp
    return found


def _unsold(auction: Auction, bids: int, results: Sequence[Result]) -> Outcome:
    if auction.pending and not bids:
        return Outcome(auction.id, Status.TIMEOUT, NoBid.ALL_LATE, results, auction.currency)
    return Outcome(auction.id, Status.NO_BID, _no_bid_reason(results), results, auction.currency)


def _no_bid_reason(results: Sequence[Result]) -> NoBid:
    reasons = {lost.reason for result in results for lost in result.losses}
    if reasons and reasons <= {Loss.BELOW_FLOOR, Loss.BELOW_DEAL_FLOOR}:
        return NoBid.ALL_BELOW_FLOOR
    return NoBid.NO_ELIGIBLE_DEMAND
