"""A bidder over HTTP, from configuration only: OpenRTB 2.5 or 2.6 by POST.

`bid` puts the request on the wire and returns; the answer is handed in as it comes, and read when its auction waits for
nobody any more. One that comes when that is settled counts for the bidder's health and is otherwise forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import structlog
from msgspec.structs import replace

from rtb.adapters.dsp_request import Bodies, Body, Form, Sale
from rtb.adapters.http_client import Call, Endpoint, Failure, FanoutClient
from rtb.domain.auction import Bid, Lost
from rtb.domain.bidder_policy import BidderSettings, Participation, Skip
from rtb.domain.breaker import State
from rtb.domain.intake import Offer, take_in, usual_bids
from rtb.domain.money import Rates, to_micros
from rtb.domain.privacy import Reason, Treatment, signals
from rtb.domain.validation import CridRule
from rtb.errors import BadRequest
from rtb.openrtb import BidRequest, BidResponse, Loss, decode_response
from rtb.ports import Clock, OpenAuction, Report
from rtb.services.bidder_health import BidderHealth

_MS = 1_000_000
_NO_TIME, _WELL = Skip.TIME, State.CLOSED  # a member of an enum costs ten times a name
_WHOLE, _UNASKED = Treatment.WHOLE, Treatment.NONE

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
        self._now_ns = clock.monotonic_ns
        self._rates = rates
        self._crid = crid
        self._adomain = adomain
        self._participation = Participation(settings, rates)
        self._selects = self._participation.selects
        self._timeout_ns = settings.timeout_ms * _MS
        self._margin_ns = settings.margin_ms * _MS
        self._minimum_ns = max(settings.minimum_ms, 1) * _MS
        self._adjustment = None if settings.adjustment == 1 else Fraction(str(settings.adjustment))
        self._floor_micros = to_micros(settings.floor)
        self._has_terms = bool(settings.seats or self._adjustment or settings.at or self._floor_micros)
        self._form = Form(
            version=settings.version,
            compressed=settings.gzip,
            floor_micros=self._floor_micros,
            adjustment=settings.adjustment,
            at=settings.at,
        )
        self._treated = [bodies.form(replace(self._form, treatment=treatment)) for treatment in Treatment]
        self._body = self._treated[Treatment.WHOLE]
        self._on_done = self._ended
        self._logged: set[type[Exception]] = set()

    def bid(self, auction: OpenAuction) -> None:
        """Ask it, unless it takes no part or is not to be asked now."""
        sale = self._bodies.latest
        if sale is None or sale.auction is not auction:
            sale = self._bodies.sale(auction, self._now_ns())
        now_ns, deadline_ns, health = sale.now_ns, sale.deadline_ns, self.health
        if self._timeout_ns:
            deadline_ns = min(deadline_ns, now_ns + self._timeout_ns)
        endpoint, body = self.endpoint, self._body
        thinking_ns = deadline_ns - now_ns - endpoint.pool.network_ns - self._margin_ns
        skip: Skip | Reason | None = None
        stripped: Reason | None = None
        if sale.varies or self._selects:
            body, stripped, skip = self._suited(sale)
            skip = skip or self._participation.objection(sale.request)
        if skip is None:
            skip = _NO_TIME if thinking_ns < self._minimum_ns else health.refusal(now_ns)
        if skip is not None:
            health.skipped[skip.value] += 1
            auction.report(self, skipped=skip.value)
            return
        if stripped is not None:
            health.stripped[stripped.value] += 1
        if health.breaker.state is not _WELL:  # it is asked to find out if it has recovered
            auction.let_go(self)
        tmax = thinking_ns // _MS
        sent = body.made.get(tmax) if body.auction_id == sale.auction_id else None
        if sent is None:
            sent = body.of(auction, tmax)
        self._client.call(endpoint, sent, self._on_done, deadline_ns, sale, now_ns)

    def privacy(self, request: BidRequest) -> tuple[Treatment, Reason | None]:
        """What it would be told of the request's user, and why not more."""
        found = signals(request)
        return (Treatment.WHOLE, None) if found is None else found.verdict(self.settings.privacy)

    def _suited(self, sale: Sale) -> tuple[Body, Reason | None, Skip | Reason | None]:
        """The body for what it takes part in and may be told, why that is not all, and why it is not to be asked."""
        auction, participation = sale.auction, self._participation
        treatment, reason = _WHOLE, None
        if sale.signals is not None:
            treatment, reason = sale.signals.verdict(self.settings.privacy)
            if treatment is _UNASKED:
                return self._body, None, reason
        offered = None if auction.offered is None else auction.offered.get(self.name, ())
        imps = participation.imps(auction.request, offered)
        if imps == ():
            return self._body, None, Skip.MEDIA
        if imps is None and not participation.currencies and not sale.has_params:
            return self._treated[treatment], reason, None
        currencies = participation.sent_currencies(auction.request) if participation.currencies else ()
        bidder = self.name if sale.has_params else ""
        form = replace(self._form, imps=imps, currencies=currencies, treatment=treatment, bidder=bidder)
        return self._bodies.form(form), reason, None

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Its money is its own; the win is counted."""
        self.health.won(cost_nanos)
        return True

    def _ended(self, call: Call) -> None:
        """The call's one end."""
        self.health.ended()
        auction: OpenAuction = call.context.auction
        if call.failure is not None:
            self._without_answer(auction, call, call.failure)
        elif not auction.hand_in(self, call):
            self.read(call)

    def read(self, call: Call) -> Report:
        """What an answer says: its bids, and those that may not enter the auction."""
        sale: Sale = call.context
        bids: Sequence[Bid] = ()
        rejected: Sequence[Lost] = ()
        try:
            if call.status == 200 and call.content:
                response = decode_response(call.content)
                offer = sale.offer or sale.prepare()
                usual = None if self._has_terms else usual_bids(response, offer, self.name, self._rates.currency)
                if usual is None:
                    bids, rejected = self._taken_in(response, offer)
                else:
                    bids = usual
            elif call.status not in (200, 204):
                why = f"HTTP status {call.status} instead of 200 or 204"
                return self._failed(call, f"status-{call.status}", why)
        except BadRequest as error:
            return self._failed(call, "response", str(error))
        except Exception as error:  # a mistake of ours
            if type(error) not in self._logged:
                self._logged.add(type(error))
                _log.exception("bidder_failed", bidder=self.name, note="further ones of its kind are only counted")
            return self._failed(call, "intake", f"{type(error).__name__}: {error}")
        ended_ns = call.ended_ns
        self.health.answered(ended_ns, ended_ns - call.sent_ns, len(bids), len(rejected))
        return Report(bids, rejected, None, ended_ns)

    def _without_answer(self, auction: OpenAuction, call: Call, failure: Failure) -> None:
        if failure is not Failure.TIMEOUT:
            report = self._failed(call, failure.value, call.detail)
            auction.report(self, failure=report.failure, answered_ns=report.answered_ns)
            return
        self.health.timed_out(call.ended_ns)
        if call.deadline_ns < auction.deadline_ns:  # else the auction knows by itself that it is late
            auction.report(self, failure=f"timeout: {call.detail}")

    def _failed(self, call: Call, kind: str, detail: str) -> Report:
        self.health.failed(call.ended_ns, kind)
        return Report(failure=f"{kind}: {detail}", answered_ns=call.ended_ns)

    def _taken_in(self, response: BidResponse, offer: Offer) -> tuple[list[Bid], list[Lost]]:
        """The bids, at adjusted prices and on this bidder's terms; those of an answer to another request, of a
        foreign seat, or below this bidder's floor are refused."""
        if not response.seatbid:
            return [], []
        seats = self.settings.seats
        if seats:
            for seatbid in response.seatbid:
                seatbid.seat = seatbid.seat or seats[0]
        bids, rejected = take_in(
            response, offer.request, self.name, self._rates, crid=self._crid, adomain=self._adomain, offer=offer
        )
        if response.id is not None and response.id != offer.request.id:
            return [], rejected + [Lost(bid, Loss.INVALID_AUCTION_ID) for bid in bids]
        if seats:
            rejected += [Lost(bid, Loss.SEAT_BLOCKED) for bid in bids if bid.seat not in seats]
            bids = [bid for bid in bids if bid.seat in seats]
        if self._adjustment is not None:
            for bid in bids:
                bid.price_micros = max(int(bid.price_micros * self._adjustment), 1)
        if self.settings.at:
            for bid in bids:
                bid.at = self.settings.at
        floor = self._floor_micros
        if floor:
            rejected += [Lost(bid, Loss.BELOW_FLOOR, floor) for bid in bids if bid.price_micros < floor]
            bids = [bid for bid in bids if bid.price_micros >= floor]
        return bids, rejected
