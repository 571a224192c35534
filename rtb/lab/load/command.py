"""``rtb load``: the command line of the load tool."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import click
import msgspec
import structlog
import uvloop

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.errors import AdminError, RtbError
from rtb.lab.load import report
from rtb.lab.load.payload import Payload
from rtb.lab.load.plan import Plan, Report, Result, Trial
from rtb.lab.load.queue_target import run_queue
from rtb.lab.load.run import bodies, run_http
from rtb.lab.load.search import find_max
from rtb.lab.load.usage import find_pid
from rtb.lab.null_server import running
from rtb.lab.quantity import Quantity

SEARCH_RATE = 1000.0
INVALID_TRIES = 2
"""Runs of one rate in a search before the tool's own lag counts against it."""

POSITIVE = Quantity(min=0, min_open=True)


def _amqp(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    if url is not None and (urlsplit(url).scheme not in ("amqp", "amqps") or not urlsplit(url).hostname):
        raise click.BadParameter(f"{url.rpartition('@')[2]!r}: write amqp://user:password@host/vhost")
    return url


def _alive(context: click.Context, parameter: click.Parameter, pid: int | None) -> int | None:
    if pid is not None and not Path(f"/proc/{pid}").exists():
        raise click.BadParameter(f"there is no process {pid}; leave it out, and it is found on this machine")
    return pid


def _writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Said before the run, which may take minutes."""
    if path is None:
        return None
    new = not path.exists()
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise click.BadParameter(f"{path}: cannot be written: {error.strerror}") from None
    return path


@click.group(invoke_without_command=True)
@click.option("--url", default=Plan().url, show_default=True, help="Auction endpoint.")
@click.option("--rate", type=POSITIVE, help="Requests a second.  [default: 1000]")
@click.option("--poisson", is_flag=True, help="Random arrivals instead of even ones.")
@click.option("--saturate", is_flag=True, help="Closed loop: every connection always busy; for throughput.")
@click.option("--find-max", "search", is_flag=True, help="Search the highest rate within --p99-ms, from --rate up.")
@click.option("--p99-ms", type=POSITIVE, default=50.0, show_default=True, help="Bound of --find-max.")
@click.option(
    "--duration", "duration_s", type=POSITIVE, default=10.0, show_default=True, help="Seconds measured (of each trial)."
)
@click.option(
    "--warmup", "warmup_s", type=Quantity(min=0), default=2.0, show_default=True, help="Seconds before, not measured."
)
@click.option("--connections", default=32, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--pipeline", default=1, show_default=True, type=click.IntRange(min=1), help="Requests under way on each."
)
@click.option("--body", default="1k", show_default=True, metavar="1k|3.5k|FILE", help="Generated, or one JSON request.")
@click.option("--unique", default=10_000, show_default=True, type=click.IntRange(min=1), help="Bodies prepared.")
@click.option("--users", default=100_000, show_default=True, type=click.IntRange(min=1), help="Users, Zipf 1.0.")
@click.option("--seed", default=1, show_default=True, help="Of bodies and arrivals.")
@click.option("--deadline-ms", type=POSITIVE, default=100.0, show_default=True, help="Later answers are misses.")
@click.option("--give-up-ms", type=POSITIVE, default=2000.0, show_default=True, help="No answer by then is lost.")
@click.option(
    "--max-lag-ms",
    type=Quantity(min=0),
    default=5.0,
    show_default=True,
    help="Own send lag p99 that makes a run invalid.",
)
@click.option(
    "--queue",
    "socket",
    type=click.Path(path_type=Path),
    metavar="SOCKET",
    help="Over the embedded queue of the daemon with this admin socket, inside its process, in place of HTTP.",
)
@click.option(
    "--broker", metavar="URL", callback=_amqp, help="Over the queue of RabbitMQ at this amqp:// URL, in place of HTTP."
)
@click.option(
    "--pid", type=click.IntRange(min=1), callback=_alive, help="The server's process; found by itself on this machine."
)
@click.option("--any-id", is_flag=True, help="Accept answers that carry another request's id.")
@click.option("--null", is_flag=True, help="Also against a server that does nothing, before and after.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), callback=_writable, help="Write the result there."
)
@click.pass_context
def load(ctx: click.Context, /, **options: Any) -> None:
    """Load an exchange with bid requests; latency counts from the intended send time.

    Exits with 1 when the run is invalid or its accounts do not balance.
    """
    if ctx.invoked_subcommand is not None:
        return
    url = options["url"]
    try:
        _main(options)
    except RtbError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{url}: {error}") from None


@load.command()
@click.argument("a", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(a: Path, b: Path) -> None:
    """Put two --json files side by side; * marks what got worse by more than 5 %."""
    click.echo(report.compare(read(a).result, read(b).result))


def read(path: Path) -> Report:
    """A report that ``--json`` wrote.

    Raises:
        click.ClickException: it is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"{path} is not a load report: {error}") from None


