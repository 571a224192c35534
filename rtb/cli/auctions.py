"""``rtb auction`` and ``rtb explain``."""

from __future__ import annotations

from typing import Any

import click

from rtb.cli.client import command
from rtb.cli.output import print_json, print_table
from rtb.errors import AdminError


@click.command()
@click.argument("file", type=click.File("rb"))
@click.pass_context
def auction(context: click.Context, file: Any) -> None:
    """Run one auction on the OpenRTB bid request in FILE (- for stdin) and print the response."""
    print_json(command(context, "auction", request=_text(file)))


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.option("--all", "every", is_flag=True, help="Every campaign, not the first 50.")
@click.pass_context
def explain(context: click.Context, file: Any, as_json: bool, every: bool) -> None:
    """Say for every campaign and bidder why it bid, did not bid or lost on the bid request in FILE (- for stdin)."""
    found = command(context, "explain", request=_text(file))
    if as_json:
        print_json(found)
        return
    reason = ""
    if found["nbr"] is not None:
        reason = f" (nbr {found['nbr']}, {found['nbr_name']})" + (f": {found['why']}" if found["why"] else "")
    click.echo(f"request {found['request_id']}: {found['outcome']}{reason}")
    for impid, floor in found["floors"].items():
        sold = found["clearing"].get(impid)
        click.echo(f"imp {impid}: floor {floor:g} CPM, " + ("not sold" if sold is None else f"sold at {sold:g} CPM"))
    told_less: dict[str, str] = found["told_less"]
    for why in dict.fromkeys(told_less.values()):
        click.echo(f"told less of the user ({why}): {', '.join(name for name in told_less if told_less[name] == why)}")
    order = {"won": 0, "lost": 1, "failed": 2, "skipped": 3, "no-bid": 4}
    rows = sorted(found["verdicts"], key=lambda row: (row["impid"], order[row["verdict"]], -(row.get("price") or 0)))
    shown = rows if every else rows[:50]
    print_table(("impid", "bidder", "campaign", "verdict", "why"), shown)
    if len(shown) < len(rows):
        click.echo(f"... and {len(rows) - len(shown)} more; --all shows them")


def _text(file: Any) -> str:
    try:
        return bytes(file.read()).decode()
    except UnicodeDecodeError as error:
        raise AdminError(f"{file.name}: not UTF-8: {error.reason}") from None
