"""Run a daemon: ``rtb serve``, ``rtb demo``, ``rtb check-config``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rtb import config
from rtb.cli.options import given, load, settings_options
from rtb.cli.output import log_to_stderr
from rtb.config import Settings

if TYPE_CHECKING:
    from rtb.daemon import Ready
    from rtb.wiring import System


@click.command()
@click.option("--workers", type=click.IntRange(min=1), help="Processes that share the port; one a processor core.")
@settings_options
@click.pass_context
def serve(context: click.Context, workers: int | None, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon: exchange, bidder, queue consumer and dashboard."""
    settings = load(context, config_path, overrides)
    log_to_stderr(settings)
    if workers is None:
        _run_daemon(settings, None)
        return
    import asyncio

    from rtb import supervisor

    asyncio.run(supervisor.supervise(settings, workers, given(context, config_path, overrides)))


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=200.0,
    show_default=True,
    help="Requests a second of demo traffic; 0 for none.",
)
@click.option("--seed", default=1, show_default=True, help="Of the traffic.")
@settings_options
@click.pass_context
def demo(context: click.Context, rate: float, seed: int, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon with demo campaigns, demo traffic and a store of its own that is thrown away."""
    from rtb import wiring
    from rtb.lab.demonstration import Demonstration

    with tempfile.TemporaryDirectory(prefix="rtb-demo-") as folder:
        own = (
            f"store.url=sqlite:///{folder}/rtb.db",
            f"admin.socket={folder}/rtb.sock",
            f"broker.spool={folder}/spool",
            f"broker.journal={folder}/journal",
            f"tracking.key_file={folder}/tracking.keys",
            f"dashboard.token_file={folder}/dashboard.tokens",
            "dashboard.open_on_loopback=true",
        )
        settings = load(context, config_path, (*own, *overrides))
        log_to_stderr(settings)
        show = Demonstration(wiring.resource("campaigns.json"), rate=rate, seed=seed)

        async def begin(system: System, url: str) -> Callable[[], Awaitable[None]]:
            await show.begin(url, system.catalogue.put, system.outside.repository.put_profiles)
            return show.end

        _run_daemon(settings, begin)


@click.command("check-config")
@settings_options
@click.pass_context
def check_config(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Check the settings and print every one of them, secrets masked."""
    for key, value in config.flatten(load(context, config_path, overrides)).items():
        click.echo(f"{key} = {json.dumps(value)}")


def _run_daemon(settings: Settings, on_ready: Ready | None) -> None:
    import uvloop

    from rtb import daemon

    uvloop.run(daemon.serve(settings, on_ready=on_ready))