def _main(options: dict[str, Any]) -> None:
    search, p99_ms, saturate = options.pop("search"), options.pop("p99_ms"), options.pop("saturate")
    null, json_file, any_id = options.pop("null"), options.pop("json_file"), options.pop("any_id")
    if saturate and (search or options["rate"]):
        raise click.UsageError("--saturate has no rate and no --find-max")
    if not saturate:
        options["rate"] = options["rate"] or SEARCH_RATE
    socket: Path | None = options.pop("socket")
    broker: str | None = options.pop("broker")
    if socket is not None or broker is not None:
        if saturate or search or null or (socket and broker):
            raise click.UsageError("--queue or --broker goes with --rate, not with --saturate, --find-max or --null")
        where = f"the queue behind {socket}" if broker is None else "the queue of " + broker.rpartition("@")[2]
        plan = Plan(**{**options, "target": "queue", "url": where})
        result = run_over_admin(socket, plan) if socket is not None else run_over_rabbitmq(broker or "", plan)
        _finish(result, [], [], json_file)
        return
    plan = Plan(**{**options, "check_ids": not any_id, "pid": options["pid"] or find_pid(options["url"])})
    bench = Bench(bodies(plan))
    gc.collect()
    gc.freeze()
    gc.disable()  # the loops make no cycles, and walking the prepared bodies would be a lag of our own
    trials: list[Trial] = []
    nulls = [bench.run_null(plan)] if null and not search else []
    if search:
        best, result = bench.search(plan, p99_ms, trials)
        click.echo(report.search(trials, best, p99_ms))
        plan = result.plan
    else:
        result = bench.run(plan)
    if null:
        nulls.append(bench.run_null(plan))
    _finish(result, nulls, trials, json_file)


def _finish(result: Result, nulls: list[Result], trials: list[Trial], json_file: Path | None) -> None:
    """Print and keep what came out; an invalid run ends with 1."""
    click.echo(report.text(result))
    if nulls:
        click.echo(report.share(result, nulls))
    if json_file is not None:
        json_file.write_bytes(
            msgspec.json.format(msgspec.json.encode(Report(result=result, null=nulls, trials=trials)))
        )
    if result.invalid:
        raise SystemExit(1)


def run_over_admin(socket: Path, plan: Plan) -> Result:
    """Have the daemon behind an admin socket run the plan over its own broker.

    Raises:
        AdminError: nobody answers there, or the daemon refuses; one line.
    """

    async def ask() -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=plan.warmup_s + plan.duration_s + 60)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as session:
            body = msgspec.json.encode({"plan": plan})
            async with session.post("http://rtb/load.queue", data=body) as response:
                return msgspec.json.decode(await response.read(), type=dict[str, Any])

    try:
        answer = asyncio.run(ask())
    except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
        raise AdminError(f"{socket}: no daemon answers on this admin socket: {error}") from None
    if "error" in answer:
        raise AdminError(answer["error"])
    return msgspec.convert(answer["result"], Result)


def run_over_rabbitmq(url: str, plan: Plan) -> Result:
    """Run the plan over a RabbitMQ from this process, against whatever daemons consume there.

    Raises:
        BrokerError: it cannot be reached, or no daemon ever declared the topology there.
    """

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def run() -> Result:
        broker = RabbitBroker(url, SystemClock(), name="rtb load")
        await broker.start()
        try:
            return await run_queue(broker, plan, _progress)
        finally:
            _progress("")
            await broker.close()

    return uvloop.run(run())


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs plans that share their bodies."""

    bodies: list[Payload]

    def run(self, plan: Plan) -> Result:
        """One measurement, its progress on stderr."""
        try:
            return uvloop.run(run_http(plan, self.bodies, _progress))
        finally:
            _progress("")

    def run_null(self, plan: Plan) -> Result:
        """The same plan against a null server started for it."""

        async def main() -> Result:
            async with running() as (port, pid):
                url = f"http://127.0.0.1:{port}/openrtb2/auction"
                there = msgspec.structs.replace(plan, url=url, pid=pid, check_ids=False)
                return await run_http(there, self.bodies, _progress)

        try:
            return uvloop.run(main())
        finally:
            _progress("")

    def search(self, plan: Plan, p99_ms: float, trials: list[Trial]) -> tuple[float, Result]:
        """The highest rate that passes, 0.0 when none does, and its run (the last one when none passes)."""
        passed: dict[float, Result] = {}
        last: list[Result] = []

        def passes(rate: float) -> bool:
            for _ in range(INVALID_TRIES):
                result = self.run(msgspec.structs.replace(plan, rate=rate))
                why = verdict(result, p99_ms)
                trials.append(Trial(rate=rate, p99_ms=result.latency.p99_ms, why=why))
                last[:] = [result]
                if not result.invalid:
                    break
            if not why:
                passed[rate] = result
            return not why

        best = find_max(passes, plan.rate or SEARCH_RATE)
        return best, passed.get(best) or last[0]


def verdict(result: Result, p99_ms: float) -> str:
    """Why a run does not pass: invalid, something lost, in error or shed, or p99 over the bound; empty when it does."""
    if result.invalid:
        return result.invalid
    for name, count in (("lost", result.lost), ("errors", result.error), ("shed", result.shed)):
        if count:
            return f"{count:,} {name}"
    if result.latency.p99_ms > p99_ms:
        return f"p99 above {p99_ms:g} ms"
    return ""


def _progress(line: str) -> None:
    """One line that is written over and over; cleared by an empty one."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
    elif line:
        sys.stderr.write(f"{line}\n")


def main() -> None:
    """The tool on its own."""
    load(prog_name="load")
