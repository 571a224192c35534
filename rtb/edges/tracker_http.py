"""Tracking over HTTP: pixels, the click redirect, our own notices, and events that servers post.

    GET  /t/i/TOKEN                               the ad was shown: a 1x1 gif
    GET  /t/b/TOKEN                               our burl, the same told by the exchange upstream: 204
    GET  /t/w/TOKEN, /t/l/TOKEN?reason=           our nurl and lurl: 204
    GET  /t/c/TOKEN?u=DESTINATION                 the ad was clicked: 302 to the landing page the ticket was made for,
                                                  and nowhere else; without `u` 204, as click trackers want it
    GET  /t/v/TOKEN?value=&currency=&order=       the click or view led to a conversion: a 1x1 gif
    POST /events                                  one event or up to 1,000, JSON: 200 with a verdict on each

An answer says that the event is safe. It is late by `patience_s` at most: then a pixel gets its gif all the same, a
redirect leaves after `redirect_s`, and a server gets a 503 and sends it again, which does no harm. A refusal is a 403
(a token that is none of ours) or a 410 (it came too late), with a line that says so. A notice of another bidder's win
goes to the instance that sold it, and is a 410 when that is gone. HEAD answers, and counts nothing.

The events of one step of the loop are read together, then told together, then posted (rtb.edges.together).
"""

from __future__ import annotations

import asyncio
import math
import re
from base64 import b64decode
from collections.abc import Callable
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from rtb.domain.tracking import Ticket
from rtb.edges.http1 import Connection
from rtb.edges.http_responses import broken, error, response
from rtb.edges.patience import Patience, Waiting
from rtb.edges.posted_events import EVENTS, PostedEvents
from rtb.edges.together import MOST, Together
from rtb.errors import BrokerError, Unroutable
from rtb.openrtb import Loss
from rtb.ports import Clock, Message
from rtb.services.links import BILLING, CLICK, CONVERSION, IMPRESSION, LOSS, WIN
from rtb.services.tracker import MAX_ID, MAX_VALUE, Refused, Tracker, Visit

NO_STORE = b"cache-control: no-store\r\n"
GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
PIXEL = response(b"200 OK", GIF, NO_STORE, b"image/gif")
DONE = response(b"204 No Content", b"", NO_STORE)
CLICK_ID = "${CLICK_ID}"
"""In a landing page: becomes the token, which a conversion pixel brings back."""
MAX_FIELDS = 16

