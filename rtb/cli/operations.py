"""What is done to what stands outside the daemon: the database's schema, the broker's topology, dead letters, audit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from rtb.cli.options import load, settings_options
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
