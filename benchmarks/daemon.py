"""The daemon under load, over HTTP and its embedded queue: throughput, latency at half of it, overload at twice.

    python benchmarks/daemon.py [--campaigns 10000] [--seconds 8] [all|http|half|overload|queue] ...

The server is a real `rtb serve` on free ports with a store of its own. Every throughput is also given as a share of a
null server (the same HTTP edge, a constant answer) under the same plan in the same run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from rtb.lab.load import report
from rtb.lab.load.command import Bench, run_over_admin
from rtb.lab.load.plan import Plan, Result
from rtb.lab.load.run import bodies

RTB = [sys.executable, "-m", "rtb"]
SLOW = ("lab.bidder=true", "lab.bidder_ms=20", "lab.bidder_cpu_us=100")
CAP = "auction.max_in_flight=64"


@contextmanager
def daemon(folder: Path, *overrides: str) -> Iterator[tuple[str, int, Path]]:
    """A running `rtb serve` over the store in `folder`: auction URL, pid, admin socket."""
    socket = folder / "rtb.sock"
    settings = ["http.port=0", "dashboard.port=0", f"store.url=sqlite:///{folder}/rtb.db", f"admin.socket={socket}"]
    settings.append(f"broker.spool={folder}/spool")
    flags = [flag for setting in (*settings, *overrides) for flag in ("--set", setting)]
    process = subprocess.Popen([*RTB, "serve", *flags], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = re.search(r"http=(\S+).*pid=(\d+)", line)
        if ready is None:
            raise click.ClickException(f"the daemon did not start: {line}")
        yield f"{ready[1]}/openrtb2/auction", int(ready[2]), socket
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["all", "http", "half", "overload", "queue"]))
@click.option("--campaigns", default=10_000, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Measured seconds of each run.")
def main(parts: tuple[str, ...], campaigns: int, seconds: float) -> None:
    """Print the figures of benchmarks/README.md that need a daemon."""
    wanted = set(parts or ("all",))
    with TemporaryDirectory(prefix="rtb-bench-") as name:
        folder = Path(name)
        fill = [*RTB, "lab", "fill", str(campaigns), "--set", f"store.url=sqlite:///{folder}/rtb.db"]
        subprocess.run(fill, check=True, env={**os.environ})
        if wanted & {"all", "http", "half"}:
            for body in ("1k", "3.5k"):
                _throughput(folder, body, seconds, half=bool(wanted & {"all", "half"}))
        if wanted & {"all", "overload"}:
            _overload(folder, seconds)
        if wanted & {"all", "queue"}:
            _queue(folder, seconds)


def _throughput(folder: Path, body: str, seconds: float, *, half: bool) -> None:
    with daemon(folder) as (url, pid, _):
        plan = Plan(url=url, pid=pid, body=body, duration_s=seconds, warmup_s=8.0)
        bench = Bench(bodies(plan))
        before = bench.run_null(plan)
        full = bench.run(plan)
        _show(f"saturated, {body}", full, [before, bench.run_null(plan)])
        if half:
            rate = full.answers_per_s / 2
            _show(f"half of that, {body}", bench.run(msgspec.structs.replace(plan, rate=rate, warmup_s=2.0)))


def _overload(folder: Path, seconds: float) -> None:
    """The maximum is what a closed loop gets that never sheds; twice that then meets the daemon as it would be run."""
    for what, bidder, cap in (("a bidder of 20 ms and 100 us", SLOW, (CAP,)), ("in process alone", (), ())):
        with daemon(folder, *bidder, "http.shed_after_ms=0") as (url, pid, _):
            plan = Plan(url=url, pid=pid, duration_s=seconds, warmup_s=8.0, connections=128)
            bench = Bench(bodies(plan))
            full = bench.run(plan)
            _show(f"maximum, {what}", full)
        good = (full.won + full.no_bid) / seconds
        with daemon(folder, *bidder, *cap) as (url, pid, _):
            bench.run(msgspec.structs.replace(plan, url=url, pid=pid, warmup_s=6.0, connections=32, duration_s=1.0))
            twice = msgspec.structs.replace(plan, url=url, pid=pid, rate=2 * good, warmup_s=2.0, connections=256)
            over = bench.run(twice)
            _show(f"twice that, {what}", over)
        click.echo(f"  goodput {(over.won + over.no_bid) / seconds / good:.0%} of the maximum")


def _queue(folder: Path, seconds: float) -> None:
    with daemon(folder) as (_, pid, socket):
        plan = Plan(target="queue", pid=pid, rate=2000.0, duration_s=seconds, warmup_s=4.0, connections=256)
        _show("embedded queue, 2,000/s", run_over_admin(socket, plan))


def _show(title: str, result: Result, nulls: Sequence[Result] = ()) -> None:
    click.echo(f"\n{title}")
    click.echo(report.text(result))
    if nulls:
        click.echo(report.share(result, nulls))


if __name__ == "__main__":
    main()
