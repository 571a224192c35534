"""The exchange over HTTP: POST /openrtb2/auction, and pages for machines such as GET /healthz, /readyz, /metrics.

Every answer carries ``x-openrtb-version``, an auction's also ``x-rtb-outcome`` (won, no-bid, timeout, shed). A request
that breaks OpenRTB gets a 400 with its one-line reason in the body and in ``x-rtb-error`` (2.1 asks for "no content").

A request with ``ext.prebid``, its own or its imps', is answered as Prebid Server would: see docs/prebid.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from rtb import openrtb
from rtb.domain import prebid
from rtb.domain.money import Rates
from rtb.domain.prebid import Asked
from rtb.edges.http1 import HEEDED, Connection, Slot
from rtb.edges.http_responses import broken, error, response
from rtb.edges.prebid_http import PrebidPages, preflight
from rtb.edges.together import Together, auctioning
from rtb.edges.tracker_http import TrackerResponder
from rtb.errors import BadRequest, TooLarge
from rtb.openrtb import BidRequest, NoBid
from rtb.ports import Clock
from rtb.services.answers import bid_response, encoded
from rtb.services.answers_prebid import prebid_response
from rtb.services.exchange import Auction, Exchange, Status
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


class _Asked:
    """A request for an auction on its way to an answer; `prebid` is what it asks for as Prebid Server's clients do."""

    __slots__ = ("answer", "arrived_ns", "auction", "body", "connection", "prebid", "request", "slot")

    request: BidRequest
    auction: Auction
    answer: bytes

    def __init__(self, connection: Connection, body: bytes) -> None:
        """The one that the connection is responding to."""
        self.connection = connection
        self.slot: Slot = connection.slot
        self.arrived_ns = connection.arrived_ns
        self.body = body
        self.prebid: Asked | None = None


class AuctionResponder:
    """Routes requests: the auction, and a few pages for machines."""

    def __init__(
        self,
        exchange: Exchange,
        metrics: Metrics,
        rates: Rates,
        clock: Clock,
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

        A request that waited longer than `shed_after_ms` behind others of one iteration of the loop, or that comes when
        the loop was last that late (`lag_ns`), is answered with nbr 502 before it is decoded, so that what is accepted
        stays inside its deadline; 0 switches that off. `links` put tracking into the answers, and `tracker` takes what
        it tells. `prebid_pages` say what pages may ask, `further` finds the bids beside the winner for those that take
        them.
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
        self._now_ns = clock.monotonic_ns
        self._pages = pages
        stages = (self._read, self._admit, *auctioning(exchange, self._concluded), self._encode, self._send)
        self._together = Together(stages, self._failed, lambda: exchange.room, clock)
        self._waiting = 0
        self._drained: asyncio.Future[None] | None = None

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """The response, or None for an auction, whose answer comes later: at the earliest with those of all requests
        that came in this step of the loop."""
        if path == AUCTION_PATH:
            if connection.origin and (refused := self._prebid.origins.admit(connection)):
                return refused
            if method == b"OPTIONS":
                return preflight(connection, b"POST")
            if method != b"POST":
                return error(b"405 Method Not Allowed", "send the bid request with POST", b"allow: POST, OPTIONS\r\n")
            self._waiting += 1
            self._together.add(_Asked(connection, body))
            return None
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

    def _read(self, asked: _Asked) -> bool:
        waited_ns = self._now_ns() - asked.arrived_ns
        if self._shed_after_ns and max(waited_ns, self._lag_ns()) > self._shed_after_ns:
            self._metrics.shed += 1
            self._metrics.nbr[NoBid.SHED] += 1
            self._tell(asked, _EMPTY[Status.SHED])
            return False
        asked.request = request = openrtb.decode_request(asked.body)
        if prebid.may_ask(request):
            asked.prebid = prebid.read(request, self._bidders(), self._prebid.own)
        return True

    def _admit(self, asked: _Asked) -> bool:
        offered = None if asked.prebid is None else asked.prebid.offers
        asked.auction = self._exchange.admit(asked.request, asked.arrived_ns, body=asked.body, offered=offered)
        return True

    def _concluded(self, asked: _Asked, auction: Auction, failed: Exception | None) -> None:
        if failed is not None:
            self._failed(asked, failed)
        else:
            self._together.go_on(asked, (self._encode, self._send))

    def _failed(self, asked: _Asked, reason: Exception) -> None:
        """It cannot be answered with an auction's outcome."""
        if isinstance(reason, BadRequest):
            self._metrics.invalid += 1
            status = b"413 Content Too Large" if isinstance(reason, TooLarge) else b"400 Bad Request"
            line = str(reason)
            self._tell(asked, error(status, (line.startswith("imp") and prebid.storing(asked.body)) or line))
        else:
            self._tell(asked, broken(AUCTION_PATH, reason))

    def _bidders(self) -> list[str]:
        return [bidder.name for bidder in self._exchange.bidders]

    def _encode(self, asked: _Asked) -> bool:
        request, auction = asked.request, asked.auction
        outcome = auction.outcome
        assert outcome is not None
        if asked.prebid is not None:
            further = () if self._further is None else self._further.of(asked.prebid, auction, outcome)
            body = openrtb.encode(prebid_response(asked.prebid, auction, outcome, self._rates, self._links, further))
            asked.answer = response(b"200 OK", body, _COMMON + outcome.status.value.encode() + b"\r\n")
        elif outcome.nbr is None:
            body = encoded(request, outcome, self._rates, self._links)
            asked.answer = b"%b%d\r\n\r\n%b" % (_WON, len(body), body)
        elif request.wants_nbr:
            body = openrtb.encode(bid_response(request, outcome, self._rates))
            asked.answer = response(b"200 OK", body, _COMMON + outcome.status.value.encode() + b"\r\n")
        else:
            asked.answer = _EMPTY[outcome.status]
        return True

    def _send(self, asked: _Asked) -> bool:
        self._tell(asked, asked.answer)
        return True

    def _tell(self, asked: _Asked, answer: bytes) -> None:
        """The end of every request for an auction."""
        self._waiting -= 1
        asked.connection.answer(asked.slot, answer)
        if self._drained is not None and not self._waiting and not self._drained.done():
            self._drained.set_result(None)
