"""The ``rtb`` command: one file a family of commands.

A command imports what it runs when it runs: a client of the daemon starts in a fifth of a second, and would take over a
second with the daemon's own libraries.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from rtb.cli.auctions import auction, explain
from rtb.cli.bidders import bidders
from rtb.cli.broker import dead_letters, queues, topology
from rtb.cli.campaigns import campaigns
from rtb.cli.certify import certify
from rtb.cli.dashboard import dashboard
from rtb.cli.lab import lab
from rtb.cli.operations import audit, migrate
from rtb.cli.replay import replay
from rtb.cli.running import check_config, demo, serve
from rtb.errors import RtbError


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


for _command in (
    serve,
    demo,
    check_config,
    campaigns,
    bidders,
    dashboard,
    auction,
    explain,
    replay,
    certify,
    migrate,
    audit,
    dead_letters,
    topology,
    queues,
    lab,
):
    cli.add_command(_command)
