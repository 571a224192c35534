"""The ``rtb`` command.

A command imports what it runs when it runs: a client of the daemon starts in a fifth of a second, and would take over a
second with the daemon's own libraries.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from rtb import config
from rtb.config import Settings
from rtb.errors import AdminError, RtbError

if TYPE_CHECKING:
    from rtb.daemon import Ready
    from rtb.wiring import System

ANSWER_LIMIT_S = 300.0
"""How long a command waits for the daemon, which may be writing a million campaigns."""

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


class _Group(click.Group):
    """The commands of this file, and ``load``, which is imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, for help."""
        return sorted([*super().list_commands(ctx), "load"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None when there is none."""
        if cmd_name == "load":
            from rtb.lab.load.command import load

            return load
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=200.0,
    show_default=True,
    help="Requests a second of demo traffic; 0 for none.",
)
@click.option("--seed", default=1, show_default=True, help="Of the traffic.")
@_settings_options
@click.pass_context
def demo(context: click.Context, rate: float, seed: int, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Run the daemon with demo campaigns, demo traffic and a store of its own that is thrown away."""
    from rtb import wiring
    from rtb.lab.demonstration import Demonstration

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
    import uvloop

    from rtb import daemon, wiring
    from rtb.lab import catalogue

    settings = _load(context, config_path, overrides)

    async def write() -> int:
        daemon.make_store_folder(settings)
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


def _run_daemon(settings: Settings, on_ready: Ready | None) -> None:
    import uvloop

    from rtb import daemon

    uvloop.run(daemon.serve(settings, on_ready=on_ready))


def _command(context: click.Context, name: str, **arguments: Any) -> Any:
    """Run an admin command on the running daemon, or on the store when none runs.

    Only a socket that nobody listens on means that none runs: a daemon that cannot be reached would not see the change.
    """
    settings = _load(context, None, ())
    given = {key: value for key, value in arguments.items() if value is not None}
    path = Path(settings.admin.socket)
    with socket.socket(socket.AF_UNIX) as connected:
        try:
            connected.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # not running, or killed and its socket left behind
        except OSError as error:
            raise AdminError(f"admin.socket {path}: cannot be reached: {error.strerror or error}") from None
        else:
            return _ask(connected, path, name, given)
    import uvloop

    return uvloop.run(_offline(settings, name, given))


def _ask(connected: socket.socket, path: Path, name: str, arguments: dict[str, Any]) -> Any:
    """The same command on the running daemon, which alone may change what it serves."""
    connected.settimeout(ANSWER_LIMIT_S)
    connection = http.client.HTTPConnection("rtb")
    connection.sock = connected
    try:
        connection.request("POST", f"/{name}", msgspec.json.encode(arguments))
        body = msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        raise AdminError(f"admin.socket {path}: the daemon did not answer: {error}") from None
    if "error" in body:
        raise AdminError(body["error"])
    return body["result"]


async def _offline(settings: Settings, name: str, arguments: dict[str, Any]) -> Any:
    """The same command on parts of our own, over the daemon's store."""
    from rtb import daemon, wiring

    daemon.make_store_folder(settings)
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
    import structlog

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
