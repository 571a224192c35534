"""``rtb replay``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtb.cli.output import print_json, print_table

if TYPE_CHECKING:
    from rtb.domain.replay_report import Comparison, Share

_SHOWN = 20


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change one thing; see above.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of tables.")
@click.option("--all", "every", is_flag=True, help=f"Every campaign, not the {_SHOWN} whose revenue changes most.")
def replay(log: Path, changes: Sequence[str], as_json: bool, every: bool) -> None:
    """Run the auctions recorded in LOG (a folder of a daemon's log.replay, or a file of it) again, and print how
    winners, prices and revenue differ. Nothing is sold.

    Without --set every outcome must be the recorded one, bit for bit; else the exit code is 1.

    \b
    --set floor=CPM                    every imp's floor; floor.times, floor.plus, floor.least
    --set auction.at=1|2               first or second price, whatever requests say
    --set auction.increment_cpm=CPM    the plus of second price plus
    --set auction.deals=priority|price
    --set auction.advertisers=N        house advertisers in an auction
    --set auction.deadline_ms=MS       later answers are late
    --set bidder.NAME.enabled=false    also .adjustment=FACTOR, .floor=CPM, .timeout_ms=MS
    --set campaign.ID.enabled=false    also .bid=AMOUNT
    """
    import asyncio

    from rtb.adapters.replay_file import lines
    from rtb.services import replay as engine

    found = asyncio.run(engine.replay(lines(log), changes))
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found, every=every)
    if not changes and found.exact < found.auctions:
        raise SystemExit(1)


def _print(found: Comparison, *, every: bool) -> None:
    import datetime

    first, last = (datetime.datetime.fromtimestamp(at, datetime.UTC) for at in (found.first_at, found.last_at))
    click.echo(
        f"{found.auctions:,} auctions of {found.imps:,} imps"
        + (f", {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC" if found.auctions else "")
    )
    if not found.changes:
        click.echo(f"{found.exact:,} of {found.auctions:,} outcomes are the recorded ones, bit for bit")
        if found.deviations:
            click.echo(f"others, for example: {', '.join(found.deviations)}")
        return
    click.echo(f"changed: {', '.join(found.changes)}")
    click.echo(
        f"imps: {found.same:,} as before, {found.rewon:,} won by another, {found.repriced:,} at another price, "
        f"{found.gained:,} newly sold, {found.lost:,} no longer sold"
    )
    before, after = found.before, found.after
    click.echo()
    print_table(
        ("total", "recorded", "replayed", "change"),
        [
            _row("auctions won", before.auctions_won, after.auctions_won, ",d"),
            _row("imps sold", before.total.wins, after.total.wins, ",d"),
            _row(f"revenue, {found.currency}", before.total.nanos / 1e9, after.total.nanos / 1e9, ",.6f"),
            _row("mean price, CPM", _mean(before.micros, before.total), _mean(after.micros, after.total), ".4f"),
        ],
    )
    for title, was, now in (
        ("bidder", before.bidders, after.bidders),
        ("campaign", before.campaigns, after.campaigns),
    ):
        _print_shares(title, was, now, every=every)
    if found.examples:
        click.echo()
        rows = [
            {
                "auction": example.auction_id,
                "imp": example.impid,
                "recorded": _sold(example.before, example.before_micros),
                "replayed": _sold(example.after, example.after_micros),
            }
            for example in found.examples[:5]
        ]
        print_table(("auction", "imp", "recorded", "replayed"), rows)


def _print_shares(title: str, before: dict[str, Share], after: dict[str, Share], *, every: bool) -> None:
    names = [*dict.fromkeys((*before, *after))]
    if not names:
        return
    names.sort(key=lambda name: (-abs(_nanos(after, name) - _nanos(before, name)), name))
    shown = names if every or title == "bidder" else names[:_SHOWN]
    click.echo()
    rows = [
        {
            title: name,
            "wins": _wins(before, name),
            "replayed": _wins(after, name),
            "revenue": f"{_nanos(before, name) / 1e9:,.6f}",
            "replayed ": f"{_nanos(after, name) / 1e9:,.6f}",
            "change": _percent(_nanos(before, name), _nanos(after, name)),
        }
        for name in shown
    ]
    print_table((title, "wins", "replayed", "revenue", "replayed ", "change"), rows)
    if len(shown) < len(names):
        click.echo(f"... and {len(names) - len(shown)} more; --all shows them")


def _row(name: str, before: float, after: float, shape: str) -> dict[str, Any]:
    return {
        "total": name,
        "recorded": format(before, shape),
        "replayed": format(after, shape),
        "change": _percent(before, after),
    }


def _percent(before: float, after: float) -> str:
    if before == after:
        return "-"
    return f"{100 * (after / before - 1):+.1f} %" if before else "new"


def _mean(micros: int, share: Share) -> float:
    return micros / share.wins / 1e6 if share.wins else 0.0


def _sold(buyer: str, micros: int) -> str:
    return f"{buyer} at {micros / 1e6:g}" if buyer else "unsold"


def _wins(side: dict[str, Share], name: str) -> int:
    return side[name].wins if name in side else 0


def _nanos(side: dict[str, Share], name: str) -> int:
    return side[name].nanos if name in side else 0


def _as_json(found: Comparison) -> Any:
    """Money in units of the currency, prices in CPM; nanos and micros are for us."""
    import msgspec

    value: dict[str, Any] = msgspec.to_builtins(found)
    value["differences"] = found.auctions - found.exact
    for side in ("before", "after"):
        of_side = value[side]
        total = found.before if side == "before" else found.after
        of_side["mean_price"] = _mean(total.micros, total.total)
        del of_side["micros"]
        for share in (of_side["total"], *of_side["bidders"].values(), *of_side["campaigns"].values()):
            share["revenue"] = share.pop("nanos") / 1e9
    for example in value["examples"]:
        example["before_price"] = example.pop("before_micros") / 1e6
        example["after_price"] = example.pop("after_micros") / 1e6
    return value
