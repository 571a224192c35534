"""One browser at the socket: what waits to be sent to it, and what it has subscribed to."""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import WSCloseCode, WSMsgType, web

from dashboard.tokens import Identity, Pass

CLOSE_S = 2.0
EVENTS, EVENT_BYTES = 64, 1 << 20
"""Events and answers that may wait for a client."""
_FINAL_TEXT = b"\x81"


class Encoded:
    """A text message, and the WebSocket frame around it, for however many clients.

    Source: RFC 6455 5.2; frames of a server are not masked.
    """

    __slots__ = ("frame", "message")

    def __init__(self, message: bytes) -> None:
        """Frame it."""
        length = len(message)
        if length < 126:
            head = b"%b%c" % (_FINAL_TEXT, length)
        elif length < 1 << 16:
            head = b"%b\x7e%b" % (_FINAL_TEXT, length.to_bytes(2, "big"))
        else:
            head = b"%b\x7f%b" % (_FINAL_TEXT, length.to_bytes(8, "big"))
        self.message = message
        self.frame = head + message


class Client:
    """One slot for each kind of message that a newer one replaces, a queue of events and answers, of which the oldest
    give way, and what it has subscribed to.

    A client that has taken everything so far is written to at once. For one that has not, a task sends what waits as
    the client takes it.
    """

    __slots__ = (
        "_event_bytes",
        "_events",
        "_sending",
        "_slots",
        "_transport",
        "_wake",
        "campaigns",
        "channels",
        "given",
        "gone",
        "greeted",
        "instance",
        "tasks",
        "ws",
    )

    def __init__(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport | None, given: Pass | None = None
    ) -> None:
        """Nothing waits. `given` is what it was let in with; without, anybody may do anything."""
        self.ws = ws
        self.given = given
        self.campaigns: tuple[str, ...] = ()
        self.channels: set[str] = set()
        self.instance = ""
        self.greeted = self.gone = False
        self.tasks: set[asyncio.Task[None]] = set()
        self._transport = transport
        self._sending = False
        self._events: deque[bytes] = deque()
        self._event_bytes = 0
        self._slots: dict[str, bytes] = {}
        self._wake = asyncio.Event()

    @property
    def identity(self) -> Identity | None:
        """Who it is."""
        return None if self.given is None else self.given.identity

    def put(self, kind: str, message: Encoded) -> None:
        """Send this in its turn, instead of what waits of the same kind."""
        if not self.gone and not self._written(message):
            self._slots[kind] = message.message
            self._wake.set()

    def add(self, event: Encoded) -> None:
        """Send this, too, in its turn."""
        if self.gone or self._written(event):
            return
        self._events.append(event.message)
        self._event_bytes += len(event.message)
        while len(self._events) > EVENTS or (self._event_bytes > EVENT_BYTES and len(self._events) > 1):
            self._event_bytes -= len(self._events.popleft())
        self._wake.set()

    def forget(self) -> None:
        """Send nothing any more, not even what waits."""
        self.gone = True
        self._slots.clear()
        self._events.clear()

    async def send_forever(self, timeout_s: float) -> None:
        """Send what waits, one message at a time.

        Raises:
            TimeoutError: the client did not take a message in `timeout_s`.
            ConnectionError: it is gone.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._sending = True
            while self._slots or self._events:
                if self._slots:
                    message = self._slots.pop(next(iter(self._slots)))
                    self.greeted = True  # the greeting is what waits first
                    await self._send(message, timeout_s)
                if self._events:
                    event = self._events.popleft()
                    self._event_bytes -= len(event)
                    await self._send(event, timeout_s)
            self._sending = False

    async def close(self, code: WSCloseCode, reason: bytes) -> None:
        """Close in order where the client plays along, else by cutting the connection."""
        if not self.ws.prepared:
            self._abort()
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.ws.close(code=code, message=reason)
        except TimeoutError:
            self._abort()
        except ConnectionError:
            pass

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _send(self, message: bytes, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await self.ws.send_frame(message, WSMsgType.TEXT)

    def _written(self, encoded: Encoded) -> bool:
        """Write it at once where nothing waits: a task's turn and a time-out would cost more than the message."""
        transport = self._transport
        if (
            transport is None
            or not self.greeted
            or self._sending
            or self._slots
            or self._events
            or self.ws.closed
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return False
        transport.write(encoded.frame)
        return True
