"""``rtb campaigns``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    for i, item in enumerate(wanted):
        if not isinstance(item, dict) or "id" not in item:
            raise AdminError(
                f"{file.name}: campaigns[{i}].id: required; each campaign is an object with an id of its own"
            )
    result = command(context, "campaigns.import", campaigns=wanted)
    click.echo(f"{result['written']} campaigns written")


@campaigns.command("list")
@click.option("--status", type=click.Choice(["active", "paused", "ended"]))
@click.option("--limit", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def list_(context: click.Context, status: str | None, limit: int | None, as_json: bool) -> None:
    """List campaigns with their bid, budget, what was spent today, and what is held for wins not billed yet."""
    rows = command(context, "campaigns.list", status=status, limit=limit)
    if as_json:
        print_json(rows)
        return
    columns = ("id", "advertiser", "status", "funded", "pricing", "bid", "ecpm", "daily_budget", "spent_today", "held")
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


@campaigns.command("set-bid", context_settings={"ignore_unknown_options": True})  # -5 is a wrong bid, not an option
@click.argument("campaign_id", metavar="ID")
@click.argument("bid", type=float)
@click.pass_context
def set_bid(context: click.Context, campaign_id: str, bid: float) -> None:
    """Give a campaign another BID: CPM, per click or per conversion as its pricing says."""
    _changed(command(context, "campaigns.set-bid", id=campaign_id, bid=bid))


@campaigns.command()
@click.argument("campaign_ids", nargs=-1, metavar="[ID]...")
@click.option("--since", metavar="DATE", help="First date, as in 2026-11-22, in the campaign's time zone.  [today]")
@click.option("--until", metavar="DATE", help="Last date.")
@click.option("--by", type=click.Choice(["campaign", "date", "instance"]), default="campaign", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def stats(
    context: click.Context, campaign_ids: Sequence[str], since: str | None, until: str | None, by: str, as_json: bool
) -> None:
    """Wins, impressions, clicks, conversions and money of campaigns, by the ledger; of those that cost most today when
    none is named.

    TARGET is what pacing wants to be spent by now, PACE what was spent as a part of it. WIN_RATE is wins a bid, both
    counted in one auction in sixteen since the daemons started; SAMPLED_BIDS (with --json) says of how many.
    """
    found = command(context, "campaigns.stats", ids=[*campaign_ids] or None, since=since, until=until, by=by)
    if as_json:
        print_json(found)
        return
    rows = found["rows"]
    shown = [] if by == "campaign" else [by]
    paced = ["target", "pace"] if any(row.get("target") is not None for row in rows) else []
    counts = ["wins", "impressions", "clicks", "conversions"]
    print_table(
        ["id", *shown, "win_rate", *counts, "cost", *paced, "ctr", "cvr", "cpm", "cpc", "revenue", "roas"],
        [{**row, **{name: _rounded(row.get(name)) for name in row}} for row in rows],
    )
    if not rows:
        click.echo("no campaign won or spent anything today; name one to see it, with --since DATE its past", err=True)


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--limit", type=click.IntRange(min=1, max=10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table, with what changed.")
@click.pass_context
def history(context: click.Context, campaign_id: str, limit: int, as_json: bool) -> None:
    """What was done to a campaign, by whom and why: changes, alerts, pauses and resumptions; the newest first."""
    rows = command(context, "campaigns.history", id=campaign_id, limit=limit)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            row["what"] = ", ".join(_differences(row["details"]))
        print_table(("at", "actor", "action", "what", "cause"), rows)


@campaigns.command()
@click.argument("campaign_id", metavar="ID")
@click.option("--since", metavar="DATE", help="First date, as in 2026-11-22.  [today]")
@click.option("--until", metavar="DATE", help="Last date.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def metrics(context: click.Context, campaign_id: str, since: str | None, until: str | None, as_json: bool) -> None:
    """A campaign's figures from every source (the ledger, Facebook, Google), and their sum.

    What a source could not tell is stale, with its age and the reason, or unknown; never zero.
    """
    found = command(context, "campaigns.metrics", id=campaign_id, since=since, until=until)
    if as_json:
        print_json(found)
        return
    total = {"source": "together", "standing": found["standing"], **(found["totals"] or {})}
    columns = ["source", "standing", "impressions", "clicks", "conversions", "spend", "revenue", "ctr", "cpc", "roas"]
    rows = [{name: _rounded(value) for name, value in row.items()} for row in (*found["sources"], total)]
    print_table(columns, rows)
    for row in found["sources"]:
        if row["reason"]:
            click.echo(f"{row['source']}: {row['reason']}")


def _differences(details: dict[str, Any]) -> Iterator[str]:
    """Each field that changed, with what it was and what it is."""
    for field, value in details.items():
        if isinstance(value, list) and len(value) == 2:
            before, after = (one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in value)
            yield field if before == after else f"{field} {before} -> {after}"  # what is long is not recorded


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _changed(row: dict[str, Any]) -> None:
    click.echo(f"{row['id']}: {row['status']}, bid {row['bid']:g} {row['pricing']}, version {row['version']}")
