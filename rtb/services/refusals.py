"""Refused events are kept for a while, and not without end."""

from __future__ import annotations

import asyncio

import structlog

from rtb.errors import StoreError
from rtb.ports import Clock, Ledger
from rtb.services.waiting import ended

KEPT_S = 30 * 86_400.0
KEPT = 1_000_000
SLICE = 1_000
"""How many are deleted in one transaction: others write between two of them."""
INTERVAL_S = 60.0

_log = structlog.get_logger(__name__)


class RefusalKeeper:
    """Deletes the refused events that are older than `kept_s` seconds, or more than `kept`."""

    def __init__(
        self, ledger: Ledger, clock: Clock, *, kept_s: float = KEPT_S, kept: int = KEPT, interval_s: float = INTERVAL_S
    ) -> None:
        """Look every `interval_s`; any number of daemons may."""
        self._ledger = ledger
        self._clock = clock
        self._kept_s = kept_s
        self._kept = kept
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            await ended(self._task)
            self._task = None

    async def sweep(self) -> int:
        """Delete what is too old or too much, in slices; how many. Raises StoreError."""
        deleted = 0
        while True:
            before = self._clock.time() - self._kept_s
            count = await self._ledger.forget_refusals(before=before, keep=self._kept, limit=SLICE)
            deleted += count
            if count < SLICE:
                return deleted

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                deleted = await self.sweep()
            except StoreError as error:
                _log.info("refusals_not_swept", reason=str(error))
            except Exception:
                _log.exception("refusals_not_swept")
            else:
                if deleted:
                    _log.info("refusals_forgotten", events=deleted)
