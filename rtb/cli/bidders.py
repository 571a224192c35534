"""``rtb bidders``: the remote bidders of the running daemon."""

from __future__ import annotations

from typing import Any

import click

from rtb.cli.client import command
from rtb.cli.output import print_json, print_table
from rtb.errors import AdminError

_COLUMNS = (
    *("name", "state", "calls", "bids", "no_bids", "timeouts", "errors", "skipped", "privacy", "p50_ms", "p99_ms"),
    "url",
)


@click.group()
def bidders() -> None:
    """Remote bidders. Those of the file that bidders.file names are followed without a restart."""


@bidders.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List them with what they answered since they were configured, their breaker, and how often privacy had them told
    less or not asked."""
    _print(command(context, "bidders.list"), as_json)


@bidders.command()
@click.argument("name")
@click.argument("request", type=click.File("r"), metavar="REQUEST.json")
@click.pass_context
def test(context: click.Context, name: str, request: Any) -> None:
    """Ask one of them alone for an OpenRTB request; nothing is sold."""
    print_json(command(context, "bidders.test", bidder=name, request=request.read()))


@bidders.command()
@click.argument("name")
@click.pass_context
def enable(context: click.Context, name: str) -> None:
    """Switch one on again."""
    _print(command(context, "bidders.switch", bidder=name, enabled=True), as_json=False)


@bidders.command()
@click.argument("name")
@click.pass_context
def disable(context: click.Context, name: str) -> None:
    """Switch one off, in every daemon that reads the same file, until it is switched on again."""
    _print(command(context, "bidders.switch", bidder=name, enabled=False), as_json=False)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for row in found["bidders"]:
        row["state"] = row["state"] if row["enabled"] else "off"
        for key in ("errors", "skipped"):
            row[key] = sum((row.get(key) or {}).values())
        row["privacy"] = _less(row.get("privacy") or {})
    print_table(_COLUMNS, found["bidders"])
    if found["problem"]:
        raise AdminError(f"the file as it is now is not in use: {found['problem']}")


def _less(privacy: dict[str, Any]) -> str | None:
    """How often it was not told all; None when it always was."""
    counts = {name: sum(privacy.get(name, {}).values()) for name in ("coarse", "anonymous", "not_asked")}
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count) or None
