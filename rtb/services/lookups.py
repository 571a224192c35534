"""Lookups that travel together, one round trip at a time, and what is known of how the other side does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from rtb.errors import StoreError
from rtb.ports import Clock

MAX_BATCH = 1_000
MAX_ASKED = 20_000
AWAY_FIRST_NS = 100_000_000
AWAY_MOST_NS = 1_000_000_000

_log = structlog.get_logger(__name__)


class Lookups:
    """A line of user ids before one store.

    `late` means that a round trip takes, or the last one took, longer than anybody waits, or failed: ask, and do not
    wait for the answer. After a failure nothing should be asked until `away_until_ns`, 100 ms later at first and 1 s
    when it fails again and again; what is asked all the same is looked up.
    """

    def __init__(
        self,
        look_up: Callable[[Sequence[str]], Awaitable[None]],
        fail: Callable[[Sequence[str]], None],
        clock: Clock,
        *,
        patience_s: float,
        gather_s: float,
    ) -> None:
        """Call `look_up` with those asked for, or `fail` when it raised. Before each round trip `gather_s` pass."""
        self._look_up = look_up
        self._fail = fail
        self._clock = clock
        self._patience_s = patience_s
        self._gather_s = gather_s
        self._asked: list[str] = []
        self._working: asyncio.Task[None] | None = None
        self._begun_s = 0.0
        self._away_ns = 0
        self.away_until_ns = 0
        self.late = False

    @property
    def full(self) -> bool:
        """Whether no more should be asked."""
        return len(self._asked) >= MAX_ASKED

    def ask(self, user_ids: Sequence[str]) -> None:
        """Take them along with the next round trip."""
        self._asked += user_ids
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._working is not None:
            await self._working

    async def _work(self) -> None:
        try:
            while self._asked:
                await asyncio.sleep(self._gather_s)
                batch = self._asked[:MAX_BATCH]
                del self._asked[:MAX_BATCH]
                await self._round_trip(batch)
        finally:
            self._working = None

    def blame(self) -> None:
        """Somebody waited in vain: no others should while this round trip goes on, if it is what took so long."""
        if self._begun_s and asyncio.get_running_loop().time() - self._begun_s > self._patience_s / 2:
            self.late = True

    async def _round_trip(self, batch: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        self._begun_s = loop.time()
        try:
            await self._look_up(batch)
        except Exception as error:  # whatever it is, the auctions go on without profiles
            if not isinstance(error, StoreError):
                _log.exception("profile_lookup_failed")
            self._away_ns = min(self._away_ns * 2 or AWAY_FIRST_NS, AWAY_MOST_NS)
            self.away_until_ns = self._clock.monotonic_ns() + self._away_ns
            self.late = True
            self._fail(batch)
        else:
            self._away_ns = 0
            self.late = loop.time() - self._begun_s > self._patience_s
        finally:
            self._begun_s = 0.0
