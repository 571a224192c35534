"""How fast, and how many at once, requests go out to a metric source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rtb.ports import Clock
from rtb.ports.metric_source import SourceError

IN_FLIGHT = 100
"""Requests under way at once, over all sources."""
MOST_HELD_S = 24 * 3600.0
NS = 1_000_000_000


class Gate:
    """The gate of one source; `overall` is shared by all of them.

    Requests begin at least 1 / per_second apart. Who would wait for more than `patience_s` for his turn is sent away at
    once with the reason, and so is everybody while the source is held off for longer.
    """

    def __init__(
        self,
        clock: Clock,
        overall: asyncio.Semaphore,
        *,
        in_flight: int = 10,
        per_second: float = 10.0,
        patience_s: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Let `in_flight` requests of this source be under way at once, and `per_second` begin."""
        self._clock = clock
        self._overall = overall
        self._own = asyncio.Semaphore(in_flight)
        self._spacing_ns = round(NS / per_second)
        self._patience_ns = round(patience_s * NS)
        self._sleep = sleep
        self._next_ns = 0
        self._reason = ""
        self._held_until_ns = 0

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Wait for a turn and keep a place until the request is over.

        Raises:
            SourceError: the turn would come too late.
        """
        async with self._own:
            await self._outwait_hold()
            await self._turn()
            async with self._overall:
                await self._outwait_hold()  # asked for meanwhile
                yield

    def hold_off(self, seconds: float, reason: str) -> None:
        """Let no request begin for so long; a longer hold stays."""
        until_ns = self._clock.monotonic_ns() + round(min(seconds, MOST_HELD_S) * NS)
        if until_ns > self._held_until_ns:
            self._held_until_ns, self._reason = until_ns, reason

    @property
    def held_s(self) -> float:
        """For how long the source is still held off."""
        return max(0, self._held_until_ns - self._clock.monotonic_ns()) / NS

    async def _turn(self) -> None:
        now_ns = self._clock.monotonic_ns()
        turn_ns = max(now_ns, self._next_ns)
        wait_ns = turn_ns - now_ns
        if wait_ns > self._patience_ns:
            raise SourceError(f"more requests than the rate limit allows; the next turn is in {wait_ns / NS:.0f} s")
        self._next_ns = turn_ns + self._spacing_ns
        if wait_ns > 0:
            await self._sleep(wait_ns / NS)

    async def _outwait_hold(self) -> None:
        held_s = self.held_s
        if held_s * NS > self._patience_ns:
            raise SourceError(f"{self._reason}; nothing is asked for another {held_s:.0f} s")
        if held_s > 0:
            await self._sleep(held_s)
