"""Measure what is asked for: see benchmarks/fanout/__init__.py."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import uvloop

from benchmarks.fanout.auctions import measure_auctions
from benchmarks.fanout.client import measure_client
from benchmarks.fanout.sick import measure_shield, measure_sick
from benchmarks.fanout.world import World
from rtb import wiring
from rtb.config import Settings, Store


async def measure(parts: set[str], seconds: float) -> None:
    """All that is wanted."""
    with TemporaryDirectory(prefix="rtb-bench-") as folder:
        database = Store(url=f"sqlite:///{Path(folder) / 'rtb.db'}")
        system = wiring.build(Settings(store=database), os.getpid())
        await system.outside.repository.start()
        world = World(system)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as the daemon has it
        if parts & {"all", "client"}:
            await measure_client(world.bodies, seconds)
        if parts & {"all", "auctions"}:
            await measure_auctions(world, seconds)
        if parts & {"all", "sick"}:
            await measure_sick(world, seconds)
        if parts & {"all", "shield"}:
            await measure_shield(world, seconds)
        await system.profiles.close()
        await system.outside.repository.close()


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["all", "client", "auctions", "sick", "shield"]))
@click.option("--seconds", default=4.0, show_default=True, help="Of each turn.")
def main(parts: tuple[str, ...], seconds: float) -> None:
    """Print the figures."""
    uvloop.run(measure(set(parts or ("all",)), seconds))


if __name__ == "__main__":
    main()
