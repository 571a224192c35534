"""The connections of one endpoint: as many as its limit, the most recently used first, opened ahead of need."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.http_call import Call, Failure
from rtb.adapters.http_connection import Connection
from rtb.adapters.http_dns import Names
from rtb.adapters.outgoing_names import NOT_PUBLIC
from rtb.adapters.outgoing_target import line
from rtb.ports import Clock

_S = 1_000_000_000
_FIRST_PAUSE_NS, _LONGEST_PAUSE_NS = _S // 10, 5 * _S
_AT_ONCE = 16
"""Connections being opened at a time: a server that is coming back is not met by all of them."""
_AHEAD_AT_ONCE = 4
"""Of them ahead of need: opening one takes as long as an auction, and auctions wait meanwhile."""
_RTT_SAMPLES = 64
_RTT_OFFSET = 148
"""Of tcpi_min_rtt, a u32 of microseconds, in Linux's struct tcp_info."""
_KEPT = re.compile(rb"timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


class Limits(Struct, frozen=True, kw_only=True):
    """What an endpoint may take: `connections` bounds calls in flight, `waiting` those beyond.

    `keep_alive_s` is how long a connection may be idle and still be used; where the server announces its own limit, a
    second less than that.
    """

    connections: int = 64
    warm: int = 0
    waiting: int = 64
    connect_s: float = 1.0
    keep_alive_s: float = 15.0
    max_body: int = 262_144


class Pool:
    """Hands calls to free connections; opens more up to the limit; after a failure pauses before it tries again."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        limits: Limits,
        *,
        names: Names,
        policy: AddressPolicy,
        clock: Clock,
    ) -> None:
        """Nothing is opened before the first call or sweep."""
        self.clock = clock
        self.max_body = limits.max_body
        self.network_ns = 0
        """The 90th percentile of connections' round trips, as the kernel measured them; 0 until there is one."""
        self.heads: dict[int, tuple[bytes, int]] = {}
        """The last heads that were parsed of responses of a length, body included, each with its status."""
        self.idle: list[Connection] = []
        """Open and free; the most recently used last."""
        self.waiting: deque[Call] = deque()
        """Calls without a connection, the oldest first."""
        self.keep_alive_ns = int(limits.keep_alive_s * _S)
        self.retired = False
        self._now_ns = clock.monotonic_ns
        self._host, self._port, self._tls = host, port, tls
        self._limits = limits
        self._names = names
        self._policy = policy
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._failures = 0
        self._paused_until_ns = 0
        self._last_failure = (Failure.CLOSED, "its endpoint is retired")
        self._rtts: deque[int] = deque(maxlen=_RTT_SAMPLES)
        self._closed = False

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._open)

    def submit(self, call: Call, now_ns: int) -> None:
        """Send a call, or have it wait for a connection; without hope of one it fails at once."""
        idle = self.idle
        while idle:
            if idle.pop().take(call, now_ns):
                return
        self._queue(call, now_ns)

    def opened(self, connection: Connection) -> None:
        """A connection is ready."""
        self._failures = 0
        self._paused_until_ns = 0
        if self._closed:
            connection.abandon()
            return
        self._open.add(connection)
        self.released(connection, self._now_ns())

    def released(self, connection: Connection, now_ns: int) -> None:
        """A connection is free: the longest waiting call gets it."""
        connection.idle_since_ns = now_ns
        while self.waiting:
            call = self.waiting.popleft()
            if not call.done:
                if not connection.take(call, now_ns):
                    self.waiting.appendleft(call)
                return
        if self.retired:
            connection.abandon()
            return
        self.idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is gone; those who wait get another."""
        self._open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if not self._closed and not self.retired:
            self._replenish(self._now_ns())

    def server_keeps(self, value: bytes) -> None:
        """What a Keep-Alive header says of idle connections: stay a second below it."""
        found = _KEPT.search(value)
        if found is not None:
            seconds = max(int(found[1]) - 1, 0)
            self.keep_alive_ns = min(int(self._limits.keep_alive_s * _S), seconds * _S)

    def sweep(self, now_ns: int) -> None:
        """Once a second: close what was idle too long or leads to an address that is no longer one, keep enough warm,
        look at the round trip times."""
        self._names.refresh(self._host)
        addresses = self._names.known(self._host)
        for connection in [*self.idle]:
            if now_ns - connection.idle_since_ns > self.keep_alive_ns or connection.address not in addresses:
                self.idle.remove(connection)
                connection.abandon()
        self._measure()
        if not self.retired:
            for _ in range(_AHEAD_AT_ONCE):
                self._replenish(now_ns)

    def retire(self) -> None:
        """Begin no further call; those under way are finished, and then their connections closed."""
        self.retired = True
        for connection in [*self.idle]:
            connection.abandon()

    @property
    def is_over(self) -> bool:
        """Whether it is retired and nothing is left of it."""
        return self.retired and not self._open and not self._opening and not self.waiting

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        tasks = [*self._opening]
        for task in tasks:
            task.cancel()
        self._last_failure = (Failure.CLOSED, "the client is closing")
        self._give_up()
        for connection in [*self._open]:
            call = connection.call
            connection.abandon()
            if call is not None:
                call.fail(self._now_ns(), *self._last_failure)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _queue(self, call: Call, now_ns: int) -> None:
        if self.retired or self._closed or (not self._open and now_ns < self._paused_until_ns):
            call.fail(now_ns, *self._last_failure)
            return
        waiting = self.waiting
        while waiting and waiting[0].done:
            waiting.popleft()
        if len(waiting) + len(self._open) >= self._limits.waiting + self._limits.connections:
            call.fail(now_ns, Failure.BUSY, f"{len(self._open)} connections are in use and {len(waiting)} calls wait")
            return
        waiting.append(call)
        self._grow(now_ns)

    def _grow(self, now_ns: int) -> None:
        opening = len(self._opening)
        if (
            opening < len(self.waiting)
            and opening < _AT_ONCE
            and opening + len(self._open) < self._limits.connections
            and now_ns >= self._paused_until_ns
        ):
            self._open_one()

    def _open_one(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and not self._closed and not self.retired:
            self._replenish(self._now_ns())

    def _replenish(self, now_ns: int) -> None:
        """Open one for those who wait, or ahead of need."""
        opening = len(self._opening)
        if self.waiting:
            self._grow(now_ns)
        elif (
            opening < _AHEAD_AT_ONCE
            and opening + len(self._open) < self._limits.warm
            and now_ns >= self._paused_until_ns
        ):
            self._open_one()

    async def _connect(self) -> None:
        """Open one connection, to the first address that lets us."""
        try:
            async with asyncio.timeout(self._limits.connect_s):
                addresses = await self._names.addresses(self._host)
            allowed = [address for address in addresses if not self._policy.refuses(self._host, address)]
            if not allowed:
                self._failed(Failure.REFUSED, f"{self._host} leads to {addresses[0]}, {NOT_PUBLIC}")
                return
            await self._connect_to(allowed)
        except TimeoutError:
            self._failed(Failure.CONNECT, f"{self._host} did not take a connection in {self._limits.connect_s:g} s")
        except (OSError, ValueError) as error:  # ValueError: a host that no name server would take
            self._failed(Failure.CONNECT, line(error))

    async def _connect_to(self, addresses: Sequence[str]) -> None:
        """Try each address once, beginning with another one each time, within the one limit."""
        loop = asyncio.get_running_loop()
        self._turn += 1
        first = self._turn % len(addresses)
        order = [*addresses[first:], *addresses[:first]]
        for n, address in enumerate(order, 1):
            made = Connection(self, address)
            try:
                async with asyncio.timeout(self._limits.connect_s / len(order)):
                    await loop.create_connection(
                        lambda made=made: made,
                        address,
                        self._port,
                        ssl=self._tls,
                        server_hostname=self._host if self._tls is not None else None,
                    )
                    return
            except OSError as error:  # TimeoutError is one
                if made.transport is not None:  # its time ran out just then: uvloop closes it, and does not say so
                    made.connection_lost(error)
                if n == len(order):
                    raise

    def _failed(self, failure: Failure, detail: str) -> None:
        """Pause, longer each time; with no connection left, calls need not wait for their deadline to know."""
        pause_ns = min(_FIRST_PAUSE_NS << min(self._failures, 10), _LONGEST_PAUSE_NS)
        self._failures += 1
        self._paused_until_ns = self._now_ns() + pause_ns
        self._last_failure = (failure, detail)
        if not self._open:
            self._give_up()

    def _give_up(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        now_ns = self._now_ns()
        for call in waiting:
            call.fail(now_ns, *self._last_failure)

    def _measure(self) -> None:
        for connection in [*self.idle[-4:]]:
            if connection.served and connection.transport is not None:
                microseconds = _round_trip_us(connection.transport)
                if microseconds:
                    self._rtts.append(microseconds)
        if self._rtts:
            self.network_ns = sorted(self._rtts)[len(self._rtts) * 9 // 10] * 1000


def _round_trip_us(transport: asyncio.Transport) -> int:
    """The shortest the kernel saw on a connection within five minutes, 0 if unknown: the network's part alone. The
    smoothed one is no measure of it: a server's kernel acknowledges a short request with the response, so that most of
    its samples are as long as the server thinks, or 40 ms."""
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_OFFSET + 4)
        (microseconds,) = struct.unpack_from("I", info, _RTT_OFFSET)
    except (OSError, AttributeError, struct.error):
        return 0
    return int(microseconds)
