"""Bidders, and the auction as they see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from rtb.domain.auction import Bid, Lost
from rtb.domain.privacy import Reason, Treatment
from rtb.domain.profile import Profile
from rtb.domain.terms import Terms
from rtb.openrtb import BidRequest


class OpenAuction(Protocol):
    """An auction as a bidder sees it while it is open."""

    @property
    def id(self) -> str:
        """The exchange's own auction id, unique everywhere; the request's id is the SSP's."""
        ...

    @property
    def request(self) -> BidRequest:
        """What is for sale."""
        ...

    @property
    def body(self) -> bytes:
        """The request as it came in; b"" where it did not come as bytes."""
        ...

    @property
    def rehearsal(self) -> bool:
        """Whether nothing is sold: it is only asked what would be."""
        ...

    @property
    def offered(self) -> Mapping[str, Collection[str]] | None:
        """Bidder -> ids of the imps that it may bid on; None when all may on all."""
        ...

    @property
    def terms(self) -> Sequence[Terms]:
        """The terms of each imp, in the request's order."""
        ...

    @property
    def user_id(self) -> str:
        """Whom profile and frequency caps are for; "" when the request names no one or privacy forbids it."""
        ...

    @property
    def profile(self) -> Profile | None:
        """What is known of the user."""
        ...

    @property
    def frequency(self) -> Mapping[str, int]:
        """The user's impressions a campaign id."""
        ...

    @property
    def deadline_ns(self) -> int:
        """When it closes, on the monotonic clock; a later report is too late."""
        ...

    def let_go(self, bidder: Bidder) -> None:
        """A bidder that was asked to find out how it does: the auction does not wait for it once all others have
        reported."""
        ...

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
        """A bidder's one report: its valid bids, those refused on intake, why it failed, or why it was not asked.

        `answered_ns`: when a remote bidder's answer was there, on the monotonic clock.
        """
        ...

    def hand_in(self, bidder: Remote, answer: Any) -> bool:
        """A bidder's answer, in place of its report: the bidder is asked to `read` it once the auction waits for nobody
        any more. False when it comes too late; then it is not kept."""
        ...


class Bidder(Protocol):
    """Someone who bids: the house, or a DSP."""

    @property
    def name(self) -> str:
        """Its name in configuration, metrics and explanations."""
        ...

    @property
    def secondary(self) -> bool:
        """Whether the auction does not wait for it once all others have reported."""
        ...

    def bid(self, auction: OpenAuction) -> None:
        """Be handed an auction and report to it exactly once, at once or later. Never raises."""
        ...

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> object:
        """Take the cost of a winning bid, before the response is encoded; what is false withdraws the bid.

        Anything else is kept as the `receipt` of the result, for whoever answers.
        """
        ...


class Report(Struct, gc=False):
    """What an answer says: the valid bids in it, those refused on intake, or why it is none; and when it was there, on
    the monotonic clock."""

    bids: Sequence[Bid] = ()
    rejected: Sequence[Lost] = ()
    failure: str | None = None
    answered_ns: int = 0


@runtime_checkable
class Remote(Bidder, Protocol):
    """A bidder whose answers come from outside, and are handed in as they come.

    An auction is out of the processor's caches again and again while it waits. So all its answers are read together,
    when the last is there.
    """

    def read(self, answer: Any) -> Report:
        """Read an answer that was handed in. Never raises."""
        ...

    def privacy(self, request: BidRequest) -> tuple[Treatment, Reason | None]:
        """What it is told of the request's user, and why not more."""
        ...
