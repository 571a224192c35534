"""``rtb dashboard``: who may log in."""

from __future__ import annotations

from pathlib import Path

import click

from rtb.cli.options import load


@click.group()
def dashboard() -> None:
    """Access to the dashboard."""


@dashboard.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator"]), default="viewer", show_default=True)
@click.pass_context
def token(context: click.Context, name: str, role: str) -> None:
    """Make a token for NAME and print it, once. Daemons know it within a second."""
    from dashboard.tokens import Role, add_token

    settings = load(context, None, ())
    click.echo(add_token(Path(settings.dashboard.token_file), Role(role), name))
