"""Keeps a share of the auctions whole, so that they can be run again under other rules (rtb.services.replay)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from msgspec.structs import replace

from rtb import openrtb
from rtb.domain import facts, money
from rtb.domain import replay as log
from rtb.domain.auction import HOUSE, Bid, Lost, Result
from rtb.domain.campaign import Campaign
from rtb.domain.frequency import caps
from rtb.domain.intake import RemoteBid
from rtb.domain.money import Rates
from rtb.domain.replay import AuctionLine, Header, RecordedBid, RecordedOutcome, RecordedResult
from rtb.domain.targeting import Candidate
from rtb.domain.terms import floor_micros
from rtb.openrtb import Loss, NoBid
from rtb.ports import Clock
from rtb.services.exchange import Auction, Outcome, Rules
from rtb.services.house_bidder import HouseBidder

Place = Callable[[Bid], int]
"""Where a bid stands among those of its auction."""

_log = structlog.get_logger(__name__)


class Tape(Protocol):
    """Where lines go. `put` neither waits nor raises; False where a line was dropped."""

    def put(self, record: bytes, campaigns: Sequence[Campaign] = ()) -> bool:
        """Keep a line, and before it these campaigns where the tape does not have them."""
        ...


def header(
    rules: Rules,
    clock: Clock,
    *,
    instance: str,
    share: float,
    currency: str,
    rates: Mapping[str, float],
    advertisers: int,
    settings: Mapping[str, Any],
) -> Header:
    """The header of a log.

    Args:
        rules: those of the exchange, with the tie key that it uses.
        clock: tells when this was.
        instance: the daemon.
        share: what is recorded of its auctions.
        currency: the exchange's own.
        rates: as they were given to `Rates`.
        advertisers: of the house, in an auction.
        settings: all of them, secrets masked.

    Raises:
        ValueError: the rules have no tie key: the exchange would make one that nobody knows.
    """
    if not rules.tie_key:
        raise ValueError("a replay log needs the tie key; give the exchange one")
    return Header(
        version=log.VERSION,
        instance=instance,
        started_at=clock.time(),
        share=share,
        currency=currency,
        rates=rates,
        increment_micros=rules.increment_micros,
        deals_first=rules.deals_first,
        first_price_types=sorted(rules.first_price_types),
        tie_key=rules.tie_key.hex(),
        advertisers=advertisers,
        settings=settings,
    )


class ReplayLog:
    """A listener of `Exchange.listen`."""

    def __init__(
        self,
        tape: Tape,
        clock: Clock,
        rates: Rates,
        *,
        share: float,
        house: HouseBidder | None = None,
        bidders: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Keep this share of the auctions, 0 to 1.

        Args:
            tape: takes the lines.
            clock: the exchange's.
            rates: the exchange's.
            share: 0 to 1.
            house: asked, after an auction, which campaigns its floor kept out; None: nobody is.
            bidders: the names of those in the exchange.
        """
        self._tape = tape
        self._clock = clock
        self._rates = rates
        self._share = share
        self._house = house
        self._bidders = bidders
        self._broken = False
        self.recorded = 0
        """Auctions given to the tape; what it dropped is not among them."""

    def __call__(self, auction: Auction, outcome: Outcome) -> None:
        """Record it, or not; rehearsals never, nor what was abandoned or broke."""
        if auction.rehearsal or random.random() >= self._share or outcome.nbr is NoBid.TECHNICAL_ERROR:
            return
        try:
            kept_out = self._kept_out(auction)
            bids = _cleared(auction, outcome)
            line = self._line(auction, outcome, bids, kept_out)
            campaigns = [bid.campaign for bid in (*bids, *kept_out) if isinstance(bid, Candidate)]
            self.recorded += self._tape.put(log.encode(line), campaigns)
        except Exception:  # a mistake of ours; the auction must not suffer for it
            if not self._broken:
                self._broken = True
                _log.exception("auction_not_recorded", auction_id=auction.id, note="further ones are not told")

    def _line(
        self, auction: Auction, outcome: Outcome, bids: Sequence[Bid], kept_out: Sequence[Candidate]
    ) -> AuctionLine:
        received_ns, took_ns = auction.received_ns, self._clock.monotonic_ns() - auction.received_ns
        entered = {id(bid) for of_imp in auction.bids.values() for bid in of_imp}
        unpaid = {
            id(lost.bid)
            for result in outcome.results
            for lost in result.refused
            if lost.reason == Loss.INTERNAL_ERROR and id(lost.bid) not in entered
        }
        places = {id(bid): place for place, bid in enumerate(bids)}
        return AuctionLine(
            id=auction.id,
            received_at=self._clock.time() - took_ns / 1e9,
            deadline_ns=auction.deadline_ns - received_ns,
            took_ns=took_ns,
            request=log.one_line(auction.body or openrtb.encode(auction.request)),
            outcome=recorded_outcome(outcome, lambda bid: places[id(bid)]),
            asked_ns=auction.fanned_out_ns - received_ns if auction.fanned_out_ns else None,
            profile=auction.profile,
            frequency=_frequency(auction, outcome),
            bidders=tuple(self._bidders()),
            bids=[self._bid(bid, unpaid=id(bid) in unpaid) for bid in bids],
            kept_out=[self._bid(bid) for bid in kept_out],
            rejected=[(self._bid(lost.bid), int(lost.reason)) for lost in auction.rejected],
            failures=auction.failures,
            skipped=auction.skipped,
            late=sorted(auction.pending),
            answered_ns={name: at_ns - received_ns for name, at_ns in auction.answered_ns.items()},
        )

    def _bid(self, bid: Bid, *, unpaid: bool = False) -> RecordedBid:
        own, version, creative, wire_id, sent_micros = "", 0, "", "", None
        if isinstance(bid, Candidate):
            own, version, creative = bid.campaign.id, bid.campaign.version, bid.creative.id
        elif isinstance(bid, RemoteBid):
            wire_id, sent_micros = bid.content.id or "", self._sent_micros(bid)
        return RecordedBid(
            impid=bid.impid,
            bidder=bid.bidder,
            seat=bid.seat,
            price_micros=bid.price_micros,
            id=wire_id,
            dealid=bid.dealid,
            adomain=tuple(bid.adomain),
            mtype=bid.mtype,
            dur=bid.dur,
            group=bid.group,
            at=bid.at,
            sent_micros=sent_micros,
            campaign=own,
            version=version,
            creative=creative,
            unpaid=unpaid,
        )

    def _sent_micros(self, bid: RemoteBid) -> int | None:
        """Its price as sent, in the exchange currency, where that is another."""
        try:
            sent_micros = self._rates.bid_micros(money.to_micros(bid.content.price or 0.0), bid.currency)
        except (ValueError, KeyError):  # it was refused for that
            return None
        return None if sent_micros == bid.price_micros else sent_micros

    def _kept_out(self, auction: Auction) -> list[Candidate]:
        """The campaigns that would have bid had there been no floor, and whom the floor kept from it; but for those
        that pace, which would have had to ask first."""
        house = self._house
        if house is None or not auction.fanned_out_ns or HOUSE in auction.failures:
            return []
        found: list[Candidate] = []
        context = None
        for imp, terms in zip(auction.request.imp or (), auction.terms, strict=True):
            if auction.offered is not None and terms.impid not in auction.offered.get(HOUSE, ()):
                continue
            seats = {bid.seat for bid in auction.bids.get(terms.impid, ()) if bid.bidder == HOUSE}
            if not terms.floor_micros or not terms.sold or len(seats) >= house.advertisers:
                continue
            context = context or house.context(auction)
            placement = facts.placement(imp, self._rates, replace(terms, floor_micros=0))
            matched = house.index.match(context, placement, limit=house.advertisers, admits=_never)
            found += [bid for bid in matched if bid.seat not in seats and bid.price_micros < floor_micros(bid, terms)]
        return found


