"""One auction in flight, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from rtb.domain import privacy
from rtb.domain.auction import HOUSE, Bid, Lost, Result
from rtb.domain.privacy import PrivacyPolicy, Treatment
from rtb.domain.profile import Profile
from rtb.domain.terms import Terms
from rtb.openrtb import BidRequest, NoBid
from rtb.ports import Bidder, Remote, Report

MAX_USER_ID = 512
"""Characters; what is longer identifies nobody, and is not kept."""

_NOBODY: frozenset[str] = frozenset()
_NOTHING: Mapping[str, int] = {}
_OWN_PRIVACY = PrivacyPolicy()


class Status(StrEnum):
    """How an auction ended, as in the header ``x-rtb-outcome``."""

    WON = "won"
    NO_BID = "no-bid"
    TIMEOUT = "timeout"
    SHED = "shed"


class Outcome(Struct, gc=False):
    """What an auction came to. Prices are CPM micros of the exchange currency; `currency` is what to answer in.

    `nbr` is None when something was won. `further` are bids that were outbid, and are offered beside the winner all the
    same (rtb.services.further_bids).
    """

    auction_id: str
    status: Status
    nbr: NoBid | None
    results: Sequence[Result]
    currency: str
    further: Sequence[Bid] = ()


class Auction:
    """One auction in flight; rtb.ports.OpenAuction is what bidders see of it.

    Times are nanoseconds of the monotonic clock, 0 for what has not come to pass.

    Attributes:
        body: the request as it came in, b"" where it did not come as bytes.
        offered: bidder -> ids of the imps that it may bid on, absent for none; None when all may on all.
        failures: bidder -> why it failed.
        skipped: bidder -> why it was not asked, or not waited for.
        pending: who has neither reported nor handed an answer in; at the end, who is late.
        unread: the answers that were handed in, and by whom.
        secondary: whom the auction does not wait for once all others have reported.
        answered_ns: bidder -> when its answer came.
        plain: every imp is sold without deals, to anybody, at one floor for all.
        ranked: all bids are the house's: the best of each imp stands first, and none is below the floor
            (`Index.match`).
    """

    # A plain class: setting a member of a Struct takes five times as long, and most are set after it is made.
    __slots__ = (
        "_complete",
        "answered_ns",
        "bids",
        "body",
        "currency",
        "deadline_ns",
        "failures",
        "fanned_out_ns",
        "frequency",
        "id",
        "offered",
        "outcome",
        "pending",
        "plain",
        "profile",
        "ranked",
        "received_ns",
        "rehearsal",
        "rejected",
        "request",
        "secondary",
        "settled_ns",
        "skipped",
        "terms",
        "unread",
        "user_id",
    )

    profile: Profile | None
    frequency: Mapping[str, int]

    def __init__(
        self,
        auction_id: str,
        request: BidRequest,
        received_ns: int,
        deadline_ns: int,
        rehearsal: bool = False,
        body: bytes = b"",
        offered: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Not offered to anybody yet."""
        self.id = auction_id
        self.request = request
        self.received_ns = received_ns
        self.deadline_ns = deadline_ns
        self.rehearsal = rehearsal
        self.body = body
        self.offered = offered
        self.user_id = "" if request.user is None else _user_id(request)
        self.terms: Sequence[Terms] = ()
        self.currency = ""
        self.profile = None
        self.frequency = _NOTHING
        self.bids: dict[str, list[Bid]] = {}
        self.rejected: list[Lost] = []
        self.failures: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.pending: set[str] = set()
        self.unread: list[tuple[Remote, Any]] = []
        self.secondary = _NOBODY
        self.answered_ns: dict[str, int] = {}
        self.plain = True
        self.ranked = False
        self.fanned_out_ns = self.settled_ns = 0
        self.outcome: Outcome | None = None
        self._complete: Callable[[Auction], None] | None = None

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
        name = bidder.name
        if self.outcome is not None or name not in self.pending:
            return
        if skipped is not None:
            self.skipped[name] = skipped
        else:
            self._take(name, Report(bids, rejected, failure, answered_ns))
        self.pending.remove(name)
        if self._complete is not None and self.pending <= self.secondary:
            self._complete(self)

    def hand_in(self, bidder: Remote, answer: Any) -> bool:
        """Keep an answer until it is read."""
        name, pending = bidder.name, self.pending
        if self.outcome is not None or name not in pending:
            return False
        self.unread.append((bidder, answer))
        pending.remove(name)
        if self._complete is not None and pending <= self.secondary:
            self._complete(self)
        return True

    def read(self) -> None:
        """Have what was handed in read, and take it in."""
        unread, self.unread = self.unread, []
        for bidder, answer in unread:
            self._take(bidder.name, bidder.read(answer))

    def _take(self, name: str, report: Report) -> None:
        if report.bids:
            self._enter(name, report.bids)
        if report.rejected:
            self.rejected.extend(report.rejected)
        if report.failure is not None:
            self.failures[name] = report.failure
        if report.answered_ns:
            self.answered_ns[name] = report.answered_ns

    def _enter(self, name: str, bids: Sequence[Bid]) -> None:
        """Those of a bidder's bids that it may make take part."""
        if self.offered is not None:
            mine = self.offered.get(name, ())
            bids = [bid for bid in bids if bid.impid in mine]
            if not bids:
                return
        entered = self.bids
        if not entered:
            self.ranked = name == HOUSE
            if len(self.terms) == 1:
                entered[self.terms[0].impid] = [*bids]
                return
        else:
            self.ranked = False
        for bid in bids:
            of_imp = entered.get(bid.impid)
            if of_imp is None:
                entered[bid.impid] = [bid]
            else:
                of_imp.append(bid)

    def let_go(self, bidder: Bidder) -> None:
        """Do not wait for it once all others have reported, as if it were secondary."""
        self.secondary |= {bidder.name}

    def when_complete(self, complete: Callable[[Auction], None]) -> None:
        """Call it when all have reported that the auction waits for. If only secondary bidders are left to wait for, it
        waits for them."""
        if self.pending <= self.secondary:
            self.secondary = _NOBODY
        self._complete = complete

    def forget_completion(self) -> None:
        """Call nobody any more. What would be called holds the auction: together they would be garbage that only the
        collector frees, and it looks at what is older than a moment once in 100,000 auctions."""
        self._complete = None


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
