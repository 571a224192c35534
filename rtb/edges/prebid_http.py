"""What pages with Prebid.js need of an HTTP server besides the auction.

    Origin of a request                the scripts of which sites may ask and read the answer (CORS)
    OPTIONS on any of these paths      the browser's question whether they may
    GET /status                        200 when ready, else 503
    GET /info/bidders                  the bidder codes, a JSON list
    GET /info/bidders/CODE             what a bidder takes
    POST /cookie_sync                  nothing to synchronise: this exchange sets no cookies and knows nobody by any

Source: the Fetch standard, "CORS protocol"; Prebid Server, endpoints /status, /info and /cookie_sync.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from rtb.edges.http1 import Connection
from rtb.edges.http_responses import error, response

MEDIA = ("banner", "video", "audio", "native")
ANY = "*"
"""In place of origins: every site."""
OWN = "rtb"
"""The bidder code of the whole exchange, unless it is given another."""

_STATUS, _BIDDERS, _BIDDER, _COOKIES = b"/status", b"/info/bidders", b"/info/bidders/", b"/cookie_sync"
_PREFLIGHT_S = 7_200
"""How long a browser remembers an answer to OPTIONS: the most that Chromium does."""
_json = msgspec.json.Encoder().encode
_NO_COOKIES = response(b"200 OK", _json({"status": "ok", "bidder_status": []}))
_FOREIGN = error(b"403 Forbidden", "origin: this site may not ask here; see http.origins in the settings")


class Origins:
    """The sites whose pages may call."""

    def __init__(self, allowed: Collection[str] = (ANY,)) -> None:
        """`allowed` are origins such as ``https://news.example``, or ANY."""
        self._any = ANY in allowed
        self._allowed = frozenset(origin.rstrip("/").lower().encode() for origin in allowed)

    def admit(self, connection: Connection) -> bytes | None:
        """Have the answer to a page's request say that the page may read it; a response when it may not even ask.

        The answer names the origin and allows credentials, because Prebid.js sends them; none are looked at.
        """
        origin = connection.origin
        if not self._any and origin.lower() not in self._allowed:
            return _FOREIGN
        connection.slot.lines = (
            b"\r\naccess-control-allow-origin: %b\r\naccess-control-allow-credentials: true\r\nvary: origin\r\n"
            % origin
        )
        return None


def preflight(connection: Connection, methods: bytes) -> bytes:
    """What may be sent to a path, for OPTIONS: its methods, and whatever headers the page wants to send."""
    wanted = b""
    for name, value in connection.headers or ():
        if name.lower() == b"access-control-request-headers":
            wanted = b"access-control-allow-headers: %b\r\n" % value
    lines = b"allow: %b, OPTIONS\r\naccess-control-allow-methods: %b\r\naccess-control-max-age: %d\r\n"
    return response(b"204 No Content", b"", lines % (methods, methods, _PREFLIGHT_S) + wanted)


class PrebidPages:
    """Answers the paths of Prebid Server that are no auction."""

    def __init__(
        self,
        bidders: Callable[[], Mapping[str, Sequence[str]]],
        *,
        own: str = OWN,
        origins: Origins | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Tell of `bidders`.

        Args:
            bidders: by name, as they are now, the media that each takes; () for all.
            own: the bidder code that stands for all of them.
            origins: the sites whose pages may ask; None for all.
            ready: whether the exchange is.
        """
        self._bidders = bidders
        self._ready = ready
        self.own = own
        self.origins = origins or Origins()

    def respond(self, connection: Connection, method: bytes, path: bytes) -> bytes | None:
        """The response; None when the path is none of these."""
        page = self._page(path)
        if page is None:
            return None
        if connection.origin and (refused := self.origins.admit(connection)):
            return refused
        methods = b"POST" if path == _COOKIES else b"GET, HEAD"
        if method == b"OPTIONS":
            return preflight(connection, methods)
        if method not in methods.split(b", "):
            return error(b"405 Method Not Allowed", f"send {methods.decode()}", b"allow: %b, OPTIONS\r\n" % methods)
        return page()

    def _page(self, path: bytes) -> Callable[[], bytes] | None:
        if path == _STATUS:
            return self._status
        if path == _BIDDERS:
            return self._list
        if path == _COOKIES:
            return lambda: _NO_COOKIES
        if path.startswith(_BIDDER):
            return lambda: self._bidder(path.removeprefix(_BIDDER).decode("latin-1"))
        return None

    def _status(self) -> bytes:
        if self._ready():
            return response(b"200 OK", _json({"status": "ok"}))
        return error(b"503 Service Unavailable", "not ready; /readyz says why")

    def _list(self) -> bytes:
        return response(b"200 OK", _json(sorted({*self._bidders(), self.own})))

    def _bidder(self, code: str) -> bytes:
        media = () if code == self.own else self._bidders().get(code)
        if media is None:
            return error(b"404 Not Found", "no bidder of this code; /info/bidders lists them")
        takes = {"mediaTypes": list(media or MEDIA)}
        body = {"status": "ACTIVE", "capabilities": {"app": takes, "site": takes, "dooh": takes}}
        return response(b"200 OK", _json(body))
