"""Impressions on their way to the frequency counters of the state store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import structlog

from rtb.errors import StoreError
from rtb.ports import StateStore

MAX_WAITING = 100_000
MAX_BATCH = 2_000
DOUBTFUL_S = 50.0
"""How long a batch that failed is tried again: the store knows it by its id for a minute."""
AGAIN_FIRST_S = 0.1
AGAIN_MOST_S = 1.0

_log = structlog.get_logger(__name__)

Count = tuple[str, str, int]  # user, counter, window seconds


class Impressions:
    """Counts them, many at once, each at most once; keeps them while the store is away, up to MAX_WAITING.

    A batch whose reply was lost is sent again under its own id, so it counts once. After DOUBTFUL_S it is given up.
    """

    def __init__(self, state: StateStore, reading: asyncio.Lock, *, gather_s: float) -> None:
        """Before each round trip `gather_s` pass. Nothing is sent while the counters are read under `reading`, so
        what is `add`ed right after a read was not in it, but for a batch whose reply was lost."""
        self._state = state
        self._reading = reading
        self._gather_s = gather_s
        self._waiting: list[Count] = []
        self._unconfirmed: dict[str, dict[str, int]] = {}  # impressions by user and counter
        self._working: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.dropped = 0

    def count(self, user_id: str, counter: str, window_s: int) -> None:
        """Count an impression soon."""
        if len(self._waiting) >= MAX_WAITING:
            self._drop(1)
            return
        self._waiting.append((user_id, counter, window_s))
        numbers = self._unconfirmed.setdefault(user_id, {})
        numbers[counter] = numbers.get(counter, 0) + 1
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    def add(self, user_id: str, frequency: dict[str, int]) -> None:
        """Add those of a user that the store has not confirmed."""
        for counter, number in self._unconfirmed.get(user_id, {}).items():
            frequency[counter] = frequency.get(counter, 0) + number

    def __bool__(self) -> bool:
        """Whether the store has yet to confirm any."""
        return bool(self._unconfirmed)

    async def close(self) -> None:
        """Wait for what is under way; a store that is away is tried once more."""
        self._closing.set()
        if self._working is not None:
            await self._working

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._gather_s)
                batch = self._waiting[:MAX_BATCH]
                del self._waiting[:MAX_BATCH]
                if not await self._send(batch):
                    if self._closing.is_set():  # the others would fare no better, and the daemon is to end
                        batch += self._waiting
                        self._waiting.clear()
                    self._drop(len(batch))
                self._forget(batch)
        finally:
            self._working = None

    async def _send(self, batch: Sequence[Count]) -> bool:
        loop = asyncio.get_running_loop()
        batch_id, give_up_s, again_s = secrets.token_hex(8), loop.time() + DOUBTFUL_S, AGAIN_FIRST_S
        while True:
            last = self._closing.is_set() or loop.time() > give_up_s
            try:
                async with self._reading:
                    await self._state.count_impressions(batch, batch_id)
            except StoreError:
                if last:
                    return False
            except Exception:  # the next batch may do
                _log.exception("impressions_not_counted")
                return False
            else:
                return True
            try:
                await asyncio.wait_for(self._closing.wait(), again_s)
            except TimeoutError:
                again_s = min(again_s * 2, AGAIN_MOST_S)

    def _forget(self, batch: Sequence[Count]) -> None:
        for user_id, counter, _ in batch:
            numbers = self._unconfirmed[user_id]
            numbers[counter] -= 1
            if not numbers[counter]:
                del numbers[counter]
                if not numbers:
                    del self._unconfirmed[user_id]

    def _drop(self, number: int) -> None:
        if not self.dropped:
            _log.warning("impressions_dropped", note="frequency caps will be exceeded; further ones are only counted")
        self.dropped += number
