"""The background refresh: at once, then by the interval with jitter, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import date

import pytest

from rtb.adapters.clock import ManualClock
from rtb.domain.money import Rates
from rtb.domain.source_metrics import Days, Figures
from rtb.services.metric_refresh import MetricRefresh
from rtb.services.metric_sources import MetricSources
from rtb.services.own_figures import OwnFigures

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
TOMORROW = Days(date(2026, 1, 2), date(2026, 1, 2))


async def test_it_refreshes_what_is_watched_at_the_moment() -> None:
    """100 s with a jitter of a tenth are 90, 110 and 100 s by chance; campaigns and days are asked for each time, and a
    failure to tell them ends nothing."""
    asked: list[tuple[list[str], Days]] = []
    slept: list[float] = []
    turn = asyncio.Semaphore(0)
    done = asyncio.Semaphore(0)
    watched: list[tuple[Collection[str], Days] | None] = [(["a"], TODAY), None, (["a", "b"], TOMORROW), (["b"], TODAY)]
    chances = [0.0, 1.0, 0.5, 0.5]

    async def ledger(ids: Sequence[str], days: Days) -> Mapping[str, Figures]:
        asked.append((list(ids), days))
        return {}

    def watch() -> tuple[Collection[str], Days]:
        now = watched.pop(0)
        if now is None:
            raise LookupError("no catalogue")
        return now

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        done.release()
        await turn.acquire()

    sources = MetricSources([], lambda _: {}, Rates(), ManualClock(), house=OwnFigures(ledger, "USD"))
    refresh = MetricRefresh(sources, watch, interval_s=100, chance=lambda: chances.pop(0), sleep=sleep)
    await refresh.stop()  # before it began: nothing
    await refresh.start()
    for _ in range(3):
        await done.acquire()
        turn.release()
    await done.acquire()
    await refresh.stop()
    assert slept == pytest.approx([90.0, 110.0, 100.0, 100.0])
    assert asked == [(["a"], TODAY), (["a", "b"], TOMORROW), (["b"], TODAY)]
    await sources.close()
