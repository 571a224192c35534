"""``rtb lab dsps``."""

from __future__ import annotations

import asyncio
import math
import signal

import click

from rtb.lab.quantity import Quantity


def _curve(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    """Quantiles, as in 5,8,40."""
    try:
        curve = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter("numbers with commas between them, as in 5,8,40") from None
    if not all(math.isfinite(at) and at >= 0 for at in curve) or list(curve) != sorted(curve):
        raise click.BadParameter("quantiles are finite, 0 or more, and ascend")
    return curve


def _misbehaving(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[int, str]:
    """Who misbehaves, and how."""
    from rtb.lab.dsp import Misbehaviour

    found = {}
    for value in values:
        number, _, kind = value.partition(":")
        if not number.isdigit() or kind not in set(Misbehaviour):
            raise click.BadParameter(f"write N:KIND, as in 2:hang; kinds are {', '.join(Misbehaviour)}")
        found[int(number)] = kind
    return found


@click.command()
@click.argument("count", type=click.IntRange(1, 100), default=5)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_000), default=9100, show_default=True, help="Of the first; 0: any.")
@click.option("--seed", default=1, show_default=True, help="Of what they do.")
@click.option("--latency-ms", callback=_curve, default="5,40", show_default=True, help="Quantiles of thinking time.")
@click.option("--cpm", callback=_curve, default="0.5,1,4", show_default=True, help="Quantiles of bids.")
@click.option("--no-bid", type=Quantity(0, 1), default=0.3, show_default=True, help="Share without a bid.")
@click.option("--errors", type=Quantity(0, 1), default=0.0, show_default=True, help="Share of HTTP 500.")
@click.option(
    "--misbehave", callback=_misbehaving, multiple=True, metavar="N:KIND", help="Bidder N (from 1) does KIND."
)
@click.option("--share", type=Quantity(0, 1), default=1.0, show_default=True, help="Of their requests.")
def dsps(
    count: int,
    host: str,
    port: int,
    seed: int,
    latency_ms: tuple[float, ...],
    cpm: tuple[float, ...],
    no_bid: float,
    errors: float,
    misbehave: dict[int, str],
    share: float,
) -> None:
    """Serve COUNT simulated bidders, each on a port of its own, until stopped; prints their URLs.

    What each does with a request depends on the seed and the request's id alone. Counters are at /stats of each.
    """
    if nobody := misbehave.keys() - range(1, count + 1):
        raise click.UsageError(f"--misbehave {min(nobody)}: bidders are 1 to {count}")
    import uvloop

    from rtb.lab.dsp import DspScript, Misbehaviour, serving

    scripts = [
        DspScript(
            name=f"dsp{n}",
            latency_ms=latency_ms,
            cpm=cpm,
            no_bid=no_bid,
            errors=errors,
            misbehaves=share if n in misbehave else 0.0,
            misbehaviour=Misbehaviour(misbehave.get(n, "none")),
        )
        for n in range(1, count + 1)
    ]

    async def serve() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with serving(scripts, seed=seed, host=host, port=port) as served:
            for dsp, url in served:
                click.echo(f"{dsp.script.name} {url}")
            click.echo("ready")
            await stopped.wait()

    uvloop.run(serve())


if __name__ == "__main__":
    dsps()
