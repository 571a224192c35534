"""One call of the fan-out client: what is asked, what came of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from rtb.adapters.http_connection import Connection

_log = structlog.get_logger(__name__)


class Failure(StrEnum):
    """Why a call has no response."""

    TIMEOUT = "timeout"
    """Its deadline passed; whatever connection it was on is closed."""
    BUSY = "busy"
    """All connections are taken and enough calls wait for one."""
    CONNECT = "connect"
    """No connection: no address, refused, no answer, or TLS did not agree."""
    REFUSED = "refused"
    """The address policy keeps us from connecting."""
    CLOSED = "closed"
    """The server closed or reset the connection before the response was whole."""
    MALFORMED = "malformed"
    """What came is not HTTP/1.1, or not in the encoding it claims."""
    TOO_LARGE = "too-large"
    """The response is over the limit, as it came or once decompressed."""


class Call:
    """A request under way.

    When `on_done` is called with it, either `failure` says what went wrong, with `detail`, or `status` and `content`
    (decompressed) are the response's. Times are on the monotonic clock; `sent_ns` is 0 until it is on the wire.
    `context` is the caller's own.
    """

    __slots__ = (
        "body",
        "connection",
        "content",
        "context",
        "deadline_ns",
        "detail",
        "done",
        "ended_ns",
        "failure",
        "head",
        "on_done",
        "retried",
        "sent_ns",
        "status",
        "watch",
    )

    status: int
    content: bytes
    detail: str
    ended_ns: int

    def __init__(
        self, body: bytes, on_done: Callable[[Call], None], deadline_ns: int, context: Any, head: bytes = b""
    ) -> None:
        """Not sent yet; `head` and `body` are what goes on the wire. What is known only at its end is set there: one is
        made for every call."""
        self.head = head
        self.body = body
        self.on_done = on_done
        self.deadline_ns = deadline_ns
        self.context = context
        self.connection: Connection | None = None
        self.failure: Failure | None = None
        self.sent_ns = 0
        self.done = False
        self.retried = False
        self.watch: dict[Call, None] | None = None
        """Those of about its deadline, among whom it is looked after until it is done."""

    def settle(self, now_ns: int, status: int, content: bytes) -> None:
        """Tell the caller, once. What the caller's code raises is its mistake, not the connection's."""
        if self.done:
            return
        self.done = True
        if self.watch is not None:
            del self.watch[self]
        self.ended_ns = now_ns
        self.status = status
        self.content = content
        try:
            self.on_done(self)
        except Exception:
            _log.exception("on_done_failed")

    def fail(self, now_ns: int, failure: Failure, detail: str) -> None:
        """Settle without a response."""
        self.failure = failure
        self.detail = detail
        self.settle(now_ns, 0, b"")
