"""A bidder over HTTP, from configuration only: OpenRTB 2.5 or 2.6 by POST.

`bid` puts the request on the wire and returns; the connection's callback reports to the auction. An answer that comes
when the auction is settled counts for the bidder's health and is otherwise forgotten.
"""

from __future__ import annotations

from fractions import Fraction

import structlog

from rtb import openrtb
from rtb.adapters.dsp_request import Bodies
from rtb.adapters.http_client import Call, Endpoint, Failure, FanoutClient
from rtb.domain.auction import Bid, Lost
from rtb.domain.bidder_policy import BidderSettings, Participation, Skip
from rtb.domain.intake import take_in
from rtb.domain.money import Rates
from rtb.domain.validation import CridRule
from rtb.errors import BadRequest
from rtb.openrtb import BidRequest, BidResponse, Loss
from rtb.ports import Clock, OpenAuction
from rtb.services.bidder_health import BidderHealth

_MS = 1_000_000

_log = structlog.get_logger(__name__)


class DspBidder:
    """One remote bidder."""

    def __init__(
        self,
        settings: BidderSettings,
        endpoint: Endpoint,
        client: FanoutClient,
        bodies: Bodies,
        clock: Clock,
        rates: Rates,
        *,
        crid: CridRule = CridRule.OPTIONAL,
        adomain: bool = False,
    ) -> None:
        """Ask at `endpoint`; `bodies` are shared by all bidders of an exchange."""
        self.name: str = settings.name
        self.secondary = settings.secondary
        self.settings = settings
        self.endpoint = endpoint
        self.health = BidderHealth(settings, clock)
        self._client = client
        self._bodies = bodies
        self._clock = clock
        self._rates = rates
        self._crid = crid
        self._adomain = adomain
        self._participation = Participation(settings, rates)
        self._timeout_ns = settings.timeout_ms * _MS
        self._margin_ns = settings.margin_ms * _MS
        self._minimum_ns = max(settings.minimum_ms, 1) * _MS
        self._adjustment = None if settings.adjustment == 1 else Fraction(str(settings.adjustment))
        self._logged: set[type[Exception]] = set()

    def bid(self, auction: OpenAuction) -> None:
        """Ask it, unless it takes no part or is not to be asked now."""
        now_ns = self._clock.monotonic_ns()
        deadline_ns = auction.deadline_ns
        if self._timeout_ns:
            deadline_ns = min(deadline_ns, now_ns + self._timeout_ns)
        thinking_ns = deadline_ns - now_ns - self.endpoint.network_ns - self._margin_ns
        request = auction.request
        imps = self._participation.imps(request)
        skip = (
            (Skip.MEDIA if imps == () else None)
            or self._participation.objection(request)
            or (Skip.TIME if thinking_ns < self._minimum_ns else None)
            or self.health.refusal(now_ns)
        )
        if skip is not None:
            self.health.skipped[skip.value] += 1
            auction.report(self, skipped=skip.value)
            return
        body = self._bodies.body(
            auction,
            version=self.settings.version,
            tmax=thinking_ns // _MS,
            imps=imps,
            currencies=self._participation.sent_currencies(request) if self._participation.currencies else (),
            compressed=self.settings.gzip,
        )
        self._client.call(self.endpoint, body, self._ended, deadline_ns, auction)

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Its money is its own; the win is counted."""
        self.health.won(cost_nanos)
        return True

    def _ended(self, call: Call) -> None:
        """The call's one end."""
        auction: OpenAuction = call.context
        now_ns = call.ended_ns
        if call.failure is Failure.TIMEOUT:
            self.health.timed_out(now_ns)
            if call.deadline_ns < auction.deadline_ns:  # else the auction knows by itself that it is late
                auction.report(self, failure=f"timeout: {call.detail}")
        elif call.failure is not None:
            self._failed(auction, now_ns, call.failure.value, call.detail)
        elif call.status == 204 or (call.status == 200 and not call.content):
            self._answered(auction, call, [], [])
        elif call.status != 200:
            self._failed(auction, now_ns, f"status-{call.status}", f"HTTP status {call.status} instead of 200 or 204")
        else:
            try:
                bids, rejected = self._taken_in(openrtb.decode_response(call.content), auction.request)
            except BadRequest as error:
                self._failed(auction, now_ns, "response", str(error))
            except Exception as error:
                if type(error) not in self._logged:
                    self._logged.add(type(error))
                    _log.exception("bidder_failed", bidder=self.name, note="further ones of its kind are only counted")
                self._failed(auction, now_ns, "intake", f"{type(error).__name__}: {error}")
            else:
                self._answered(auction, call, bids, rejected)

    def _answered(self, auction: OpenAuction, call: Call, bids: list[Bid], rejected: list[Lost]) -> None:
        self.health.answered(call.ended_ns, call.ended_ns - call.sent_ns, len(bids), len(rejected))
        auction.report(self, bids, rejected, answered_ns=call.ended_ns)

    def _failed(self, auction: OpenAuction, now_ns: int, kind: str, detail: str) -> None:
        self.health.failed(now_ns, kind)
        auction.report(self, failure=f"{kind}: {detail}", answered_ns=now_ns)

    def _taken_in(self, response: BidResponse, request: BidRequest) -> tuple[list[Bid], list[Lost]]:
        """The bids, at adjusted prices; those of an answer to another request, or of a foreign seat, are refused."""
        seats = self.settings.seats
        if not response.seatbid:
            return [], []
        for seatbid in response.seatbid:
            if not seatbid.seat and seats:
                seatbid.seat = seats[0]
        bids, rejected = take_in(response, request, self.name, self._rates, crid=self._crid, adomain=self._adomain)
        if response.id is not None and response.id != request.id:
            return [], rejected + [Lost(bid, Loss.INVALID_AUCTION_ID) for bid in bids]
        if seats:
            rejected += [Lost(bid, Loss.SEAT_BLOCKED) for bid in bids if bid.seat not in seats]
            bids = [bid for bid in bids if bid.seat in seats]
        if self._adjustment is not None:
            for bid in bids:
                bid.price_micros = max(int(bid.price_micros * self._adjustment), 1)
        return bids, rejected
