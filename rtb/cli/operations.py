"""What is done to what stands outside the daemon: the database's schema, the broker's topology, dead letters, audit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from rtb.cli.client import command
from rtb.cli.options import load, settings_options
from rtb.cli.output import print_json
from rtb.errors import StoreError


@click.command()
@click.option("--check", is_flag=True, help="Only say what would be done; exit code 1 when something would.")
@click.option("--sql", is_flag=True, help="Print the statements instead of running them.")
@settings_options
@click.pass_context
def migrate(context: click.Context, check: bool, sql: bool, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Bring the database to the schema of this version."""
    from rtb.adapters import sql_schema

    url = load(context, config_path, overrides).store.url
    if sql:
        click.echo(asyncio.run(sql_schema.script(url)))
    elif check:
        missing = asyncio.run(sql_schema.pending(url))
        if missing:
            raise StoreError(f"the schema lacks {', '.join(missing)}; run `rtb migrate`")
        click.echo("the schema is the newest")
    else:
        done = asyncio.run(sql_schema.migrate(url))
        click.echo(f"migrated: {', '.join(done)}" if done else "the schema was the newest already")


@click.command()
@click.argument("campaign_ids", nargs=-1, metavar="[CAMPAIGN]...")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")
@click.pass_context
def audit(context: click.Context, campaign_ids: Sequence[str], as_json: bool) -> None:
    """Check that every budget account adds up and agrees with the ledger; exit code 1 when one does not.

    For each account: limit = available + leased + spent, and what was spent stands in the ledger, key by key. Events in
    time that were not charged in full are listed with their reason.
    """
    report = command(context, "audit", ids=[*campaign_ids] or None)
    if as_json:
        print_json(report)
    else:
        for finding in report["findings"]:
            click.echo(f"{finding['campaign_id']} {finding['day']}: {finding['what']}")
        for row in report["uncovered"]:
            lacks = row["price_nanos"] - row["charged_nanos"]
            click.echo(f"uncovered {row['key']} {row['campaign_id']} {row['day']}: {lacks} nanos, {row['reason']}")
        click.echo(
            f"{report['books']} campaigns, {report['accounts']} accounts, {report['keys']} bill keys, "
            f"{report['rows']} ledger rows: " + ("balanced" if report["balanced"] else "NOT BALANCED")
        )
    if not report["balanced"]:
        raise SystemExit(1)
