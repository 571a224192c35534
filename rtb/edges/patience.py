"""Answers that wait until what they promise is safe, but not for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from rtb.edges.http1 import Connection
from rtb.errors import BrokerError

_LATE = BrokerError("neither broker nor spool had it in time")


class Waiting:
    """The answer to one request: call it with None once its event is safe, or with what went wrong."""

    __slots__ = ("_connection", "_patience", "_slot", "ends_at", "is_answered", "safe", "unsafe")

    def __init__(self, patience: Patience, connection: Connection, safe: bytes, unsafe: bytes) -> None:
        """To be answered with `safe`, or else `unsafe`, in the place of the request that is being responded to."""
        self._patience = patience
        self._connection = connection
        self._slot = connection.slot
        self.safe = safe
        self.unsafe = unsafe
        self.is_answered = False
        self.ends_at = 0.0

    def __call__(self, error: BrokerError | None) -> None:
        """Answer, once."""
        if self.is_answered:
            return
        self.is_answered = True
        self._connection.answer(self._slot, self.safe if error is None else self.unsafe)
        self._patience.ended(self, error)

    def end(self, answer: bytes) -> None:
        """Answer with this instead."""
        self.safe = answer
        self(None)

    def wait(self) -> None:
        """Wait for the call, unless it came already."""
        if not self.is_answered:
            self._patience.begin(self)


class Patience:
    """Ends the wait of answers that wait for too long. They wait equally long, so one timer does for all."""

    def __init__(self, limit_s: float, count: Callable[[], None]) -> None:
        """After `limit_s` the answer goes out as unsafe; `count` is called for each that does."""
        self._limit_s = limit_s
        self._count = count
        self._waiting: deque[Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, waiting: Waiting) -> None:
        """From now on it waits."""
        loop = asyncio.get_running_loop()
        waiting.ends_at = loop.time() + self._limit_s
        self._waiting.append(waiting)
        self._open += 1
        self._idle.clear()
        if self._timer is None:
            self._timer = loop.call_at(waiting.ends_at, self._end)

    def ended(self, waiting: Waiting, error: BrokerError | None) -> None:
        """It was answered."""
        if error is not None:
            self._count()
        if waiting.ends_at:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def drained(self) -> None:
        """Wait until nobody waits."""
        await self._idle.wait()

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        now, waiting = loop.time(), self._waiting
        while waiting and (waiting[0].is_answered or waiting[0].ends_at <= now):
            waiting.popleft()(_LATE)
        self._timer = loop.call_at(waiting[0].ends_at, self._end) if waiting else None
