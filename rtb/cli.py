"""The ``rtb`` command."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
import structlog
import uvloop

from rtb import config, daemon, wiring
from rtb.config import Settings
from rtb.errors import AdminError, RtbError
from rtb.lab import catalogue
from rtb.lab.demonstration import Demonstration
from rtb.lab.load.command import load
from rtb.wiring import System

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def main() -> None:
    """Run the command line; an error is one line on stderr and exit code 1."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except RtbError as error:
        click.echo(f"rtb: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rtb")
@click.option("--config", "config_path", type=click.Path(path_type=Path), envvar="RTB_CONFIG", help="A TOML file.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting.")
@click.pass_context
def cli(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> None:
    """A real-time bidding exchange and bidder. Settings: TOML file, then RTB_SECTION__KEY, then --set."""
    context.obj = (config_path, tuple(overrides))


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--config and --set after the command as well."""
    option = click.option("--config", "config_path", type=click.Path(path_type=Path), help="A TOML file.")
    override = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting.")
    return option(override(command))


def _load(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> Settings:
    path, before = context.obj
    return config.load(config_path or path, os.environ, (*before, *overrides))


@cli.command()
@_settings_options
@click.pass_context
def serve(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon: exchange, bidder, queue consumer and dashboard."""
    settings = _load(context, config_path, overrides)
    _log_to_stderr(settings)
    _run_daemon(settings, None)


@cli.command()
@click.option("--rate", default=200.0, show_default=True, help="Requests a second of demo traffic; 0 for none.")
@click.option("--seed", default=1, show_default=True, help="Of the traffic.")
@_settings_options
@click.pass_context
def demo(context: click.Context, rate: float, seed: int, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon with demo campaigns, demo traffic and a store of its own that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="rtb-demo-") as folder:
        own = (f"store.url=sqlite:///{folder}/rtb.db", f"admin.socket={folder}/rtb.sock")
        settings = _load(context, config_path, (*own, *overrides))
        _log_to_stderr(settings)
        show = Demonstration(wiring.resource("campaigns.json"), rate=rate, seed=seed)

        async def begin(system: System, url: str) -> Callable[[], Awaitable[None]]:
            await show.begin(url, system.catalogue.put, system.repository.put_profiles)
            return show.end

        _run_daemon(settings, begin)


@cli.command("check-config")
@_settings_options
@click.pass_context
def check_config(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Check the settings and print every one of them, secrets masked."""
    for key, value in config.flatten(_load(context, config_path, overrides)).items():
        click.echo(f"{key} = {json.dumps(value)}")


@cli.group()
@click.pass_context
def campaigns(context: click.Context) -> None:
    """House campaigns, of the running daemon or, when none runs, of its store."""


@campaigns.command("import")
@click.argument("file", type=click.File("rb"))
@click.pass_context
def import_(context: click.Context, file: Any) -> None:
    """Insert or replace the campaigns of a JSON FILE: an array, or an object with "campaigns"."""
    try:
        wanted = msgspec.json.decode(file.read())
    except msgspec.DecodeError as error:
        raise AdminError(f"{file.name}: not JSON: {error}") from None
    wanted = wanted.get("campaigns") if isinstance(wanted, dict) else wanted
    if not isinstance(wanted, list):
        raise AdminError(f'{file.name}: must be an array of campaigns, or an object with "campaigns"')
    result = _command(context, "campaigns.import", campaigns=wanted)
    click.echo(f"{result['written']} campaigns written")


@campaigns.command("list")
@click.option("--status", type=click.Choice(["active", "paused", "ended"]))
@click.option("--limit", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def list_(context: click.Context, status: str | None, limit: int | None, as_json: bool) -> None:
    """List campaigns with their bid, budget and what was spent today."""
    rows = _command(context, "campaigns.list", status=status, limit=limit)
    if as_json:
        _print_json(rows)
        return
    columns = ("id", "advertiser", "status", "funded", "pricing", "bid", "ecpm", "daily_budget", "spent_today")
    _print_table(columns, rows)


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.pass_context
def show(context: click.Context, campaign_id: str) -> None:
    """Print one campaign with all its targeting and creatives."""
    _print_json(_command(context, "campaigns.show", id=campaign_id))


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.pass_context
def pause(context: click.Context, campaign_id: str) -> None:
    """Stop a campaign's bids from the next auction on."""
    _changed(_command(context, "campaigns.pause", id=campaign_id))


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.pass_context
def resume(context: click.Context, campaign_id: str) -> None:
    """Let a paused campaign bid again."""
    _changed(_command(context, "campaigns.resume", id=campaign_id))


@campaigns.command("set-bid")
@click.argument("campaign_id", metavar="ID")
@click.argument("bid", type=float)
@click.pass_context
def set_bid(context: click.Context, campaign_id: str, bid: float) -> None:
    """Give a campaign another BID: CPM, per click or per conversion as its pricing says."""
    _changed(_command(context, "campaigns.set-bid", id=campaign_id, bid=bid))


@cli.command()
@click.argument("file", type=click.File("rb"))
@click.pass_context
def auction(context: click.Context, file: Any) -> None:
    """Run one auction on the OpenRTB bid request in FILE (- for stdin) and print the response."""
    _print_json(_command(context, "auction", request=_text(file)))


@cli.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.option("--all", "every", is_flag=True, help="Every campaign, not the first 50.")
@click.pass_context
def explain(context: click.Context, file: Any, as_json: bool, every: bool) -> None:
    """Say for every campaign and bidder why it bid, did not bid or lost on the bid request in FILE (- for stdin)."""
    found = _command(context, "explain", request=_text(file))
    if as_json:
        _print_json(found)
        return
    reason = f" (nbr {found['nbr']}, {found['nbr_name']})" if found["nbr"] is not None else ""
    click.echo(f"request {found['request_id']}: {found['outcome']}{reason}")
    for impid, floor in found["floors"].items():
        sold = found["clearing"].get(impid)
        click.echo(f"imp {impid}: floor {floor:g} CPM, " + ("not sold" if sold is None else f"sold at {sold:g} CPM"))
    order = {"won": 0, "lost": 1, "failed": 2, "no-bid": 3}
    rows = sorted(found["verdicts"], key=lambda row: (row["impid"], order[row["verdict"]], -(row.get("price") or 0)))
    shown = rows if every else rows[:50]
    _print_table(("impid", "bidder", "campaign", "verdict", "why"), shown)
    if len(shown) < len(rows):
        click.echo(f"... and {len(rows) - len(shown)} more; --all shows them")


cli.add_command(load)


@cli.group()
def lab() -> None:
    """Campaigns for experiments."""


@lab.command()
@click.argument("count", type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="Of the campaigns.")
@_settings_options
@click.pass_context
def fill(context: click.Context, count: int, seed: int, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Write COUNT generated campaigns into the store; no daemon may be running on it."""
    settings = _load(context, config_path, overrides)

    async def write() -> int:
        repository = wiring.build(settings, os.getpid()).repository
        await repository.start()
        try:
            wanted = catalogue.campaigns(count, seed)
            written = 0
            while chunk := list(itertools.islice(wanted, 10_000)):
                written += await repository.put_campaigns(chunk)
            return written
        finally:
            await repository.close()

    click.echo(f"{uvloop.run(write()):,} campaigns written to {settings.store.url}")


def _run_daemon(settings: Settings, on_ready: daemon.Ready | None) -> None:
    uvloop.run(daemon.serve(settings, on_ready=on_ready))


def _command(context: click.Context, name: str, **arguments: Any) -> Any:
    """Run an admin command on the running daemon, or on the store when none runs."""
    settings = _load(context, None, ())
    given = {key: value for key, value in arguments.items() if value is not None}
    socket = Path(settings.admin.socket)
    if socket.exists():
        try:
            return asyncio.run(_ask(socket, name, given))
        except aiohttp.ClientConnectorError:
            pass  # left behind by a daemon that was killed
    return uvloop.run(_offline(settings, name, given))


async def _ask(socket: Path, name: str, arguments: dict[str, Any]) -> Any:
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            async with session.post(f"http://rtb/{name}", data=msgspec.json.encode(arguments)) as answer:
                body = await answer.json()
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, ValueError) as error:
            raise AdminError(f"admin.socket {socket}: the daemon did not answer: {error}") from None
    if "error" in body:
        raise AdminError(body["error"])
    return body["result"]


async def _offline(settings: Settings, name: str, arguments: dict[str, Any]) -> Any:
    """The same command on parts of our own, over the daemon's store."""
    system = wiring.build(settings, os.getpid())
    await system.repository.start()
    try:
        await system.catalogue.load()
        return await system.admin.run(name, arguments)
    finally:
        await system.profiles.close()
        await system.repository.close()


def _text(file: Any) -> str:
    try:
        return bytes(file.read()).decode()
    except UnicodeDecodeError as error:
        raise AdminError(f"{file.name}: not UTF-8: {error.reason}") from None


def _changed(row: dict[str, Any]) -> None:
    click.echo(f"{row['id']}: {row['status']}, bid {row['bid']:g} {row['pricing']}, version {row['version']}")


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _print_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max([len(column), *(len(row[i]) for row in cells)]) for i, column in enumerate(columns)]
    for line in ([column.upper() for column in columns], *cells):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "".join(c if c.isprintable() else "?" for c in str(value))


def _log_to_stderr(settings: Settings) -> None:
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.log.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
