"""Run a daemon: ``rtb serve``, ``rtb demo``, ``rtb check-config``."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rtb import config
from rtb.cli.options import given, load, settings_options
from rtb.cli.output import log_to_stderr
from rtb.config import Settings
from rtb.config.reading import PREFIX
from rtb.lab.quantity import Quantity

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
    type=Quantity(min=0),
    default=200.0,
    show_default=True,
    help="Requests a second of demo traffic; 0 for none.",
)
@click.option("--seed", default=1, show_default=True, help="Of the traffic.")
@settings_options
@click.pass_context
def demo(context: click.Context, rate: float, seed: int, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon with demo campaigns, demo traffic and a store of its own that is thrown away.

    Store, broker and state of the environment and of a file do not count here: real daemons must not hear of these
    campaigns. --set does.
    """
    from rtb import wiring
    from rtb.lab.demonstration import Demonstration

    with tempfile.TemporaryDirectory(prefix="rtb-demo-") as folder:
        settings = load(context, config_path, (*demo_settings(folder, os.environ), *overrides))
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


def demo_settings(folder: str, environ: Mapping[str, str]) -> list[str]:
    """What the demo sets, as ``section.key=value``: what it shares with nobody, and, unless the environment says
    otherwise, what makes it easy to look at."""
    kept = {
        "broker.url": config.MEMORY,
        "state.url": config.MEMORY,
        "store.url": f"sqlite:///{folder}/rtb.db",
        "broker.spool": f"{folder}/spool",
        "broker.journal": f"{folder}/journal",
    }
    suggested = {
        "admin.socket": f"{folder}/rtb.sock",
        "tracking.key_file": f"{folder}/tracking.keys",
        "dashboard.token_file": f"{folder}/dashboard.tokens",
        "dashboard.open_on_loopback": "true",
    }
    chosen = kept | {key: value for key, value in suggested.items() if _variable(key) not in environ}
    return [f"{key}={value}" for key, value in chosen.items()]


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def _run_daemon(settings: Settings, on_ready: Ready | None) -> None:
    import uvloop

    from rtb import daemon

    uvloop.run(daemon.serve(settings, on_ready=on_ready))
