"""Keeps what sources told over a restart: read when a daemon begins, written as it is told."""

from __future__ import annotations

import asyncio

import structlog

from rtb.domain.source_metrics import Days, Told
from rtb.errors import StoreError
from rtb.ports import Clock
from rtb.ports.told_figures import ToldFigures
from rtb.services.metric_sources import MetricSources
from rtb.services.waiting import ended

KEPT_S = 30 * 86_400.0
"""How long figures are kept that nobody asked for again."""

_log = structlog.get_logger(__name__)


class FigureMemory:
    """Figures that it brings back count from when they were told: fresh, or stale with their age.

    While the database is away figures are as they would be without this; what was told meanwhile is written later.
    """

    def __init__(self, store: ToldFigures, sources: MetricSources, clock: Clock, *, keep: int) -> None:
        """Of the figures that `sources` are told, the last `keep`; `store` is open."""
        self._store = store
        self._sources = sources
        self._clock = clock
        self._keep = keep
        self._unwritten: dict[tuple[str, str, Days], Told] = {}
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._away = False

    async def start(self) -> None:
        """Bring back what is kept, and begin to write."""
        now = self._clock.time()
        try:
            await self._store.forget(now - KEPT_S)
            for told in reversed(await self._store.recent(now - KEPT_S, self._keep)):
                self._sources.recall(told)
        except StoreError as error:
            self._tell_away(error)
        self._sources.on_told = self._note
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is not written yet, and end."""
        self._sources.on_told = None
        if self._task is not None:
            await ended(self._task)
            self._task = None
        await self._write()

    def _note(self, told: Told) -> None:
        self._unwritten[told.campaign_id, told.source, told.days] = told
        while len(self._unwritten) > self._keep:
            self._unwritten.pop(next(iter(self._unwritten)))
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._write()

    async def _write(self) -> None:
        """All at once; what the database does not take is tried again with what is told next."""
        if not self._unwritten:
            return
        written = list(self._unwritten.values())
        try:
            await self._store.put(written)
        except StoreError as error:
            self._tell_away(error)
            return
        self._away = False
        for told in written:
            key = (told.campaign_id, told.source, told.days)
            if self._unwritten.get(key) is told:
                del self._unwritten[key]

    def _tell_away(self, error: StoreError) -> None:
        if not self._away:
            self._away = True
            _log.warning("source_figures_not_kept", reason=str(error), note="further failures are not told")
