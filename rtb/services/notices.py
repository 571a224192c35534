"""Win, billing and loss notices for the bids of other bidders: nurl, burl and lurl, fired by the server.

    auction_closed   a listener of `Exchange.listen`: losers get their lurl, the winner its nurl (where the sale is ours
                     to make: source.fd is not 1), and its burl is kept for the billing event
    won, lost        our own nurl or lurl was called: the upstream source decided
    billed           the impression became billable

An auction only leaves itself in a queue here; `NoticeSender` makes and sends notices in later iterations of the loop,
one at a time. What is remembered and what waits is in memory alone: a process that is killed loses it, and another
process does not have it.

Sources: OpenRTB 2.6 3.2.2 (``fd``), 4.2.3 (nurl, burl, lurl), 7.2 (late billing), 7.8 (billing notices).
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from msgspec import Struct, structs

from rtb.domain.auction import Lost, Result
from rtb.domain.intake import RemoteBid
from rtb.domain.macros import AUDIT, ENCODINGS, Encodings, Values, loss_values, substitute, win_values
from rtb.domain.money import Rates
from rtb.openrtb import Bid as WireBid
from rtb.openrtb import BidRequest, Loss
from rtb.ports import Clock
from rtb.ports.http import NOTHING_MORE
from rtb.services.exchange import Auction, Outcome
from rtb.services.notice_sender import NS, Kind, Notice, NoticeSender

MAX_USER_AGENT = 1_024

_IMP_TS = "${AUCTION_IMP_TS"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class _Sale(Struct, eq=False, gc=False):
    """A bid that won here. A URL is "" once it was fired or cannot be due any more: a sale that was ours to make is not
    lost upstream, and one that was lost there is not billed. `values` are kept while a macro waits to be replaced."""

    nurl: str
    burl: str
    lurl: str
    values: Values | None
    expires_ns: int


class Notices:
    """Fires the notices of auctions.

    `sender.tallies` say what became of notices. `overlooked` counts auctions that found the queue full, `forgotten`
    sales that made place for newer ones before their time was over; both only grow.
    """

    def __init__(
        self,
        sender: NoticeSender,
        clock: Clock,
        rates: Rates,
        *,
        window_s: float = 86_400.0,
        longest_s: float = 604_800.0,
        remembered: int = 100_000,
        backlog: int = 4_096,
        encodings: Encodings = ENCODINGS,
    ) -> None:
        """Hand notices to `sender`.

        Args:
            sender: sends them.
            clock: the exchange's.
            rates: those the auctions run under.
            window_s: how long a sale waits for its billing event; longer when imp.exp or bid.exp says so.
            longest_s: at most.
            remembered: sales that wait, at some 650 bytes each; beyond, the oldest is forgotten.
            backlog: auctions whose notices are still to be made.
            encodings: of macros, as agreed with the bidders.
        """
        self.sender = sender
        self._clock = clock
        self._rates = rates
        self._window_ns = round(window_s * NS)
        self._longest_ns = round(longest_s * NS)
        self._most_sales = remembered
        self._most_closed = backlog
        self._encodings = encodings
        self._closed: deque[tuple[Auction, Outcome]] = deque()
        self._making: Iterator[None] = iter(())
        self._sales: OrderedDict[tuple[str, str], _Sale] = OrderedDict()
        sender.source = self
        self.overlooked = 0
        self.forgotten = 0

    @property
    def remembered(self) -> int:
        """Sales that wait for a notice of ours to be called."""
        return len(self._sales)

    @property
    def backlog(self) -> int:
        """Auctions whose notices are still to be made."""
        return len(self._closed)

    def auction_closed(self, auction: Auction, outcome: Outcome) -> None:
        """Take note of an auction; rehearsals without `test` = 1 are nobody's business. Never raises, never waits."""
        if not (outcome.results or auction.rejected) or (auction.rehearsal and auction.request.test != 1):
            return
        if len(self._closed) >= self._most_closed:
            self.overlooked += 1
            return
        self._closed.append((auction, outcome))
        self.sender.wake()

    def won(self, auction_id: str, impid: str) -> bool:
        """Our nurl was called: fire the winner's, unless that was done. False: no such sale is remembered here."""
        sale = self._sale(auction_id, impid)
        if sale is None:
            return False
        url, sale.nurl, sale.lurl = sale.nurl, "", ""
        self._fire(Kind.WIN, url, sale.values)
        return True

    def lost(self, auction_id: str, impid: str, reason: int = Loss.OUTBID) -> bool:
        """Our lurl was called: the bid that won here lost upstream. False: no such sale is remembered here."""
        sale = self._sale(auction_id, impid)
        if sale is None:
            return False
        url, sale.nurl, sale.burl, sale.lurl = sale.lurl, "", "", ""
        values = sale.values
        if values is not None and values.loss != AUDIT:
            values = structs.replace(values, price="", mbr="", min_to_win="", multiplier="", loss=str(int(reason)))
        self._fire(Kind.LOSS, url, values)
        return True

    def billed(
        self, auction_id: str, impid: str, ip: str = "", user_agent: str = "", shown_at: float | None = None
    ) -> bool:
        """The impression became billable: fire the winner's burl, unless that was done.

        Args:
            auction_id: the exchange's own.
            impid: of the imp that was sold.
            ip: of the device, for X-Forwarded-For; left out when it is no address.
            user_agent: of the device, for X-Device-User-Agent.
            shown_at: when the ad was shown, Unix seconds; now by default.

        Returns:
            False when no such sale is remembered here.
        """
        sale = self._sale(auction_id, impid)
        if sale is None:
            return False
        url, sale.burl = sale.burl, ""
        if url:
            values = sale.values
            if values is not None:
                shown_ms = round((self._clock.time() if shown_at is None else shown_at) * 1_000)
                values = structs.replace(values, imp_ts=str(shown_ms))
            self._fire(Kind.BILLING, url, values, _device_headers(ip, user_agent))
        return True

    def make_next(self) -> bool:
        """Make a notice; False when there is none to be made."""
        for _ in self._making:
            return True
        if not self._closed:
            return False
        self._making = self._make(*self._closed.popleft())
        next(self._making, None)
        return True

    async def quiet(self) -> None:
        """Return once each notice is made, and was tried."""
        await self.sender.quiet()

    async def stop(self, limit_s: float) -> None:
        """Make the notices that are still to be made, and send what can be sent within `limit_s`."""
        while self.make_next():
            pass
        await self.sender.stop(limit_s)

    def _make(self, auction: Auction, outcome: Outcome) -> Iterator[None]:
        """Make the notices of one auction, and pause after each, and between the two of the winner."""
        request = auction.request
        for result in outcome.results:
            if isinstance(result.winner, RemoteBid):
                yield from self._sell(auction.id, request, result, result.winner)
        for result in outcome.results:
            for lost in _losses(result):
                if not any(lost.bid is bid for bid in outcome.further) and self._lose(request, lost):
                    yield
        for lost in auction.rejected:
            if self._lose(request, lost):
                yield

    def _sell(self, auction_id: str, request: BidRequest, result: Result, winner: RemoteBid) -> Iterator[None]:
        wire: WireBid = winner.content
        nurl, burl, lurl = wire.nurl or "", wire.burl or "", wire.lurl or ""
        imp = next(imp for imp in request.imp or () if imp.id == winner.impid)
        multiplier = None if imp.qty is None else imp.qty.multiplier
        test = request.test == 1
        values = win_values(request.id or "", result, self._rates, multiplier=multiplier, test=test)
        if request.source is None or request.source.fd != 1:
            self._fire(Kind.WIN, nurl, values)
            if nurl:
                yield
            nurl = lurl = ""
        if test:
            burl = ""
        if nurl or burl or lurl or not test:  # without a URL, too: whoever calls ours shall not be told it is unknown
            sale = _Sale(nurl, burl, lurl, values, self._expiry(wire.exp, imp.exp))
            if not (nurl or lurl or _IMP_TS in burl):  # most are only billed: their URL is all that must be kept
                sale.burl, sale.values = substitute(burl, values, self._encodings), None
            self._remember((auction_id, winner.impid), sale)
        yield

    def _lose(self, request: BidRequest, lost: Lost) -> bool:
        """Whether that made a notice."""
        bid = lost.bid
        if not isinstance(bid, RemoteBid) or not bid.content.lurl:
            return False
        self._fire(
            Kind.LOSS, bid.content.lurl, loss_values(request.id or "", lost, self._rates, test=request.test == 1)
        )
        return True

    def _fire(self, kind: Kind, url: str, values: Values | None, headers: Mapping[str, str] = NOTHING_MORE) -> None:
        if url:
            if values is not None:
                url = substitute(url, values, self._encodings)
            self.sender.send(Notice(kind, url, headers))

    def _expiry(self, *exps: int | None) -> int:
        """A bid is billable after its exp, too, unless agreed otherwise [7.2]: it only prolongs the window."""
        window_ns = max([self._window_ns, *(exp * NS for exp in exps if exp)])
        return self._clock.monotonic_ns() + min(window_ns, self._longest_ns)

    def _remember(self, key: tuple[str, str], sale: _Sale) -> None:
        sales, now_ns = self._sales, self._clock.monotonic_ns()
        while sales and next(iter(sales.values())).expires_ns <= now_ns:
            sales.popitem(last=False)
        if len(sales) >= self._most_sales:
            sales.popitem(last=False)
            self.forgotten += 1
        sales[key] = sale

    def _sale(self, auction_id: str, impid: str) -> _Sale | None:
        sale = self._sales.get((auction_id, impid)) or self._early(auction_id, impid)
        return None if sale is None or sale.expires_ns <= self._clock.monotonic_ns() else sale

    def _early(self, auction_id: str, impid: str) -> _Sale | None:
        """The same of an auction whose notices are still to be made."""
        for _ in self._making:
            pass
        for closed in self._closed:
            if closed[0].id == auction_id:
                self._closed.remove(closed)
                for _ in self._make(*closed):
                    pass
                break
        return self._sales.get((auction_id, impid))


def _losses(result: Result) -> list[Lost]:
    """Those that can concern a remote bid; most auctions are lost by the house alone."""
    if any(isinstance(bid, RemoteBid) for bid in result.outbid):
        return result.losses
    return result.refused


def _device_headers(ip: str, user_agent: str) -> dict[str, str]:
    """Whose impression it was, for the receiver's checks of invalid traffic [7.8]."""
    headers: dict[str, str] = {}
    try:
        headers["X-Forwarded-For"] = str(ip_address(ip))
    except ValueError:
        pass
    user_agent = _CONTROL.sub(" ", user_agent)[:MAX_USER_AGENT].strip()
    if user_agent:
        headers["X-Device-User-Agent"] = user_agent
    return headers
