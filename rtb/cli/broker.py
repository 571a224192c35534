"""``rtb dead-letters`` and ``rtb topology``: the broker of the running daemon, or the one that is configured."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from rtb.cli.client import command
from rtb.cli.output import print_json, print_table
from rtb.errors import BrokerError


@click.group("dead-letters")
def dead_letters() -> None:
    """Messages that were given up, oldest first."""


@dead_letters.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table.")
@click.pass_context
def list_(context: click.Context, limit: int, as_json: bool) -> None:
    """List them with the queue they died in and why."""
    rows = command(context, "dead-letters.list", limit=limit)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["reason"] = row["error"] or row["reason"]
        row["time"] = "-" if row["timestamp"] is None else datetime.fromtimestamp(row["timestamp"], UTC).isoformat()
    print_table(("message_id", "queue", "time", "deaths", "reason"), rows)


@dead_letters.command()
@click.argument("message_id")
@click.pass_context
def show(context: click.Context, message_id: str) -> None:
    """Print one with its body."""
    print_json(command(context, "dead-letters.show", id=message_id))


@dead_letters.command()
@click.argument("message_ids", nargs=-1, metavar="[MESSAGE_ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.pass_context
def requeue(context: click.Context, message_ids: Sequence[str], every: bool) -> None:
    """Send them back to the queues they died in."""
    done = command(context, "dead-letters.requeue", ids=_chosen(message_ids, every))
    click.echo(f"{done['count']} sent back")
    for line in done["kept"]:
        click.echo(f"kept {line}")


@dead_letters.command()
@click.argument("message_ids", nargs=-1, metavar="[MESSAGE_ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.pass_context
def purge(context: click.Context, message_ids: Sequence[str], every: bool) -> None:
    """Drop them for good."""
    click.echo(f"{command(context, 'dead-letters.purge', ids=_chosen(message_ids, every))} dropped")


def _chosen(message_ids: Sequence[str], every: bool) -> list[str] | None:
    """None for all, as the admin command has it."""
    if every == bool(message_ids):
        raise click.UsageError("name the messages, or give --all")
    return None if every else [*message_ids]


@click.group()
def topology() -> None:
    """Exchanges, queues and bindings."""


@topology.command("print")
def print_() -> None:
    """Print what a daemon declares."""
    from rtb.services import topology as wanted

    click.echo(wanted.describe(wanted.topology()))


@topology.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Compare the broker with it; exit code 1 when they differ."""
    _report(command(context, "topology.check"))


@topology.command()
@click.pass_context
def apply(context: click.Context) -> None:
    """Declare what the broker does not have."""
    _report(command(context, "topology.apply"))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON in place of a table, with this daemon's last minutes.")
@click.pass_context
def queues(context: click.Context, as_json: bool) -> None:
    """Show the queues: waiting and unacknowledged messages, consumers, rates a second, warnings."""
    report = command(context, "queues")
    if as_json:
        print_json(report)
        return
    if report["problem"]:
        if not report["queues"]:
            raise BrokerError(report["problem"])
        click.echo(f"rtb: {report['problem']}", err=True)
    for row in report["queues"]:
        row["warnings"] = " ".join(row["warnings"])
    columns = ("name", "ready", "unacked", "consumers", "publish_per_s", "deliver_per_s", "warnings")
    print_table(columns, report["queues"])
    if report["outbox"]:
        click.echo(f"{report['outbox']} messages of this daemon wait for the broker")


def _report(differences: Sequence[str]) -> None:
    for line in differences:
        click.echo(line)
    if differences:
        count = len(differences)
        raise BrokerError(f"{count} of the topology missing or different; `rtb topology apply` adds what is missing")
    click.echo("the broker has the topology")
