"""Bid requests over HTTP/1.1 keep-alive connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

from rtb.errors import ConfigError
from rtb.lab.load.answer import Head, classify, read_head
from rtb.lab.load.payload import Payload
from rtb.lab.load.tally import Outcome

Report = Callable[[int, Outcome, str, int], None]

_KNOWN_HEADS = 4096
_RECONNECT_S = 0.05


class HttpTarget:
    """A pool of connections, each with at most `pipeline` requests under way. One that is lost is opened anew, and what
    was under way on it is lost, as it is when the server makes no progress on it for `give_up_ns`."""

    def __init__(
        self,
        url: str,
        bodies: Iterable[Payload],
        request_ids: Iterator[bytes],
        *,
        connections: int = 32,
        pipeline: int = 1,
        give_up_ns: int = 2_000_000_000,
        check_ids: bool = True,
    ) -> None:
        """Send `bodies` in turn, a sequence over and over, an iterator to its end; `open` connects.

        Raises:
            ConfigError: the URL is not http://host:port/path.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"--url {url}: give http://host:port/path")
        self._host = parts.hostname
        self._port = parts.port or 80
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            "x-openrtb-version: 2.6\r\nContent-Length: "
        ).encode()
        requests = map(self._request, bodies)
        self._requests = cycle(requests) if isinstance(bodies, Sequence) else requests
        self._request_ids = request_ids
        self._connections = connections
        self._pipeline = pipeline
        self._give_up_ns = give_up_ns
        self._free: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._reconnects: set[asyncio.Task[None]] = set()
        self._closing = False
        self.check_ids = check_ids
        self.heads: dict[bytes, Head] = {}
        self.report: Report = _nobody
        self.on_won: Callable[[bytes], None] | None = None
        """Gets the body of every answer that won something."""

    async def open(self, report: Report) -> None:
        """Connect all of them; from now on every request ends in one call of `report`.

        Raises:
            OSError: nobody answers there.
        """
        self.report = report
        for _ in range(self._connections):
            await self._connect()

    def send(self, intended_ns: int, now_ns: int) -> bool:
        """Send the next request on a free connection, if there is one."""
        free = self._free
        while free:
            connection = free.popleft()
            if connection.alive:
                before, after = next(self._requests)
                connection.send(before, next(self._request_ids), after, intended_ns, now_ns)
                return True
        return False

    def sweep(self, now_ns: int) -> None:
        """Cut the connections that made no progress for too long."""
        for connection in list(self._open):
            if connection.under_way and connection.progress_ns + self._give_up_ns < now_ns:
                connection.fail("unanswered", now_ns)

    async def close(self) -> None:
        """Disconnect; what is under way is lost."""
        self._closing = True
        self._free.clear()
        for task in self._reconnects:
            task.cancel()
        await asyncio.gather(*self._reconnects, return_exceptions=True)
        now_ns = time.monotonic_ns()
        for connection in list(self._open):
            connection.fail("unanswered", now_ns)

    def connected(self, connection: _Connection) -> None:
        """A connection is up: it has room for `pipeline` requests."""
        self._open.add(connection)
        self._free.extend([connection] * self._pipeline)

    def disconnected(self, connection: _Connection) -> None:
        """A connection is down: replace it."""
        if connection in self._open:
            self._open.discard(connection)
            if not self._closing:
                task = asyncio.get_running_loop().create_task(self._reconnect(at_once=connection.answered))
                self._reconnects.add(task)
                task.add_done_callback(self._reconnects.discard)

    def freed(self, connection: _Connection) -> None:
        """A connection has room for one more."""
        self._free.append(connection)

    def head(self, data: bytes) -> Head:
        """Read a head, and remember it: servers send few different ones."""
        head = read_head(data)
        if len(self.heads) >= _KNOWN_HEADS:
            self.heads.clear()
        self.heads[data] = head
        return head

    def _request(self, body: Payload) -> tuple[bytes, bytes]:
        """What comes before and after the request id on the wire."""
        return b"%b%d\r\n\r\n%b" % (self._head, body.size, body.before), body.after

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self._host, self._port)

    async def _reconnect(self, *, at_once: bool) -> None:
        """Connect again: at once after a connection that was of use, else with a pause before each attempt."""
        while not self._closing:
            if not at_once:
                await asyncio.sleep(_RECONNECT_S)
            at_once = False
            with contextlib.suppress(OSError):
                await self._connect()
                return


class _Connection(asyncio.Protocol):
    """One connection: requests out, answers in the same order."""

    __slots__ = ("_rest", "_target", "_transport", "_waiting", "alive", "answered", "progress_ns")

    def __init__(self, target: HttpTarget) -> None:
        self._target = target
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._rest = b""
        self.alive = False
        self.answered = False
        self.progress_ns = 0

    @property
    def under_way(self) -> int:
        return len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.alive = True
        self._target.connected(self)

    def send(self, before: bytes, request_id: bytes, after: bytes, intended_ns: int, now_ns: int) -> None:
        if not self._waiting:
            self.progress_ns = now_ns
        self._waiting.append((intended_ns, request_id))
        try:
            self._transport.write(b"".join((before, request_id, after)))
        except RuntimeError:  # closed under us; connection_lost follows and reports it
            self.alive = False

    def data_received(self, data: bytes) -> None:
        now_ns = self.progress_ns = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
            self._rest = b""
        target = self._target
        start = 0
        while start < len(data):
            end = data.find(b"\r\n\r\n", start)
            if end < 0:
                break
            raw = data[start:end]
            try:
                head = target.heads.get(raw) or target.head(raw)
            except ValueError as error:
                self._broken(f"broken: {error}", now_ns)
                return
            body_at = end + 4
            stop = body_at + head.length
            if len(data) < stop:
                break
            start = stop
            if not self._waiting:
                self._broken("broken: an answer too many", now_ns)
                return
            intended_ns, request_id = self._waiting.popleft()
            self.answered = True
            body = data[body_at:stop]
            outcome, reason = classify(head, body, request_id if target.check_ids else b"")
            if outcome is Outcome.WON and target.on_won is not None:
                target.on_won(body)
            if head.closes:
                self._down()
            else:
                target.freed(self)
            target.report(intended_ns, outcome, reason, now_ns)
            if head.closes:
                self.fail("connection closed", now_ns)
                return
        if start < len(data):
            self._rest = data[start:] if start else data

    def connection_lost(self, exc: Exception | None) -> None:
        now_ns = time.monotonic_ns()
        if self._rest and self._waiting:
            self._broken("broken: cut off", now_ns)
        else:
            self.fail("connection closed", now_ns)

    def fail(self, reason: str, now_ns: int) -> None:
        """Cut the connection; what is under way is lost."""
        self._down()
        while self._waiting:
            intended_ns, _ = self._waiting.popleft()
            self._target.report(intended_ns, Outcome.LOST, reason, now_ns)

    def _broken(self, reason: str, now_ns: int) -> None:
        """An answer that cannot be read is an error of the request it was for; those behind it are lost."""
        self._down()
        if self._waiting:
            intended_ns, _ = self._waiting.popleft()
            self._target.report(intended_ns, Outcome.ERROR, reason, now_ns)
        self.fail("connection closed", now_ns)

    def _down(self) -> None:
        self.alive = False
        self._transport.abort()
        self._target.disconnected(self)


def _nobody(intended_ns: int, outcome: Outcome, reason: str, now_ns: int) -> None:
    """Nothing is sent before `open`."""
