"""The exchange: a request in, an outcome out, inside the deadline.

    begin      admit, look the user up if that needs no waiting, hand the auction to every bidder, settle if complete
    conclude   what needs waiting: the user's profile, then the bidders, until the deadline; then a callback
    finish     the same, to be awaited
    run        begin and finish

An edge calls `begin` and answers at once when the outcome is there. No task is made for an auction that waits: for its
user's profile it waits with all others whose users are looked up, for bidders it shares a timer with all others
(rtb.services.deadlines). What an auction is while it runs is in rtb.services.open_auction, how it ends in
rtb.services.settling.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import structlog

from rtb.domain import money
from rtb.domain.terms import terms_of
from rtb.errors import BadRequest
from rtb.openrtb import AuctionType, BidRequest, NoBid
from rtb.ports import Bidder, Clock
from rtb.services.admission import Admission
from rtb.services.deadlines import Deadlines, Done
from rtb.services.metrics import Metrics
from rtb.services.open_auction import MAX_USER_ID, Auction, Outcome, Status
from rtb.services.profiles import UNKNOWN, Profiles, User
from rtb.services.settling import Listener, Rules, Settling

__all__ = ["MAX_USER_ID", "NOT_AWAITED", "NOT_OFFERED", "Auction", "Done", "Exchange", "Outcome", "Rules", "Status"]

NOT_AWAITED = "secondary: all others had answered"
"""Why a bidder was skipped that had been asked."""
NOT_OFFERED = "the request names others"
"""Why a bidder was not asked for any imp."""

_SECOND_PRICE, _FIRST_PRICE = int(AuctionType.SECOND_PRICE_PLUS), int(AuctionType.FIRST_PRICE)

_log = structlog.get_logger(__name__)


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
        self._settling = Settling(rules, rules.tie_key or secrets.token_bytes(32), metrics, clock)
        self._settle, self._close = self._settling.settle, self._settling.close
        self._deadlines = Deadlines(clock, self._end)
        self._complete: list[tuple[Auction, Done]] = []
        self.bidders: tuple[Bidder, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._secondary: frozenset[str] = frozenset()
        self.set_bidders(bidders)
        self._profiles = profiles
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._rates = rates
        self._first_price_types = rules.first_price_types
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0
        self._broken: set[str] = set()
        self._gate: Callable[[BidRequest, bool], NoBid | None] | None = None

    def guard(self, gate: Callable[[BidRequest, bool], NoBid | None]) -> None:
        """Ask it of every request, and whether that is a rehearsal, why it is not to be auctioned; None when it is."""
        self._gate = gate

    def set_bidders(self, bidders: Sequence[Bidder]) -> None:
        """Have these from the next auction on. What is under way goes on with those it was given to; only a bid of one
        that is gone cannot win any more."""
        self.bidders = tuple(bidders)
        self._settling.bidders = {bidder.name: bidder for bidder in bidders}
        self._names = frozenset(self._settling.bidders)
        self._secondary = frozenset(bidder.name for bidder in bidders if bidder.secondary)

    def listen(self, listener: Listener) -> None:
        """Call it with every auction that was settled; it must not block."""
        self._settling.listeners.append(listener)

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
        auction = self.admit(request, received_ns, body=body, rehearsal=rehearsal, offered=offered)
        self.ask(auction)
        self.settle(auction)
        return auction

    def admit(
        self,
        request: BidRequest,
        received_ns: int,
        *,
        body: bytes = b"",
        rehearsal: bool = False,
        offered: Mapping[str, Collection[str]] | None = None,
    ) -> Auction:
        """The first of the three steps of `begin`, for those who begin many auctions at once and take them through each
        step together. One that is refused has its outcome, and passes the other steps as it is."""
        self._id_count += 1
        deadline_ns = self._admission.deadline_ns(request.tmax, received_ns)
        rehearsal = rehearsal or request.test == 1
        auction_id = f"{self._id_prefix}{self._id_count:x}"
        auction = Auction(auction_id, request, received_ns, deadline_ns, rehearsal, body, offered)
        now_ns = self._clock.monotonic_ns()
        refusal = self._admission.refusal(request, deadline_ns - now_ns, self._metrics.in_flight)
        if refusal is None and self._gate is not None:
            refusal = self._gate(request, rehearsal)
        if refusal is None:
            refusal = self._terms(auction)
        self._metrics.in_flight += 1
        if received_ns < deadline_ns <= now_ns:  # it waited in a queue past its deadline
            self._close(auction, Outcome(auction.id, Status.TIMEOUT, NoBid.ALL_LATE, (), auction.currency))
        elif refusal is not None:
            status = Status.SHED if refusal is NoBid.SHED else Status.NO_BID
            self._close(auction, Outcome(auction.id, status, refusal, (), auction.currency))
        return auction

    def ask(self, auction: Auction) -> None:
        """The second step: hand it to every bidder, unless its user must be looked up first."""
        if auction.outcome is None:
            now_ns = self._clock.monotonic_ns()
            user = self._profiles.peek(auction.user_id, now_ns) if auction.user_id else UNKNOWN
            if user is not None:
                self._fan_out(auction, user, now_ns)

    def settle(self, auction: Auction) -> None:
        """The third step: settle it if all bidders have answered."""
        if auction.outcome is None and auction.fanned_out_ns and not auction.pending:
            try:
                self._settle(auction)
            except Exception:  # a mistake of ours: it is under way no longer
                self._abandon(auction)
                raise

    @property
    def room(self) -> int:
        """How many more auctions may be under way before one is refused for that."""
        return self._admission.room(self._metrics.in_flight)

    def conclude(self, auction: Auction, done: Done) -> None:
        """Wait for what an auction without outcome waits for, until its deadline at most, settle it, and call `done`;
        never before this returns."""
        if auction.fanned_out_ns:
            self._await_bidders(auction, done)
            return
        left_ns = auction.deadline_ns - self._clock.monotonic_ns()
        self._profiles.look_up(auction.user_id, max(left_ns, 0) / 1e9, partial(self._ask_later, auction, done))

    async def finish(self, auction: Auction) -> Outcome:
        """The same, to be awaited; who is cancelled meanwhile ends the auction."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.conclude(auction, partial(_tell, ended))
        try:
            return await ended
        finally:
            if auction.outcome is None:  # nobody waits for the answer any more
                self._abandon(auction)

    def _ask_later(self, auction: Auction, done: Done, user: User) -> None:
        """The user was looked up: hand the auction to every bidder now."""
        if auction.outcome is not None:
            return
        try:
            self._fan_out(auction, user, self._clock.monotonic_ns())
        except Exception as error:
            self._abandon(auction)
            done(auction, error)
            return
        if auction.pending:
            self._await_bidders(auction, done)
        else:
            self._end_soon(auction, done)

    def _await_bidders(self, auction: Auction, done: Done) -> None:
        self._deadlines.add(auction, done)
        auction.when_complete(self._completed)

    def _completed(self, auction: Auction) -> None:
        """All have reported that it waited for; secondary bidders that have not are not late."""
        if auction.pending:
            for name in auction.pending & auction.secondary:
                auction.pending.discard(name)
                auction.skipped[name] = NOT_AWAITED
        auction.forget_completion()
        self._end_soon(auction, self._deadlines.remove(auction))

    def _end_soon(self, auction: Auction, done: Done) -> None:
        """It is complete. What completes auctions completes many in one step of the loop: they are settled in the next,
        together."""
        if not self._complete:
            asyncio.get_running_loop().call_soon(self._end_complete)
        self._complete.append((auction, done))

    def _end_complete(self) -> None:
        """Read what was handed in to those that are complete, settle them, and then tell who waits for them."""
        complete, self._complete = self._complete, []
        complete = [(auction, done) for auction, done in complete if auction.outcome is None]
        read = [(auction, done, self._tried(Auction.read, auction)) for auction, done in complete]
        ended = [(auction, done, failed or self._tried(self._settle, auction)) for auction, done, failed in read]
        for auction, done, failed in ended:
            try:
                done(auction, failed)
            except Exception as error:  # one caller's own; the others are to hear all the same
                context = {"message": f"auction {auction.id} did not end as it should", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)

    def _end(self, auction: Auction, done: Done) -> None:
        """Settle it; who is still pending is late."""
        if auction.outcome is None:
            auction.forget_completion()
            done(auction, self._tried(self._settle, auction))

    def _tried(self, step: Callable[[Auction], None], auction: Auction) -> Exception | None:
        """Take an auction a step further: None, or the mistake of ours that has ended it."""
        try:
            step(auction)
        except Exception as error:
            self._abandon(auction)
            return error
        return None

    def _abandon(self, auction: Auction) -> None:
        if auction.outcome is None:
            auction.read()  # its bidders are to know how they did
            self._close(auction, Outcome(auction.id, Status.NO_BID, NoBid.TECHNICAL_ERROR, (), auction.currency))

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
            terms = terms_of(request, imp, rates, at=at)
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
        if at == _FIRST_PRICE or at in self._first_price_types:
            return _FIRST_PRICE
        if at >= 500:
            raise BadRequest(
                f"{field}: {at} is not an auction type of this exchange; send 1 (first price) or 2 (second)"
            )
        return _SECOND_PRICE

    def _fan_out(self, auction: Auction, user: User, now_ns: int) -> None:
        auction.profile, auction.frequency = user.profile, user.frequency
        auction.fanned_out_ns = now_ns
        auction.pending = set(self._names)
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


def _tell(ended: asyncio.Future[Outcome], auction: Auction, failed: Exception | None) -> None:
    if ended.done():
        return
    if failed is not None:
        ended.set_exception(failed)
    elif auction.outcome is not None:
        ended.set_result(auction.outcome)
