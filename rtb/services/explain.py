"""Why an auction came out as it did: for every campaign and bidder, what it bid, or why it did not, or why it lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

from msgspec import Struct

from rtb.domain import facts, money
from rtb.domain.auction import Bid, Lost, Result
from rtb.domain.money import Rates
from rtb.domain.targeting import Candidate, Fit, check
from rtb.openrtb import BidRequest
from rtb.ports import Clock
from rtb.ports.bidder import Remote
from rtb.services.exchange import NOT_OFFERED, Auction, Exchange, Outcome, Status
from rtb.services.house_bidder import HouseBidder


class Verdict(Struct, kw_only=True, omit_defaults=True):
    """One campaign's or bidder's fate in one imp; prices are CPM floats.

    `verdict` is won, lost, no-bid, skipped (not asked) or failed.
    """

    impid: str
    bidder: str
    verdict: str
    campaign: str = ""
    seat: str = ""
    price: float | None = None
    criterion: str = ""
    why: str = ""
    loss: int | None = None
    min_to_win: float | None = None


class Explanation(Struct, kw_only=True):
    """A rehearsed auction. `clearing` is impid -> clearing price (CPM) of the imps that were sold; `told_less` are the
    bidders that were not told all of the user, each with how much less and why. `why` is what the request was refused
    for, where `nbr_name` leaves that open."""

    request_id: str
    outcome: str
    nbr: int | None
    nbr_name: str
    why: str = ""
    at: list[int]
    floors: dict[str, float]
    clearing: dict[str, float]
    told_less: dict[str, str]
    verdicts: list[Verdict]


async def explain(
    exchange: Exchange,
    house: HouseBidder,
    request: BidRequest,
    clock: Clock,
    rates: Rates,
    *,
    body: bytes = b"",
    offered: Mapping[str, Collection[str]] | None = None,
) -> Explanation:
    """Rehearse the request, spending nothing, and say what became of everybody; `body` and `offered` are as for
    `Exchange.begin`.

    Raises:
        BadRequest: an auction type this exchange does not run.
    """
    auction = exchange.begin(request, clock.monotonic_ns(), body=body, rehearsal=True, offered=offered)
    outcome = auction.outcome or await exchange.finish(auction)
    return explained(auction, outcome, exchange, house, rates)


def explained(
    auction: Auction,
    outcome: Outcome,
    exchange: Exchange,
    house: HouseBidder,
    rates: Rates,
    *,
    most: int | None = None,
) -> Explanation:
    """What became of everybody in an auction that is over. A campaign that made no bid is judged as it stands now: so
    many of them are at `most` (None: all), those that bid most."""
    verdicts: list[Verdict] = []
    told_less: dict[str, str] = {}
    if outcome.status is not Status.SHED and auction.fanned_out_ns:
        _campaigns(verdicts, auction, outcome, house, rates, most)
        _bidders(verdicts, auction, outcome, exchange, house)
        told_less = _told_less(auction, exchange)
    return Explanation(
        request_id=auction.request.id or "",
        outcome=outcome.status.value,
        nbr=None if outcome.nbr is None else int(outcome.nbr),
        nbr_name="" if outcome.nbr is None else outcome.nbr.name.lower(),
        at=[terms.at for terms in auction.terms],
        floors={terms.impid: money.to_cpm(terms.floor_micros) for terms in auction.terms},
        clearing={
            result.impid: money.to_cpm(result.price_micros) for result in outcome.results if result.winner is not None
        },
        told_less=told_less,
        verdicts=verdicts,
    )


def _campaigns(
    verdicts: list[Verdict], auction: Auction, outcome: Outcome, house: HouseBidder, rates: Rates, most: int | None
) -> None:
    """House campaigns in every imp: those that bid there, and so many others."""
    context = house.context(auction)
    fates = {result.impid: _fates(result) for result in outcome.results}
    for imp in auction.request.imp or ():
        placement = facts.placement(imp, rates)
        of_imp = fates.get(placement.impid, {})
        offered = _is_offered(auction, house.name, placement.impid)
        for campaign in islice(house.campaigns(), most):
            verdict = of_imp.pop(campaign.id, None)
            if verdict is None and not offered:
                verdict = Verdict(impid=placement.impid, bidder=house.name, verdict="no-bid")
                verdict.criterion, verdict.why = "offered", f"offered: {NOT_OFFERED}"
            elif verdict is None:
                live = house.is_funded(campaign.id)
                found = check(campaign, context, placement, live=live)
                if isinstance(found, Fit):
                    found = check(campaign, context, placement, live=live, pacing=house.objection(campaign.id))
                verdict = Verdict(impid=placement.impid, bidder=house.name, verdict="no-bid")
                if isinstance(found, Fit):
                    verdict.criterion = "rank"
                    verdict.price = money.to_cpm(found.price_micros)
                    verdict.why = (
                        f"rank: {verdict.price:.2f} CPM is eligible, but the advertiser or "
                        f"{house.advertisers} others had better bids"
                    )
                else:
                    verdict.criterion, verdict.why = found.criterion.value, found.text
            verdict.campaign, verdict.seat = campaign.id, campaign.advertiser
            verdicts.append(verdict)
        verdicts += of_imp.values()


def _bidders(
    verdicts: list[Verdict], auction: Auction, outcome: Outcome, exchange: Exchange, house: HouseBidder
) -> None:
    """Every other bidder: its bids, its refused bids, its failure, or its silence, and the imps that the request offers
    to others; of the house only a failure."""
    impids = [terms.impid for terms in auction.terms]
    for bidder in exchange.bidders:
        if bidder is house and bidder.name not in auction.failures:
            continue
        found = len(verdicts)
        for result in outcome.results:
            verdicts += [v for v in map(_of_bid, *_pairs(result)) if v.bidder == bidder.name]
        verdicts += [_lost(lost) for lost in auction.rejected if lost.bid.bidder == bidder.name]
        others = [impid for impid in impids if not _is_offered(auction, bidder.name, impid)]
        if len(verdicts) == found and len(others) < len(impids):
            verdicts.append(_silence(auction, bidder.name))
        verdicts += [
            Verdict(impid=impid, bidder=bidder.name, verdict="skipped", why=f"not asked: {NOT_OFFERED}")
            for impid in others
        ]


def _told_less(auction: Auction, exchange: Exchange) -> dict[str, str]:
    """Of the bidders that were asked, those that privacy does not let know who the user is, or where exactly."""
    found = {}
    for bidder in exchange.bidders:
        if isinstance(bidder, Remote) and bidder.name not in auction.skipped:
            treatment, reason = bidder.privacy(auction.request)
            if reason is not None:
                found[bidder.name] = f"{treatment.name.lower()}, {reason.value}"
    return found


def _silence(auction: Auction, name: str) -> Verdict:
    """Why a bidder that might have bid has no bid to show."""
    failed, skipped = auction.failures.get(name), auction.skipped.get(name)
    late = "late: had not answered at the deadline" if name in auction.pending else None
    return Verdict(
        impid="",
        bidder=name,
        verdict="failed" if failed or late else "skipped" if skipped else "no-bid",
        why=failed or late or (f"not asked: {skipped}" if skipped else "no bid: answered without one"),
    )


def _is_offered(auction: Auction, name: str, impid: str) -> bool:
    return auction.offered is None or impid in auction.offered.get(name, ())


def _pairs(result: Result) -> tuple[list[Bid | Lost], list[Result]]:
    entries: list[Bid | Lost] = list(result.losses)
    if result.winner is not None:
        entries.insert(0, result.winner)
    return entries, [result] * len(entries)


def _of_bid(entry: Bid | Lost, result: Result) -> Verdict:
    return _lost(entry) if isinstance(entry, Lost) else _won(entry, result)


def _fates(result: Result) -> dict[str, Verdict]:
    """Campaign id -> verdict, of the house bids of an imp."""
    found = {}
    for entry, of in zip(*_pairs(result), strict=True):
        bid = entry.bid if isinstance(entry, Lost) else entry
        if isinstance(bid, Candidate):
            verdict = found[bid.campaign.id] = _of_bid(entry, of)
            verdict.campaign = bid.campaign.id
    return found


def _won(bid: Bid, result: Result) -> Verdict:
    price, clearing = money.to_cpm(bid.price_micros), money.to_cpm(result.price_micros)
    return Verdict(
        impid=result.impid,
        bidder=bid.bidder,
        seat=bid.seat,
        verdict="won",
        price=price,
        min_to_win=money.to_cpm(result.min_to_win_micros),
        why=f"won: bid {price:.2f} CPM, pays {clearing:.6g}",
    )


def _lost(lost: Lost) -> Verdict:
    bid, least = lost.bid, lost.min_to_win_micros
    price = money.to_cpm(bid.price_micros)
    reason = lost.reason.name.lower().replace("_", " ")
    needed = "" if least is None else f"; {money.to_cpm(least):.6g} would have won"
    return Verdict(
        impid=bid.impid,
        bidder=bid.bidder,
        seat=bid.seat,
        verdict="lost",
        price=price,
        criterion=lost.reason.name.lower(),
        loss=int(lost.reason),
        min_to_win=None if least is None else money.to_cpm(least),
        why=f"lost: bid {price:.2f} CPM, {reason} ({int(lost.reason)}){needed}",
    )
