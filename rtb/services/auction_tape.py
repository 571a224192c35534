"""The last auctions, a few a second of them, kept whole so that any of them can be explained when somebody asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import structlog
from msgspec import Struct

from rtb.domain import money
from rtb.domain.money import Rates
from rtb.domain.targeting import Candidate
from rtb.openrtb import BidRequest
from rtb.ports import Clock
from rtb.services.exchange import Auction, Exchange, Outcome
from rtb.services.explain import Explanation, explained
from rtb.services.house_bidder import HouseBidder

NS = 1_000_000_000
_MS = 1e6
_log = structlog.get_logger(__name__)


class SoldImp(Struct, frozen=True):
    """Who won an imp; `price` and `paid` are CPM. `campaign` is "" for a bidder outside."""

    impid: str
    bidder: str
    seat: str
    campaign: str
    price: float
    paid: float


class AuctionRow(Struct, frozen=True, kw_only=True):
    """An auction on the tape. `at` is Unix seconds; `took_ms` and `deadline_ms` count from its arrival."""

    id: str
    request_id: str
    at: float
    outcome: str
    nbr: int | None
    imps: int
    bids: int
    took_ms: float
    deadline_ms: float
    late: list[str]
    failed: list[str]
    skipped: list[str]
    sold: list[SoldImp]


class ImpFacts(Struct, frozen=True):
    """What an imp offers; `floor` is CPM in the exchange currency."""

    impid: str
    media: list[str]
    w: int | None
    h: int | None
    floor: float
    at: int
    deals: list[str]


class RequestFacts(Struct, frozen=True, kw_only=True):
    """What the request says that matters to bidders. Of the user only whether there is one, and what is known."""

    site: str
    app: str
    country: str
    region: str
    city: str
    devicetype: int | None
    os: str
    language: str
    user: bool
    profile: bool
    tmax_ms: int | None
    imps: list[ImpFacts]


class Answer(Struct, frozen=True):
    """A bidder's part: `result` is bids, no-bid, failed, late or skipped (not asked). `ms` counts from the auction's
    arrival, None where no answer came over the network."""

    bidder: str
    ms: float | None
    result: str
    bids: int


class Timing(Struct, frozen=True, kw_only=True):
    """When what happened, in ms from the arrival. `asked_ms`: the user was known and the bidders were asked, None when
    none was; `settled_ms`: it was decided, None where there was nothing to decide."""

    asked_ms: float | None
    answers: list[Answer]
    settled_ms: float | None
    deadline_ms: float


class AuctionStory(Struct, frozen=True):
    """One auction, explained. There are so many `campaigns`; those that bid are in `explanation`, and the first
    `judged` of all, those that bid most, whether they did or not."""

    auction: AuctionRow
    request: RequestFacts
    timing: Timing
    explanation: Explanation
    campaigns: int
    judged: int


class _Kept(Struct, frozen=True):
    auction: Auction
    outcome: Outcome
    at: float
    took_ns: int


class AuctionTape:
    """A listener of `Exchange.listen`. Its own `listeners` get a row of each auction that is kept; they must not
    block."""

    def __init__(
        self,
        exchange: Exchange,
        house: HouseBidder,
        rates: Rates,
        clock: Clock,
        *,
        keep: int = 256,
        per_s: float = 5.0,
        campaigns: int = 200,
    ) -> None:
        """Keep the last `keep` auctions, no more than `per_s` a second; explain with so many campaigns that made no
        bid, at about 10 us each."""
        self.listeners: list[Callable[[AuctionRow], None]] = []
        self._exchange = exchange
        self._house = house
        self._rates = rates
        self._clock = clock
        self._keep = keep
        self._pause_ns = round(NS / per_s)
        self._campaigns = campaigns
        self._next_ns = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __call__(self, auction: Auction, outcome: Outcome) -> None:
        """Keep it, or not; rehearsals never."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns or auction.rehearsal:
            return
        self._next_ns = now_ns + self._pause_ns
        kept = _Kept(auction, outcome, self._clock.time(), now_ns - auction.received_ns)
        self._kept[auction.id] = kept
        if len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        if self.listeners:
            self._tell(_row(kept))

    def recent(self, limit: int = 50) -> list[AuctionRow]:
        """The last ones, the newest first."""
        return [_row(self._kept[auction_id]) for auction_id in list(reversed(self._kept))[:limit]]

    def explain(self, auction_id: str) -> AuctionStory | None:
        """One of them, None when it is not on the tape, or no longer."""
        kept = self._kept.get(auction_id)
        if kept is None:
            return None
        auction, outcome = kept.auction, kept.outcome
        found = explained(auction, outcome, self._exchange, self._house, self._rates, most=self._campaigns)
        return AuctionStory(
            auction=_row(kept),
            request=_facts(auction),
            timing=_timing(auction, [bidder.name for bidder in self._exchange.bidders]),
            explanation=found,
            campaigns=len(self._house.index),
            judged=min(self._campaigns, len(self._house.index)),
        )

    def _tell(self, row: AuctionRow) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(row)
            except Exception:
                _log.exception("auction_listener_failed")


