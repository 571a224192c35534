"""The connections of rtb.adapters.lean_http to one server, and the calls that wait for one.

A call takes the connection that was used last, and goes on the wire at once. Others are opened only while calls wait,
few at a time: of many calls that come at once most are carried by the first connections that are free again. Of calls
that waited one is sent in an iteration of the event loop: many answers at once do not make many requests at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from functools import partial
from time import monotonic

from rtb.adapters.lean_call import Call
from rtb.adapters.lean_connection import ClosedIdle, LeanConnection
from rtb.adapters.outgoing_http import KEEP_ALIVE_S
from rtb.adapters.outgoing_names import KeptNames
from rtb.errors import HttpRefused

MOST_OPENING = 2
"""Connections to a server that are being opened at a time."""


class Places:
    """How many connections may be in use; pools that found none are fed in turn when one is free again."""

    def __init__(self, count: int) -> None:
        """All free."""
        self.free = count
        self._hungry: dict[LeanPool, None] = {}

    def want(self, pool: LeanPool) -> None:
        """Let a pool know when there is one."""
        self._hungry[pool] = None

    def feed(self) -> None:
        """Offer those that are free to who wants them."""
        for _ in range(min(self.free, len(self._hungry))):
            pool = next(iter(self._hungry))
            del self._hungry[pool]
            pool.work()


class LeanPool:
    """The calls to one scheme, host and port."""

    def __init__(
        self, key: tuple[str, str, int], most: int, places: Places, names: KeptNames, tls: ssl.SSLContext
    ) -> None:
        """`most` connections are in use at once, as `places` allow; addresses come from `names`."""
        self._key = key
        self._most = most
        self._places = places
        self._names = names
        self._tls = tls
        self._idle: deque[LeanConnection] = deque()  # by the time they were last used
        self._busy: set[LeanConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[Call] = deque()
        self._scheduled = self._closed = False

    @property
    def in_use(self) -> bool:
        """Whether there is anything to be done here, or to be kept."""
        return bool(self._busy or self._idle or self._opening or self._waiting)

    def submit(self, call: Call) -> None:
        """Send it now or as soon as there is a connection."""
        if self._waiting or not self._has_room() or not self._send(call):
            self._waiting.append(call)
            self.work()

    def work(self) -> None:
        """Send what waits longest, or open a connection for it; the next one later."""
        if self._waiting and not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._scheduled = False
        waiting = self._waiting
        if not waiting or self._closed or not self._has_room():
            return
        if self._send(waiting[0]):
            waiting.popleft()
        elif len(self._opening) < min(len(waiting), MOST_OPENING):
            self._places.free -= 1
            task = asyncio.get_running_loop().create_task(self._open(waiting[0].timeout_s))
            self._opening.add(task)
            task.add_done_callback(self._opened)
        else:
            return
        self.work()

    def drop(self, call: Call) -> None:
        """Nobody waits for it any more. What may still come would answer the next request, so its connection ends."""
        connection = call.connection
        if connection is not None and connection.call is call:
            connection.abort()
            self.released(connection)
        elif call in self._waiting:
            self._waiting.remove(call)
            if not self._waiting:
                for task in self._opening:
                    task.cancel()

    def released(self, connection: LeanConnection) -> None:
        """A connection carries nothing any more: keep it for the next call, or be rid of it."""
        self._busy.discard(connection)
        if connection.usable and not self._closed:
            self._keep(connection)
        else:
            connection.abort()
        self._give_back()

    def lost(self, connection: LeanConnection, call: Call | None = None, error: OSError | None = None) -> None:
        """A connection is gone, and perhaps what it carried."""
        if connection in self._idle:
            self._idle.remove(connection)
        if call is not None:
            if isinstance(error, ClosedIdle) and call.again and not self._closed:
                call.again = False
                self._waiting.appendleft(call)
                self._drop_idle()  # they are as old, or older
                call = None
            self.released(connection)
        if call is not None:
            call.end(error)

    def sweep(self, before: float) -> None:
        """Close what nobody has used since."""
        while self._idle and self._idle[0].idle_since <= before:
            self._idle.popleft().abort()

    def close(self, reason: str) -> list[asyncio.Task[None]]:
        """End all of it; the tasks that are still to end."""
        self._closed = True
        self._drop_idle()
        calls = [connection.call for connection in self._busy]
        for connection in [*self._busy]:
            connection.abort()
        for task in self._opening:
            task.cancel()
        calls += self._waiting
        self._waiting.clear()
        for call in calls:
            if call is not None:
                call.end(ConnectionError(reason))
        return [*self._opening]

    def _has_room(self) -> bool:
        if self._places.free <= 0:
            self._places.want(self)
            return False
        return len(self._busy) + len(self._opening) < self._most

    def _send(self, call: Call) -> bool:
        """On the connection used last, if it was not long ago."""
        while self._idle:
            connection = self._idle.pop()
            if monotonic() - connection.idle_since < KEEP_ALIVE_S and connection.send(call):
                self._places.free -= 1
                self._busy.add(connection)
                return True
            connection.abort()
        return False

    def _keep(self, connection: LeanConnection) -> None:
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def _give_back(self) -> None:
        """One connection less is in use; those of other servers come first if they have waited longer."""
        self._places.free += 1
        if self._waiting:
            self._places.want(self)
        self._places.feed()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._give_back()

    async def _open(self, timeout_s: float) -> None:
        """Open a connection; the call that waits longest hears why there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connect()
        except TimeoutError:
            pass  # who waits has a time-out of his own
        except (OSError, HttpRefused, ValueError) as error:
            if self._waiting:
                self._waiting.popleft().end(error)
        else:
            if connection.usable and not self._closed:
                self._keep(connection)
            else:
                connection.abort()

    async def _connect(self) -> LeanConnection:
        """To the first address that takes it. Raises OSError, HttpRefused."""
        scheme, host, port = self._key
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        secure = scheme == "https"
        for address in await self._names.addresses(host, port):
            try:
                _, connection = await loop.create_connection(
                    partial(LeanConnection, self),
                    address,
                    port,
                    ssl=self._tls if secure else None,
                    server_hostname=host.rstrip(".") if secure else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure or OSError(f"{host} has no address")
