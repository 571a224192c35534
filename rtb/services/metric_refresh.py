"""Keeps the metrics of running campaigns fresh, so that whoever looks at them need not wait for a platform."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection

import structlog

from rtb.domain.source_metrics import Days
from rtb.services.metric_sources import MetricSources
from rtb.services.waiting import ended

_log = structlog.get_logger(__name__)


class MetricRefresh:
    """Asks the sources for what `watched` names, every `interval_s` and a little more or less.

    One daemon is enough: each that does it takes its share of the platforms' rate limits.
    """

    def __init__(
        self,
        sources: MetricSources,
        watched: Callable[[], tuple[Collection[str], Days]],
        *,
        interval_s: float = 240.0,
        jitter: float = 0.1,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Refresh the campaigns and days of `watched`, asked each time, as both change.

        Args:
            interval_s: from the end of one refresh to the next; shorter than figures are fresh.
            jitter: the part of it by which a pause is longer or shorter, by `chance` (0 to 1), so that daemons that
                started together do not ask together.
            sleep: waits for seconds.
        """
        self._sources = sources
        self._watched = watched
        self._interval_s = interval_s
        self._jitter = jitter
        self._chance = chance
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin at once."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; figures that are on their way are not waited for."""
        if self._task is not None:
            await ended(self._task)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                campaign_ids, days = self._watched()
                await self._sources.refresh(campaign_ids, days)
            except Exception:  # the catalogue's fault; the next round may go better
                _log.exception("metric_refresh_failed")
            await self._sleep(self._interval_s * (1 + self._jitter * (2 * self._chance() - 1)))