def _row(kept: _Kept) -> AuctionRow:
    auction, outcome = kept.auction, kept.outcome
    return AuctionRow(
        id=auction.id,
        request_id=auction.request.id or "",
        at=kept.at,
        outcome=outcome.status.value,
        nbr=None if outcome.nbr is None else int(outcome.nbr),
        imps=len(auction.request.imp or ()),
        bids=sum(map(len, auction.bids.values())),
        took_ms=_since(0, kept.took_ns),
        deadline_ms=_since(auction.received_ns, auction.deadline_ns),
        late=sorted(auction.pending),
        failed=sorted(auction.failures),
        skipped=sorted(auction.skipped),
        sold=[
            SoldImp(
                result.impid,
                winner.bidder,
                winner.seat,
                winner.campaign.id if isinstance(winner, Candidate) else "",
                money.to_cpm(winner.price_micros),
                money.to_cpm(result.price_micros),
            )
            for result in outcome.results
            if (winner := result.winner) is not None
        ],
    )


def _timing(auction: Auction, bidders: Sequence[str]) -> Timing:
    """`bidders` are those there are now; of others that have gone since, what is known is told as well."""
    began_ns = auction.received_ns
    asked = auction.fanned_out_ns > 0
    bids: dict[str, int] = {}
    for bid in chain.from_iterable(auction.bids.values()):
        bids[bid.bidder] = bids.get(bid.bidder, 0) + 1
    known = {*bids, *auction.answered_ns, *auction.failures, *auction.skipped, *auction.pending}
    names = [*bidders, *sorted(known.difference(bidders))] if asked else []
    answers = []
    for name in names:
        answered_ns = auction.answered_ns.get(name)
        ms = None if answered_ns is None else _since(began_ns, answered_ns)
        answers.append(Answer(name, ms, _result(auction, name, bids), bids.get(name, 0)))
    return Timing(
        asked_ms=_since(began_ns, auction.fanned_out_ns) if asked else None,
        answers=answers,
        settled_ms=_since(began_ns, auction.settled_ns) if auction.settled_ns else None,
        deadline_ms=_since(began_ns, auction.deadline_ns),
    )


def _result(auction: Auction, name: str, bids: Mapping[str, int]) -> str:
    if name in auction.pending:
        return "late"
    if name in auction.failures:
        return "failed"
    if name in auction.skipped:
        return "skipped"
    return "bids" if bids.get(name) else "no-bid"


def _since(began_ns: int, ns: int) -> float:
    return round((ns - began_ns) / _MS, 3)


def _facts(auction: Auction) -> RequestFacts:
    request: BidRequest = auction.request
    site, app, device = request.site, request.app, request.device
    geo = None if device is None else device.geo
    imps = []
    for imp, terms in zip(request.imp or (), auction.terms, strict=False):
        media = [name for name in ("banner", "video", "audio", "native") if getattr(imp, name) is not None]
        size = imp.banner or imp.video
        imps.append(
            ImpFacts(
                terms.impid,
                media,
                None if size is None else size.w,
                None if size is None else size.h,
                money.to_cpm(terms.floor_micros),
                terms.at,
                list(terms.deals or ()),
            )
        )
    return RequestFacts(
        site=(site.domain or "") if site is not None else "",
        app=(app.bundle or app.domain or "") if app is not None else "",
        country=(geo.country or "") if geo is not None else "",
        region=(geo.region or "") if geo is not None else "",
        city=(geo.city or "") if geo is not None else "",
        devicetype=None if device is None else device.devicetype,
        os=(device.os or "") if device is not None else "",
        language=(device.language or "") if device is not None else "",
        user=bool(auction.user_id),
        profile=auction.profile is not None,
        tmax_ms=request.tmax,
        imps=imps,
    )
