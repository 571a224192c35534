"""The exchange over HTTP: POST /openrtb2/auction, and pages for machines such as GET /healthz, /readyz, /metrics.

Every answer carries ``x-openrtb-version``, an auction's also ``x-rtb-outcome`` (won, no-bid, timeout, shed). A request
that breaks OpenRTB gets a 400 with its one-line reason in the body and in ``x-rtb-error`` (2.1 asks for "no content").

A request with ``ext.prebid``, its own or its imps', is answered as Prebid Server would: see docs/prebid.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from rtb import openrtb
from rtb.domain import prebid
from rtb.domain.money import Rates
from rtb.domain.prebid import Asked
from rtb.edges.http1 import HEEDED, Connection, Slot, broken, error, response
from rtb.edges.prebid_http import PrebidPages, preflight
from rtb.edges.tracker_http import TrackerResponder
from rtb.errors import BadRequest, TooLarge
from rtb.openrtb import NoBid
from rtb.services.answers import bid_response, encoded
from rtb.services.answers_prebid import prebid_response
from rtb.services.exchange import Auction, Exchange, Outcome, Status
from rtb.services.further_bids import FurtherBids
from rtb.services.links import Links
from rtb.services.metrics import Metrics

AUCTION_PATH = b"/openrtb2/auction"
_COMMON = b"x-openrtb-version: " + openrtb.VERSION.encode() + b"\r\nx-rtb-outcome: "
_WON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + _COMMON + b"won\r\ncontent-length: "
_EMPTY = {
    status: response(b"204 No Content", b"", _COMMON + status.value.encode() + b"\r\n")
    for status in (Status.NO_BID, Status.TIMEOUT, Status.SHED)
}


class AuctionResponder:
    """Routes requests: the auction, and a few pages for machines."""

    def __init__(
        self,
        exchange: Exchange,
        metrics: Metrics,
        rates: Rates,
        *,
        shed_after_ms: float,
        pages: Mapping[bytes, Callable[[], bytes]],
        lag_ns: Callable[[], int] = lambda: 0,
        links: Links | None = None,
        tracker: TrackerResponder | None = None,
        prebid_pages: PrebidPages | None = None,
        further: FurtherBids | None = None,
    ) -> None:
        """Answer auctions with `exchange` and GET paths with `pages`, whose callables make whole responses.

        A request that waited longer than `shed_after_ms` behind others in one iteration of the loop, or that comes when
        the loop was last that late (`lag_ns`), is answered with nbr 502 before it is decoded, so that what is accepted
        stays inside its deadline; 0 switches that off. `links` put tracking into the answers,
        and `tracker` takes what it tells. `prebid_pages` say what pages may ask, `further` finds the bids
        beside the winner for those that take them.
        """
        self._exchange = exchange
        self._metrics = metrics
        self._rates = rates
        self._links = links
        self._tracker = tracker
        self._further = further
        self._prebid = prebid_pages or PrebidPages(lambda: dict.fromkeys(self._bidders(), ()))
        self._shed_after_ns = int(shed_after_ms * 1e6)
        self._lag_ns = lag_ns
        self._pages = pages
        self._iteration_ns = 0
        self._waiting = 0
        self._drained: asyncio.Future[None] | None = None

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """The response, or None when the auction must wait for somebody."""
        if path == AUCTION_PATH:
            if connection.origin and (refused := self._prebid.origins.admit(connection)):
                return refused
            if method == b"OPTIONS":
                return preflight(connection, b"POST")
            if method != b"POST":
                return error(b"405 Method Not Allowed", "send the bid request with POST", b"allow: POST, OPTIONS\r\n")
            return self._auction(connection, body)
        page = self._pages.get(path)
        if page is None and self._tracker is not None and path.startswith(HEEDED):
            return self._tracker.respond(connection, method, path, body)
        if page is None and (answer := self._prebid.respond(connection, method, path)) is not None:
            return answer
        if page is None:
            return error(b"404 Not Found", "no such path; the auction is POST /openrtb2/auction")
        if method not in (b"GET", b"HEAD"):
            return error(b"405 Method Not Allowed", "this page is read with GET", b"allow: GET, HEAD\r\n")
        return page()

    async def drained(self) -> None:
        """Wait until every auction and event under way is answered."""
        if self._waiting:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        if self._tracker is not None:
            await self._tracker.drained()

    def _auction(self, connection: Connection, body: bytes) -> bytes | None:
        if self._shed_after_ns and max(self._waited_ns(connection.arrived_ns), self._lag_ns()) > self._shed_after_ns:
            self._metrics.shed += 1
            self._metrics.nbr[NoBid.SHED] += 1
            return _EMPTY[Status.SHED]
        try:
            request = openrtb.decode_request(body)
            asked = prebid.read(request, self._bidders(), self._prebid.own) if prebid.may_ask(request) else None
            offered = None if asked is None else asked.offers
            auction = self._exchange.begin(request, connection.arrived_ns, body=body, offered=offered)
        except BadRequest as reason:
            self._metrics.invalid += 1
            status = b"413 Content Too Large" if isinstance(reason, TooLarge) else b"400 Bad Request"
            line = str(reason)
            return error(status, (line.startswith("imp") and prebid.storing(body)) or line)
        if auction.outcome is not None:
            return self._encode(auction, auction.outcome, asked)
        self._waiting += 1
        self._exchange.conclude(auction, partial(self._concluded, connection, connection.slot, asked))
        return None

    def _bidders(self) -> list[str]:
        return [bidder.name for bidder in self._exchange.bidders]

    def _concluded(
        self, connection: Connection, slot: Slot, asked: Asked | None, auction: Auction, failed: Exception | None
    ) -> None:
        try:
            if failed is not None or auction.outcome is None:
                raise failed or AssertionError("an auction ended without an outcome")
            answer = self._encode(auction, auction.outcome, asked)
        except Exception:
            answer = broken(AUCTION_PATH)
        connection.answer(slot, answer)
        self._waiting -= 1
        if self._drained is not None and not self._waiting and not self._drained.done():
            self._drained.set_result(None)

    def _encode(self, auction: Auction, outcome: Outcome, asked: Asked | None) -> bytes:
        request = auction.request
        if asked is not None:
            further = () if self._further is None else self._further.of(asked, auction, outcome)
            body = openrtb.encode(prebid_response(asked, auction, outcome, self._rates, self._links, further))
            return response(b"200 OK", body, _COMMON + outcome.status.value.encode() + b"\r\n")
        if outcome.nbr is None:
            body = encoded(request, outcome, self._rates, self._links)
            return b"%b%d\r\n\r\n%b" % (_WON, len(body), body)
        if request.wants_nbr:
            body = openrtb.encode(bid_response(request, outcome, self._rates))
            return response(b"200 OK", body, _COMMON + outcome.status.value.encode() + b"\r\n")
        return _EMPTY[outcome.status]

    def _waited_ns(self, arrived_ns: int) -> int:
        """How long after the first request of this loop iteration this one got its turn."""
        if not self._iteration_ns:
            self._iteration_ns = arrived_ns
            asyncio.get_running_loop().call_soon(self._end_iteration)
        return arrived_ns - self._iteration_ns

    def _end_iteration(self) -> None:
        self._iteration_ns = 0
