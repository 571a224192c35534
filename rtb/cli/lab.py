"""``rtb lab``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import click

from rtb import config
from rtb.cli.lab_dsps import dsps
from rtb.cli.options import load, settings_options


@click.group()
def lab() -> None:
    """Campaigns and bidders for experiments."""


lab.add_command(dsps)


@lab.command()
@click.argument("count", type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="Of the campaigns.")
@settings_options
@click.pass_context
def fill(context: click.Context, count: int, seed: int, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Write COUNT generated campaigns into the store; no daemon may be running on it."""
    import uvloop

    from rtb import daemon, wiring
    from rtb.lab import catalogue

    settings = load(context, config_path, overrides)

    async def write() -> int:
        daemon.make_store_folder(settings)
        repository = wiring.build(settings, os.getpid()).outside.repository
        await repository.start()
        try:
            wanted = catalogue.campaigns(count, seed)
            written = 0
            while chunk := list(itertools.islice(wanted, 10_000)):
                written += await repository.put_campaigns(chunk)
            return written
        finally:
            await repository.close()

    click.echo(f"{uvloop.run(write()):,} campaigns written to {config.masked(settings.store.url)}")
