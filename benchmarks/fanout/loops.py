"""Work in a closed or an open loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks.fanout.figures import Figures
from rtb.domain.histogram import Histogram

Done = Callable[[bool], None]
"""Told whether a piece of work went well."""
Work = Callable[[int, Done], None]
"""Begins a numbered piece of work."""


async def closed_loop(work: Work, in_flight: int, seconds: float) -> Figures:
    """Keep so many under way; one begins when one ends. What drives it costs little, for it is counted, too."""
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    over = asyncio.get_running_loop().create_future()
    under_way, begun = in_flight, in_flight - 1
    ended = good = 0

    def done(well: bool) -> None:
        nonlocal under_way, begun, ended, good
        ended += 1
        good += well
        if time.monotonic_ns() < until_ns:
            begun += 1
            work(begun, done)
            return
        under_way -= 1
        if not under_way:
            over.set_result(None)

    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(in_flight):
        work(number, done)
    await over
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return Figures(count=ended, good=good, cpu_s=cpu_s, wall_s=wall_s)


async def open_loop(work: Work, rate: float, seconds: float) -> Figures:
    """Begin so many a second, in bursts a millisecond apart, however the earlier ones fare."""
    figures = Figures(latency=Histogram())
    begun = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - wall) < seconds:
        while begun < rate * passed:
            work(begun, _timed(figures, lambda: None))
            begun += 1
        await asyncio.sleep(0.001)
    while figures.count < begun:  # noqa: ASYNC110 - a last look a turn costs nobody anything
        await asyncio.sleep(0.01)
    figures.cpu_s, figures.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return figures


def _timed(figures: Figures, then: Callable[[], None]) -> Done:
    """Counts a piece of work that begins now and ends when this is called."""
    begun_ns = time.monotonic_ns()

    def done(well: bool) -> None:
        assert figures.latency is not None
        figures.latency.record(time.monotonic_ns() - begun_ns)
        figures.good += well
        figures.count += 1
        then()

    return done
