"""``rtb campaigns``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from rtb.cli.client import command
from rtb.cli.output import print_json, print_table
from rtb.errors import AdminError


@click.group()
def campaigns() -> None:
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
    result = command(context, "campaigns.import", campaigns=wanted)
    click.echo(f"{result['written']} campaigns written")


@campaigns.command("list")
@click.option("--status", type=click.Choice(["active", "paused", "ended"]))
@click.option("--limit", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def list_(context: click.Context, status: str | None, limit: int | None, as_json: bool) -> None:
    """List campaigns with their bid, budget and what was spent today."""
    rows = command(context, "campaigns.list", status=status, limit=limit)
    if as_json:
        print_json(rows)
        return
    columns = ("id", "advertiser", "status", "funded", "pricing", "bid", "ecpm", "daily_budget", "spent_today")
    print_table(columns, rows)


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.pass_context
def show(context: click.Context, campaign_id: str) -> None:
    """Print one campaign with all its targeting and creatives."""
    print_json(command(context, "campaigns.show", id=campaign_id))


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.pass_context
def pause(context: click.Context, campaign_id: str) -> None:
    """Stop a campaign's bids from the next auction on."""
    _changed(command(context, "campaigns.pause", id=campaign_id))


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.pass_context
def resume(context: click.Context, campaign_id: str) -> None:
    """Let a paused campaign bid again."""
    _changed(command(context, "campaigns.resume", id=campaign_id))


@campaigns.command("set-bid")
@click.argument("campaign_id", metavar="ID")
@click.argument("bid", type=float)
@click.pass_context
def set_bid(context: click.Context, campaign_id: str, bid: float) -> None:
    """Give a campaign another BID: CPM, per click or per conversion as its pricing says."""
    _changed(command(context, "campaigns.set-bid", id=campaign_id, bid=bid))


def _changed(row: dict[str, Any]) -> None:
    click.echo(f"{row['id']}: {row['status']}, bid {row['bid']:g} {row['pricing']}, version {row['version']}")
