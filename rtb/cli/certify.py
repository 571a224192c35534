"""``rtb certify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rtb.cli.output import print_json, print_table
from rtb.lab.quantity import Quantity

if TYPE_CHECKING:
    from rtb.lab.certify_report import Report


def _header(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Name and value, as in authorization=Bearer x."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{value!r}: write NAME=VALUE, as in authorization='Bearer ...'")
        found[name.strip().lower()] = text.strip()
    return found


@click.command()
@click.argument("url")
@click.option("--exchange", is_flag=True, help="The URL is an OpenRTB exchange's.")
@click.option("--dsp", is_flag=True, help="The URL is a bidder's.")
@click.option("--rate", type=Quantity(0.1, 10_000), default=50.0, show_default=True, help="Requests a second.")
@click.option("--duration", type=Quantity(0.1, 3_600), default=10.0, show_default=True, help="Seconds.")
@click.option("--tmax", type=click.IntRange(1, 60_000), default=100, show_default=True, help="Milliseconds to answer.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the traffic; the same requests again.")
@click.option("--header", "headers", callback=_header, multiple=True, metavar="NAME=VALUE", help="Sent with each.")
@click.option("--live", is_flag=True, help="Do not mark requests as a test (test = 1): whoever wins may pay.")
@click.option("--strict", is_flag=True, help="What only qualifies counts for the exit code, too.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of tables.")
def certify(
    url: str,
    exchange: bool,
    dsp: bool,
    rate: float,
    duration: float,
    tmax: int,
    seed: int | None,
    headers: dict[str, str],
    live: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Send bid requests to the OpenRTB exchange or the bidder at URL, judge every answer, and hold all against the
    limits that large exchanges publish. The exit code is 0 when it passes, 1 when not.
    """
    if exchange == dsp:
        raise click.UsageError("say what is at the URL: --exchange or --dsp")
    import uvloop

    from rtb.lab.certify import Trial
    from rtb.lab.certify import certify as run

    trial = Trial(
        url=url,
        kind="exchange" if exchange else "dsp",
        rate=rate,
        seconds=duration,
        tmax_ms=tmax,
        seed=seed,
        test=not live,
        headers=headers,
    )
    found = uvloop.run(run(trial))
    passed = found.passed(strict=strict)
    if as_json:
        import msgspec

        print_json({"passed": passed, **msgspec.to_builtins(found)})
    else:
        _print(found, passed=passed)
    if not passed:
        raise SystemExit(1)


def _print(found: Report, *, passed: bool) -> None:
    click.echo(
        f"{found.sent:,} requests, {found.rate:g} a second: {found.bids:,} with bids, {found.no_bids:,} without, "
        f"{found.timeouts:,} timeouts, {found.errors:,} errors, {found.invalid:,} invalid"
    )
    click.echo(
        f"p50 {found.p50_ms:.1f} ms, p95 {found.p95_ms:.1f} ms, p99 {found.p99_ms:.1f} ms of tmax {found.tmax_ms}"
    )
    if found.note:
        click.echo(found.note)
    click.echo()
    rows = [
        {
            "": "pass" if line.passed else "FAIL" if line.required else "no",
            "what": line.name,
            "measured": line.measured,
            "limit": line.limit,
        }
        for line in found.lines
    ]
    print_table(("", "what", "measured", "limit"), rows)
    for title, counts in (("what went wrong", found.reasons), ("bids that would not be taken", found.refused)):
        if counts:
            click.echo(f"\n{title}:")
            for reason, count in list(counts.items())[:10]:
                click.echo(f"  {count:,} x {reason}")
    click.echo(f"\n{'passed' if passed else 'FAILED'}")
