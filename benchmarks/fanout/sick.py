"""Auctions among bidders of which some are sick: they keep their deadline, and the healthy ones' time."""

from __future__ import annotations

import asyncio
import time

import click

from benchmarks.fanout.figures import DEADLINE_MS, TURNS, Figures, show
from benchmarks.fanout.loops import Done, open_loop
from benchmarks.fanout.world import MARGIN_MS, NEVER_OPEN, World, dsps
from rtb.domain.breaker import BreakerPolicy
from rtb.domain.histogram import Histogram

SICK = ("--misbehave", "9:hang", "--misbehave", "10:hang")
SICK_RATE = 100
SHIELDED = ("--misbehave", "6:hang", "--misbehave", "7:drip", "--misbehave", "8:flood")
SHIELD_RATE = 100


async def measure_sick(world: World, seconds: float) -> None:
    """Ten bidders of which two never answer: every auction takes its whole deadline, and not more.

    In turns with as many timers of the same length and nothing else: what they are late by, the machine is.
    """
    with dsps(10, *SICK) as urls:
        async with world.ours(urls, NEVER_OPEN) as bidders:
            works = {"ten bidders of which two hang": world.auctions(bidders), "timers alone": _timer}
            totals = {name: Figures(latency=Histogram()) for name in works}
            await open_loop(works["ten bidders of which two hang"], SICK_RATE, 2.0)
            for _ in range(TURNS):
                for name, work in works.items():
                    totals[name].add(await open_loop(work, SICK_RATE, seconds))
            for name, figures in totals.items():
                show(f"{name}, {SICK_RATE} a second", figures)


def _timer(number: int, done: Done) -> None:
    """Nothing but the wait for the deadline."""
    begun_ns = time.monotonic_ns()
    asyncio.get_running_loop().call_later(
        (DEADLINE_MS - MARGIN_MS) / 1e3, lambda: done(time.monotonic_ns() - begun_ns <= DEADLINE_MS * 1_000_000)
    )


async def measure_shield(world: World, seconds: float) -> None:
    """What a dead, a dripping and a flooding bidder add to the time of auctions among five others, in turns."""
    with dsps(8, *SHIELDED) as urls:
        async with world.ours(urls, BreakerPolicy()) as bidders:
            works = {"five healthy": world.auctions(bidders[:5]), "and three sick": world.auctions(bidders)}
            await open_loop(works["and three sick"], SHIELD_RATE, 3.0)  # until their breakers are open
            totals = {name: Figures(latency=Histogram()) for name in works}
            for _ in range(2 * TURNS):
                for name, work in works.items():
                    totals[name].add(await open_loop(work, SHIELD_RATE, seconds / 2))
            for name, figures in totals.items():
                show(f"{name}, {SHIELD_RATE} a second", figures)
            p99 = [figures.latency.percentile(99) / 1e6 for figures in totals.values() if figures.latency]
            click.echo(f"  the p99 rises by {p99[1] - p99[0]:.1f} ms")
