"""Auctions among five bidders: by the CPU-second, by the further bidder, and how long they take under load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from benchmarks.fanout.client import bare_alone
from benchmarks.fanout.figures import TURNS, Figures, show, show_load
from benchmarks.fanout.loops import open_loop
from benchmarks.fanout.world import NEVER_OPEN, World, prepared_dsps
from rtb.domain.histogram import Histogram
from rtb.lab import null_server
from rtb.ports import Bidder

AUCTIONS = 48
"""As many as aiohttp's client has a chance to end in time, with bidders that take 5 to 40 ms."""
MANY_AUCTIONS = (384, 320, 256, 192, 128, 96, 64)
"""The most of these with which the bidders answer in time: among fewer this process waits for most of the time, and is
woken for each answer with the caches full of somebody else's. A machine that others use, too, manages fewer."""
RECOVERY_S = 3.0
"""Until the connections are there again that late bidders have cost."""
FEW_LATE = 0.02
"""The share of bidders that may be late all the same; an auction costs less the fewer of them answer."""
LOADED = 0.7
"""Of the most auctions a second, when it is asked how long they take."""


async def measure_auctions(world: World, seconds: float) -> None:
    """Five bidders that answer in 5 to 40 ms, over our client and over aiohttp's; what each further bidder costs."""
    with prepared_dsps(5) as urls:
        totals = {"ours": Figures(), "aiohttp": Figures()}
        async with world.ours(urls, NEVER_OPEN) as ours, world.theirs(urls) as theirs:
            await world.load(ours, AUCTIONS, 2.0)
            for _ in range(TURNS):
                totals["ours"].add(await world.load(ours, AUCTIONS, seconds))
                totals["aiohttp"].add(await world.load(theirs, AUCTIONS, seconds))
            click.echo(f"five bidders in 5-40 ms, {AUCTIONS} auctions under way")
            for name, figures in totals.items():
                show_load(name, figures)
            for under_way in MANY_AUCTIONS:
                await world.load(ours, under_way, 1.0)
                many = await world.load(ours, under_way, TURNS * seconds)
                click.echo(f"five bidders in 5-40 ms, {under_way} auctions under way")
                show_load("ours", many)
                if many.late <= FEW_LATE * 5 * many.count:
                    break
                await asyncio.sleep(RECOVERY_S)
            await measure_bidders(world, ours, under_way, seconds)
            await measure_loaded(world, ours, under_way, seconds)


async def measure_bidders(world: World, bidders: Sequence[Bidder], under_way: int, seconds: float) -> None:
    """What an auction of so many costs among no, one, three and five bidders, and what of that is the loop's and the
    kernel's."""
    totals = {count: Figures() for count in (0, 1, 3, 5)}
    bare = Figures()
    async with null_server.running() as (port, _):
        for _ in range(TURNS):
            for count, total in totals.items():
                total.add(await world.load(bidders[:count], under_way, seconds / TURNS))
            bare.add(await bare_alone(port, world.bodies[0], seconds / TURNS))
    costs = [1e6 / figures.per_cpu_second for figures in totals.values()]
    click.echo(
        f"  no, one, three, five bidders: {', '.join(f'{cost:.0f}' for cost in costs)} us an auction, "
        f"{(costs[3] - costs[1]) / 4:.1f} us a further bidder, of which a call costs the loop and the kernel "
        f"{1e6 / bare.per_cpu_second:.1f} us"
    )


async def measure_loaded(world: World, bidders: Sequence[Bidder], under_way: int, seconds: float) -> None:
    """How long auctions take at a share of the most that this process manages, which is measured anew before each turn:
    a shared machine is not as fast now as it was a minute ago."""
    loaded = Figures(latency=Histogram())
    p99_ms = []
    for _ in range(2 * TURNS):
        most = await world.load(bidders, under_way, seconds / 2)
        turn = await open_loop(world.auctions(bidders), LOADED * most.count / most.wall_s, seconds / 2)
        loaded.add(turn)
        if turn.latency is not None:
            p99_ms.append(turn.latency.percentile(99) / 1e6)
    show(f"at {100 * LOADED:.0f} % of the most, {loaded.count / loaded.wall_s:,.0f} a second", loaded)
    click.echo(f"  the p99 of each turn: {', '.join(f'{ms:.1f}' for ms in p99_ms)} ms")