_GET = b"allow: GET, HEAD\r\n"
_STATUS = {
    Refused.EXPIRED: b"410 Gone",
    Refused.FORGOTTEN: b"410 Gone",
    Refused.GONE: b"410 Gone",
    Refused.DESTINATION: b"404 Not Found",
    Refused.NO_CAMPAIGN: b"404 Not Found",
    Refused.INVALID: b"400 Bad Request",
}
_PATHS = {"impression": IMPRESSION.encode(), "click": CLICK.encode(), "conversion": CONVERSION.encode()}
_REFUSALS = {reason: error(_STATUS.get(reason, b"403 Forbidden"), reason.value, NO_STORE) for reason in Refused}
_UNSAFE = error(b"503 Service Unavailable", "the event is not stored yet; send it again", NO_STORE)
_CURRENCY = re.compile("([A-Z]{3})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"


class _Notice(Waiting):
    """The answer to a notice that may have to go to another instance."""

    __slots__ = ()

    def __call__(self, error: BrokerError | None) -> None:
        """Answer, once."""
        if isinstance(error, Unroutable):
            self.safe, error = _REFUSALS[Refused.GONE], None
        super().__call__(error)


class _Event(Waiting):
    """An impression, click or conversion on its way to its answer; `query` is the click's, which names its page."""

    __slots__ = ("kind", "message", "query", "ticket", "token", "visit")

    ticket: Ticket
    message: Message

    def __init__(
        self, kind: str, token: str, visit: Visit, patience: Patience, connection: Connection, answer: bytes
    ) -> None:
        """Told by the request that the connection is responding to; answered the same whether safe or not."""
        super().__init__(patience, connection, answer, answer)
        self.kind = kind
        self.token = token
        self.visit = visit
        self.query = b""


class TrackerResponder:
    """Answers what stands beneath /t/ and at /events."""

    def __init__(
        self,
        tracker: Tracker,
        clock: Clock,
        *,
        postback_secret: str = "",
        trusted_proxy: bool = False,
        patience_s: float = 2.0,
        redirect_s: float = 0.05,
    ) -> None:
        """Render what `tracker` decides.

        Args:
            tracker: decides.
            clock: time.
            postback_secret: the bearer token of servers that tell conversions without a token; "" refuses them.
            trusted_proxy: every connection comes through a proxy that appends the client to X-Forwarded-For.
            patience_s: how long an answer waits for its event to be safe,
            redirect_s: and how long a redirect does.
        """
        self._tracker = tracker
        self._clock = clock
        self._trusted_proxy = trusted_proxy
        self._patience = Patience(patience_s, self._count)
        self._haste = Patience(redirect_s, self._count)
        self._posted = PostedEvents(tracker, postback_secret)
        self._together = Together((self._read, self._tell, self._post), _failed, lambda: MOST, clock)
        self._routes: dict[bytes, Callable[[Connection, str], bytes | None]] = {
            IMPRESSION.encode(): self._impression,
            BILLING.encode(): self._billing,
            CLICK.encode(): self._click,
            WIN.encode(): self._win,
            LOSS.encode(): self._loss,
            CONVERSION.encode(): self._conversion,
        }

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """The response, or None when `connection.answer` brings it."""
        if path == EVENTS:
            return self._events(connection, method, body)
        route = self._routes.get(path[:5])
        if route is None:
            return error(b"404 Not Found", "no such path")
        if method == b"HEAD":
            return DONE
        if method != b"GET":
            return error(b"405 Method Not Allowed", "this is fetched with GET", _GET)
        return route(connection, path[5:].decode("latin-1"))

    async def drained(self) -> None:
        """Wait until every event under way is answered."""
        await asyncio.sleep(0)  # what came in this step of the loop is posted in the next
        await self._haste.drained()
        await self._patience.drained()

    def _count(self) -> None:
        self._tracker.unsafe += 1

    def _impression(self, connection: Connection, token: str) -> bytes | None:
        visit = self._visit(connection, "pixel")
        self._together.add(_Event("impression", token, visit, self._patience, connection, PIXEL))
        return None

    def _billing(self, connection: Connection, token: str) -> bytes | None:
        waiting = _Notice(self._patience, connection, DONE, _UNSAFE)
        refused = self._tracker.bill(token, self._visit(connection, "burl"), waiting)
        return _outcome(refused, waiting)

    def _win(self, connection: Connection, token: str) -> bytes | None:
        waiting = _Notice(self._patience, connection, DONE, _UNSAFE)
        return _outcome(self._tracker.notice("win", token, waiting), waiting)

    def _loss(self, connection: Connection, token: str) -> bytes | None:
        told = dict(_fields(connection)).get("reason", "")
        reason = int(told) if told.isascii() and told.isdigit() and len(told) < 6 else Loss.OUTBID
        waiting = _Notice(self._patience, connection, DONE, _UNSAFE)
        return _outcome(self._tracker.notice("loss", token, waiting, reason), waiting)

    def _click(self, connection: Connection, token: str) -> bytes | None:
        query = connection.target.partition(b"?")[2]
        visit = self._visit(connection, "redirect" if query else "pixel")
        event = _Event("click", token, visit, self._haste, connection, DONE)
        event.query = query
        self._together.add(event)
        return None

    def _conversion(self, connection: Connection, token: str) -> bytes | None:
        told = dict(_fields(connection))
        value, currency, order_id = (
            _amount(told.get("value", "")),
            told.get("currency", "").upper(),
            told.get("order", ""),
        )
        if value is None or not _CURRENCY.fullmatch(currency) or len(order_id) > MAX_ID:
            return _REFUSALS[self._tracker.count_refused("conversion", Refused.INVALID)]
        visit = self._visit(connection, "pixel", value, currency, order_id)
        self._together.add(_Event("conversion", token, visit, self._patience, connection, PIXEL))
        return None

    def _read(self, event: _Event) -> bool:
        """Find its ticket, and for a click its page."""
        ticket = self._tracker.ticket(event.kind, event.token, event.visit)
        if isinstance(ticket, Refused):
            event.end(_REFUSALS[ticket])
            return False
        event.ticket = ticket
        return not event.query or self._redirect(event)

    def _redirect(self, event: _Event) -> bool:
        """Answer a click with where the ticket says, whether or not it can be stored."""
        tracker, wanted = self._tracker, event.ticket.destination
        page = next((page for page in _pages(event.query) if tracker.signer.destination(page) == wanted), "")
        if not page.lower().startswith(("https://", "http://")) or _CONTROL.search(page):
            event.end(_REFUSALS[tracker.refuse("click", Refused.DESTINATION, event.visit, token=event.token)])
            return False
        location = quote(page.replace(CLICK_ID, event.token), safe=_URL_SAFE).encode()
        event.safe = event.unsafe = response(b"302 Found", b"", b"location: %b\r\n" % location + NO_STORE)
        return True

    def _tell(self, event: _Event) -> bool:
        """Make its message."""
        event.message = self._tracker.message(event.kind, event.ticket, event.token, event.visit)
        return True

    def _post(self, event: _Event) -> bool:
        """Have it stored, and answered once it is."""
        self._tracker.send(event.kind, event.message, event)
        event.wait()
        return True

    def _events(self, connection: Connection, method: bytes, body: bytes) -> bytes | None:
        if method != b"POST":
            return error(b"405 Method Not Allowed", "events are posted", b"allow: POST\r\n")
        waiting = Waiting(self._patience, connection, b"", _UNSAFE)
        authorization = _header(connection, b"authorization")
        wrong = self._posted.take(body, authorization, self._clock.time(), waiting)
        return wrong or _outcome(None, waiting)

    def _visit(
        self, connection: Connection, source: str, value: float = 0.0, currency: str = "", order_id: str = ""
    ) -> Visit:
        """Who came, from where."""
        ua = ip = ""
        for name, text in connection.headers or ():
            if len(name) == 10 and name.lower() == b"user-agent":
                ua = text.decode("utf-8", "replace")
            elif self._trusted_proxy and len(name) == 15 and name.lower() == b"x-forwarded-for":
                ip = text.rpartition(b",")[2].strip().decode("latin-1")
        return Visit(self._clock.time(), source, ua, ip or connection.peer, value, currency, order_id)


def _failed(event: _Event, mistake: Exception) -> None:
    event.end(broken(_PATHS[event.kind] + event.token.encode("latin-1"), mistake))


def _outcome(refused: Refused | None, waiting: Waiting) -> bytes | None:
    """The refusal, or nothing while it waits."""
    if refused is not None:
        return _REFUSALS[refused]
    waiting.wait()
    return None


def _header(connection: Connection, wanted: bytes) -> bytes:
    return next((value for name, value in connection.headers or () if name.lower() == wanted), b"")


def _fields(connection: Connection) -> list[tuple[str, str]]:
    """The query's fields; none when there are too many to be ours."""
    query = connection.target.partition(b"?")[2].decode("latin-1")
    try:
        return parse_qsl(query, max_num_fields=MAX_FIELDS)
    except ValueError:
        return []


def _amount(text: str) -> float | None:
    """A conversion's value, 0 when it has none; None for what is no amount."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= MAX_VALUE else None


def _pages(query: bytes) -> list[str]:
    """What `u` can mean: all that follows, or up to the next field, which somebody may have added."""
    if not query.startswith(b"u="):
        return []
    raw = query[2:]
    pages = [unquote_to_bytes(part) for part in dict.fromkeys((raw, raw.partition(b"&")[0]))]
    return [page.decode("utf-8", "replace") for page in pages]
