"""The exchange: a request in, an outcome out, inside the deadline.

    begin      admit, look the user up if that needs no waiting, hand the auction to every bidder, settle if complete
    conclude   what needs waiting: the user's profile, then the bidders, until the deadline; then a callback
    finish     the same, to be awaited
    run        begin and finish

An edge calls `begin` and answers at once when the outcome is there. An auction that waits for bidders costs one timer;
a task is made only where a profile must be looked up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import partial

import structlog
from msgspec import Struct

from rtb.domain import auction as rules
from rtb.domain import money, privacy
from rtb.domain.auction import HOUSE, Bid, Lost, Result, Terms
from rtb.domain.privacy import PrivacyPolicy, Treatment
from rtb.domain.profile import Profile
from rtb.errors import BadRequest
from rtb.openrtb import AuctionType, BidRequest, Loss, NoBid
from rtb.ports import Bidder, Clock
from rtb.services.admission import Admission
from rtb.services.metrics import Metrics
from rtb.services.profiles import UNKNOWN, Profiles, User

MAX_USER_ID = 512
"""Characters; what is longer identifies nobody, and is not kept."""

NOT_AWAITED = "secondary: all others had answered"
"""Why a bidder was skipped that had been asked."""
NOT_OFFERED = "the request names others"
"""Why a bidder was not asked for any imp."""

_OWN_PRIVACY = PrivacyPolicy()
_SECOND_PRICE, _FIRST_PRICE = int(AuctionType.SECOND_PRICE_PLUS), int(AuctionType.FIRST_PRICE)
_OUTBID = int(Loss.OUTBID)

_log = structlog.get_logger(__name__)


class Status(StrEnum):
    """How an auction ended, as in the header ``x-rtb-outcome``."""

    WON = "won"
    NO_BID = "no-bid"
    TIMEOUT = "timeout"
    SHED = "shed"


_WON, _NO_BID = Status.WON, Status.NO_BID  # a look-up in an enum costs ten times that of a name


class Outcome(Struct, gc=False):
    """What an auction came to. Prices are CPM micros of the exchange currency; `currency` is what to answer in.

    `nbr` is None when something was won.
    """

    auction_id: str
    status: Status
    nbr: NoBid | None
    results: Sequence[Result]
    currency: str


class Rules(Struct, frozen=True, kw_only=True):
    """The rules every auction of the exchange runs under; see config/default.toml, section auction."""

    increment_micros: int = money.CENT_MICROS
    deals_first: bool = True
    first_price_types: frozenset[int] = frozenset()
    tie_key: bytes = b""


class Auction(Struct, eq=False):
    """One auction in flight; rtb.ports.OpenAuction is what bidders see of it.

    Times are nanoseconds of the monotonic clock, 0 for what has not come to pass.

    Attributes:
        body: the request as it came in, b"" where it did not come as bytes.
        offered: bidder -> ids of the imps that it may bid on, absent for none; None when all may on all.
        failures: bidder -> why it failed.
        skipped: bidder -> why it was not asked, or not waited for.
        pending: who has not reported; at the end, who is late.
        secondary: whom the auction does not wait for once all others have reported.
        answered_ns: bidder -> when its answer came.
    """

    id: str
    request: BidRequest
    received_ns: int
    deadline_ns: int
    rehearsal: bool = False
    body: bytes = b""
    offered: Mapping[str, Collection[str]] | None = None
    terms: Sequence[Terms] = ()
    currency: str = ""
    user_id: str = ""
    profile: Profile | None = None
    frequency: Mapping[str, int] = {}
    bids: dict[str, list[Bid]] = {}
    rejected: list[Lost] = []
    failures: dict[str, str] = {}
    skipped: dict[str, str] = {}
    pending: set[str] = set()
    secondary: frozenset[str] = frozenset()
    answered_ns: dict[str, int] = {}
    plain: bool = True
    """Every imp is sold without deals, to anybody, at one floor for all."""
    ranked: bool = False
    """All bids are the house's: the best of each imp stands first, and none is below the floor (`Index.match`)."""
    fanned_out_ns: int = 0
    settled_ns: int = 0
    outcome: Outcome | None = None
    _complete: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        """Whom it is about."""
        self.user_id = _user_id(self.request)

    def report(
        self,
        bidder: Bidder,
        bids: Sequence[Bid] = (),
        rejected: Sequence[Lost] = (),
        failure: str | None = None,
        *,
        skipped: str | None = None,
        answered_ns: int = 0,
    ) -> None:
        """Take a bidder's report; once the auction is settled it is too late, and forgotten."""
        if self.outcome is not None or bidder.name not in self.pending:
            return
        self.pending.discard(bidder.name)
        if self.offered is not None:
            mine = self.offered.get(bidder.name, ())
            bids = [bid for bid in bids if bid.impid in mine]
        if bids:
            self.ranked = not self.bids and bidder.name == HOUSE
            if len(self.terms) == 1 and not self.bids:
                self.bids[self.terms[0].impid] = [*bids]
            else:
                for bid in bids:
                    self.bids.setdefault(bid.impid, []).append(bid)
        if rejected:
            self.rejected.extend(rejected)
        if failure is not None:
            self.failures[bidder.name] = failure
        if skipped is not None:
            self.skipped[bidder.name] = skipped
        if answered_ns:
            self.answered_ns[bidder.name] = answered_ns
        if self._complete is not None and self.pending <= self.secondary:
            self._complete()

    def let_go(self, bidder: Bidder) -> None:
        """Do not wait for it once all others have reported, as if it were secondary."""
        self.secondary |= {bidder.name}

    def when_complete(self, complete: Callable[[], None]) -> None:
        """Call it when all have reported that the auction waits for. If only secondary bidders are left to wait for, it
        waits for them."""
        if self.pending <= self.secondary:
            self.secondary = frozenset()
        self._complete = complete

    def forget_completion(self) -> None:
        """Call nobody any more. What would be called holds the auction: together they would be garbage that only the
        collector frees, and it looks at what is older than a moment once in 100,000 auctions."""
        self._complete = None