def recorded_outcome(outcome: Outcome, place: Place) -> RecordedOutcome:
    """An outcome as a value, its bids by their `place`."""
    return RecordedOutcome(
        status=outcome.status.value,
        nbr=None if outcome.nbr is None else int(outcome.nbr),
        currency=outcome.currency,
        results=[_recorded_result(result, place) for result in outcome.results],
    )


def _recorded_result(result: Result, place: Place) -> RecordedResult:
    return RecordedResult(
        impid=result.impid,
        winner=None if result.winner is None else place(result.winner),
        price_micros=result.price_micros,
        min_to_win_micros=result.min_to_win_micros,
        refused=[(place(lost.bid), int(lost.reason), lost.min_to_win_micros) for lost in result.refused],
        outbid=[place(bid) for bid in result.outbid],
        to_beat_micros=result.to_beat_micros,
        paid=bool(result.receipt),
    )


def _cleared(auction: Auction, outcome: Outcome) -> list[Bid]:
    """The bids as they were cleared at first. Those that were withdrawn since come first of their imp, as they did by
    their price."""
    found: list[Bid] = []
    withdrawn: list[Lost] = []
    for result in outcome.results:
        withdrawn += result.refused
    for impid, bids in auction.bids.items():
        here = {id(bid) for bid in bids}
        found += [lost.bid for lost in withdrawn if lost.bid.impid == impid and id(lost.bid) not in here]
        found += bids
    return found


def _frequency(auction: Auction, outcome: Outcome) -> Mapping[str, int]:
    """The user's counters before the auction: what it won for capped campaigns is in them already."""
    counts = {**auction.frequency}
    if auction.user_id:
        for result in outcome.results:
            if result.receipt and isinstance(result.winner, Candidate):
                for cap in caps(result.winner.campaign):
                    if cap.counter in counts:
                        counts[cap.counter] -= 1
    return counts


def _never(_campaign_id: str) -> bool:
    return False