Done = Callable[[Auction, Exception | None], None]
"""Hears that an auction is settled, or of the mistake of ours that prevented it."""


class Exchange:
    """Runs auctions among its bidders."""

    def __init__(
        self,
        bidders: Sequence[Bidder],
        profiles: Profiles,
        admission: Admission,
        metrics: Metrics,
        clock: Clock,
        *,
        rates: money.Rates,
        rules: Rules,
    ) -> None:
        """Auctions run under `rules`, in the currency of `rates`."""
        self.bidders: tuple[Bidder, ...] = ()
        self._by_name: dict[str, Bidder] = {}
        self._secondary: frozenset[str] = frozenset()
        self.set_bidders(bidders)
        self._profiles = profiles
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._rates = rates
        self._rules = rules
        self._tie_key = rules.tie_key or secrets.token_bytes(32)
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0
        self._broken: set[str] = set()
        self._listeners: list[Callable[[Auction, Outcome], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate: Callable[[BidRequest], NoBid | None] | None = None

    def guard(self, gate: Callable[[BidRequest], NoBid | None]) -> None:
        """Ask it of every request why it is not to be auctioned; None when it is."""
        self._gate = gate

    def set_bidders(self, bidders: Sequence[Bidder]) -> None:
        """Have these from the next auction on. What is under way goes on with those it was given to; only a bid of one
        that is gone cannot win any more."""
        self.bidders = tuple(bidders)
        self._by_name = {bidder.name: bidder for bidder in bidders}
        self._secondary = frozenset(bidder.name for bidder in bidders if bidder.secondary)

    def listen(self, listener: Callable[[Auction, Outcome], None]) -> None:
        """Call it with every auction that was settled; it must not block."""
        self._listeners.append(listener)

    async def run(self, request: BidRequest, received_ns: int, *, rehearsal: bool = False) -> Outcome:
        """Run one auction.

        Args:
            request: decoded and valid.
            received_ns: when it arrived, on the monotonic clock; the deadline counts from there.
            rehearsal: spend and count nothing (so does `test` = 1).

        Raises:
            BadRequest: an auction type this exchange does not run.
        """
        auction = self.begin(request, received_ns, rehearsal=rehearsal)
        return auction.outcome or await self.finish(auction)

    def begin(
        self,
        request: BidRequest,
        received_ns: int,
        *,
        body: bytes = b"",
        rehearsal: bool = False,
        offered: Mapping[str, Collection[str]] | None = None,
    ) -> Auction:
        """Start an auction; its `outcome` is there already unless something must be waited for.

        Args:
            request: decoded and valid.
            received_ns: when it arrived, on the monotonic clock.
            body: the bytes that `request` was decoded from, for remote bidders.
            rehearsal: spend and count nothing.
            offered: bidder -> ids of the imps that are offered to it; None to offer all to everybody.

        Raises:
            BadRequest: an auction type this exchange does not run.
        """
        self._id_count += 1
        deadline_ns = self._admission.deadline_ns(request.tmax, received_ns)
        rehearsal = rehearsal or request.test == 1
        auction_id = f"{self._id_prefix}{self._id_count:x}"
        auction = Auction(auction_id, request, received_ns, deadline_ns, rehearsal, body, offered)
        now_ns = self._clock.monotonic_ns()
        refusal = self._admission.refusal(request, deadline_ns - now_ns, self._metrics.in_flight)
        if refusal is None and self._gate is not None:
            refusal = self._gate(request)
        if refusal is None:
            refusal = self._terms(auction)
        self._metrics.in_flight += 1
        if received_ns < deadline_ns <= now_ns:  # it waited in a queue past its deadline
            self._close(auction, Outcome(auction.id, Status.TIMEOUT, NoBid.ALL_LATE, (), auction.currency))
            return auction
        if refusal is not None:
            status = Status.SHED if refusal is NoBid.SHED else _NO_BID
            self._close(auction, Outcome(auction.id, status, refusal, (), auction.currency))
            return auction
        user = self._profiles.peek(auction.user_id, now_ns) if auction.user_id else UNKNOWN
        if user is not None:
            self._fan_out(auction, user, now_ns)
            if not auction.pending:
                self._settle(auction)
        return auction

    def conclude(self, auction: Auction, done: Done) -> None:
        """Wait for what an auction without outcome waits for, until its deadline at most, settle it, and call `done`;
        never before this returns."""
        if auction.fanned_out_ns:
            self._await_bidders(auction, done)
            return
        task = asyncio.get_running_loop().create_task(self._look_up(auction, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, auction: Auction) -> Outcome:
        """The same, to be awaited; who is cancelled meanwhile ends the auction."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.conclude(auction, partial(_tell, ended))
        try:
            return await ended
        finally:
            if auction.outcome is None:  # nobody waits for the answer any more
                self._abandon(auction)

    async def _look_up(self, auction: Auction, done: Done) -> None:
        try:
            user = await self._profiles.get(auction.user_id, self._left_s(auction))
            if auction.outcome is not None:
                return
            self._fan_out(auction, user, self._clock.monotonic_ns())
            if auction.pending:
                self._await_bidders(auction, done)
                return
        except Exception as error:
            self._abandon(auction)
            done(auction, error)
        else:
            self._end(auction, done)

    def _await_bidders(self, auction: Auction, done: Done) -> None:
        timer = asyncio.get_running_loop().call_later(self._left_s(auction), self._end, auction, done)

        def complete() -> None:
            timer.cancel()
            self._end(auction, done)

        auction.when_complete(complete)

    def _end(self, auction: Auction, done: Done) -> None:
        """Settle it; who is still pending is late."""
        if auction.outcome is not None:
            return
        auction.forget_completion()
        failed = None
        try:
            self._settle(auction)
        except Exception as error:
            failed = error
            self._abandon(auction)
        done(auction, failed)

    def _abandon(self, auction: Auction) -> None:
        if auction.outcome is None:
            self._close(auction, Outcome(auction.id, Status.NO_BID, NoBid.TECHNICAL_ERROR, (), auction.currency))

    def _left_s(self, auction: Auction) -> float:
        return max(auction.deadline_ns - self._clock.monotonic_ns(), 0) / 1e9

    def _terms(self, auction: Auction) -> NoBid | None:
        """Fix what is sold, under which terms and in which currency; a reason when that cannot be."""
        request = auction.request
        at, rates = request.at, self._rates
        if at != _SECOND_PRICE:
            at = self._auction_type(at)
        auction.currency = currency = rates.currency
        if request.cur and currency not in request.cur:
            auction.currency = next((code for code in request.cur if rates.knows(code)), "")
        unsold = 0
        auction.terms = all_terms = []
        for i, imp in enumerate(request.imp or ()):
            terms = rules.terms(request, imp, rates, at=at)
            all_terms.append(terms)
            if terms.deals is None and terms.streams is None and not terms.private and terms.sold:
                continue
            auction.plain = False
            unsold += not terms.sold
            for deal in (terms.deals or {}).values():
                if deal.at is not None and deal.at >= 500:
                    self._auction_type(deal.at, f"imp[{i}].pmp: deal {deal.id[:64]!r}: at")
        return None if auction.currency and unsold < len(all_terms) else NoBid.NO_RATE

    def _auction_type(self, at: int | None, field: str = "at") -> int:
        if at is None or at == _SECOND_PRICE:
            return _SECOND_PRICE
        if at == _FIRST_PRICE or at in self._rules.first_price_types:
            return _FIRST_PRICE
        if at >= 500:
            raise BadRequest(
                f"{field}: {at} is not an auction type of this exchange; send 1 (first price) or 2 (second)"
            )
        return _SECOND_PRICE

    def _fan_out(self, auction: Auction, user: User, now_ns: int) -> None:
        auction.profile, auction.frequency = user.profile, user.frequency
        auction.fanned_out_ns = now_ns
        auction.pending = set(self._by_name)
        auction.secondary = self._secondary
        for bidder in self.bidders:
            if auction.offered is not None and bidder.name not in auction.offered:
                auction.report(bidder, skipped=NOT_OFFERED)
                continue
            try:
                bidder.bid(auction)
            except Exception as error:  # its own failure, not the auction's
                if bidder.name not in self._broken:
                    self._broken.add(bidder.name)
                    _log.exception("bidder_failed", bidder=bidder.name, note="further failures are only counted")
                auction.report(bidder, failure=f"{type(error).__name__}: {error}")

    def _settle(self, auction: Auction) -> Outcome:
        """Clear and claim in one step of the loop, without an await: what was checked is what is spent."""
        results: list[Result] = []
        if auction.pending and auction.secondary:
            self._leave_behind(auction)
        bids = 0
        for of_imp in auction.bids.values():
            bids += len(of_imp)
        if bids:
            rank = rules.tie_break(self._tie_key, auction.id)
            results = self._cleared(auction, rank)
            if not auction.rehearsal:
                self._claim(auction, results, rank)
        if not auction.rehearsal:
            self._count_bids(auction, bids, results)
        for result in results:
            if result.winner is not None:
                outcome = Outcome(auction.id, _WON, None, results, auction.currency)
                break
        else:
            outcome = self._unsold(auction, bids, results)
        self._close(auction, outcome)
        return outcome

    def _leave_behind(self, auction: Auction) -> None:
        """Secondary bidders that the auction does not wait for are not late."""
        if self._clock.monotonic_ns() < auction.deadline_ns:
            for name in auction.pending & auction.secondary:
                auction.pending.discard(name)
                auction.skipped[name] = NOT_AWAITED

    def _unsold(self, auction: Auction, bids: int, results: Sequence[Result]) -> Outcome:
        if auction.pending and not bids:
            return Outcome(auction.id, Status.TIMEOUT, NoBid.ALL_LATE, results, auction.currency)
        return Outcome(auction.id, Status.NO_BID, _no_bid_reason(results), results, auction.currency)

    def _cleared(self, auction: Auction, rank: rules.TieBreak) -> list[Result]:
        bids, increment_micros = auction.bids, self._rules.increment_micros
        if auction.ranked and auction.plain:
            results = []
            for terms in auction.terms:
                of_imp = bids.get(terms.impid, ())
                results.append(rules.clear_ranked(of_imp, terms, rank, increment_micros=increment_micros))
            return results
        return rules.clear_all(
            bids, auction.terms, rank, increment_micros=increment_micros, deals_first=self._rules.deals_first
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
                bidder = self._by_name.get(winner.bidder)
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
            running,
            terms,
            rank,
            increment_micros=self._rules.increment_micros,
            deals_first=self._rules.deals_first,
        )
        result.refused += withdrawn
        return result

    def _close(self, auction: Auction, outcome: Outcome) -> None:
        """The end of every auction: counted once, told to the listeners."""
        auction.outcome = outcome
        self._metrics.in_flight -= 1
        if not auction.rehearsal:
            self._count(auction, outcome)
        for listener in self._listeners:
            listener(auction, outcome)

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
        auction.settled_ns = now_ns = self._clock.monotonic_ns()
        metrics.latency.record(now_ns - auction.received_ns)


def _tell(ended: asyncio.Future[Outcome], auction: Auction, failed: Exception | None) -> None:
    if ended.done():
        return
    if failed is not None:
        ended.set_exception(failed)
    elif auction.outcome is not None:
        ended.set_result(auction.outcome)


def _user_id(request: BidRequest) -> str:
    """The id profiles go by; nobody's where privacy forbids to know who it is (rtb.domain.privacy)."""
    user, device = request.user, request.device
    if user is None:
        return ""
    if request.regs is not None or (device is not None and (device.lmt == 1 or device.dnt == 1)):
        found = privacy.signals(request)
        if found is not None and found.verdict(_OWN_PRIVACY)[0] >= Treatment.ANONYMOUS:
            return ""
    user_id = user.id or user.buyeruid or ""
    return user_id if len(user_id) <= MAX_USER_ID else ""


def _no_bid_reason(results: Sequence[Result]) -> NoBid:
    reasons = {lost.reason for result in results for lost in result.losses}
    if reasons and reasons <= {Loss.BELOW_FLOOR, Loss.BELOW_DEAL_FLOOR}:
        return NoBid.ALL_BELOW_FLOOR
    return NoBid.NO_ELIGIBLE_DEMAND
