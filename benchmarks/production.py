"""Daemons on RabbitMQ, Redis and PostgreSQL: the queue path, profiles in Redis, two daemons beside one.

    python -m benchmarks.production [--campaigns 10000] [--seconds 8] [queue|profiles|two] ...

The servers are private ones, on the same processors as the daemons: wall time says little, so throughput is per
CPU-second of the daemons.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import click
import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.daemon import RTB, daemon
from rtb.adapters.redis_state import RedisState
from rtb.adapters.sql_schema import migrate
from rtb.domain import profile
from rtb.domain.profile import Profile
from rtb.lab.load import report
from rtb.lab.load.command import Bench, run_over_rabbitmq
from rtb.lab.load.plan import Plan, Result
from rtb.lab.load.run import bodies
from rtb.lab.servers.postgres import PostgresServer
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.lab.servers.redis import RedisServer
from rtb.lab.traffic import Traffic

USERS = 100_000
ROUNDS = 5
WARM_UP_S = 20.0
PATIENT = ("http.shed_after_ms=0", "auction.deadline_ms=1000")
CONSUMED = re.compile(rb"^rtb_queue_consumed_total (\S+)$", re.MULTILINE)


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """The three of them; their URLs by setting."""
    with ExitStack() as stack:
        rabbit, redis, postgres = RabbitServer(folder), RedisServer(folder), PostgresServer(folder / "postgres")
        for server in (rabbit, redis, postgres):
            stack.callback(server.stop)
            server.start()
        asyncio.run(migrate(postgres.url))
        yield {"broker.url": rabbit.url, "state.url": redis.url, "store.url": postgres.url}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["queue", "profiles", "two"]))
@click.option("--campaigns", default=10_000, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Measured seconds of each run.")
def main(parts: tuple[str, ...], campaigns: int, seconds: float) -> None:
    """Print the figures of benchmarks/README.md that need real servers."""
    wanted = set(parts or ("queue", "profiles", "two"))
    with TemporaryDirectory(prefix="rtb-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        with servers(folder) as urls:
            settings = tuple(f"{key}={url}" for key, url in urls.items())
            fill = [*RTB, "lab", "fill", str(campaigns), "--set", f"store.url={urls['store.url']}"]
            subprocess.run(fill, check=True, stdout=subprocess.DEVNULL)
            if "queue" in wanted:
                _queue(folder, settings, urls["broker.url"], seconds)
            if "two" in wanted:
                _two(folder, settings, urls["broker.url"], seconds)
            if "profiles" in wanted:
                _profiles(folder, settings, urls, campaigns, seconds)


def _queue(folder: Path, settings: tuple[str, ...], broker: str, seconds: float) -> None:
    """As fast as it goes, then half of that."""
    with daemon(folder, *settings) as (_, pid, _):
        plan = Plan(target="queue", pid=pid, rate=8_000.0, duration_s=seconds, warmup_s=6.0, connections=256)
        full = run_over_rabbitmq(broker, plan)
        _show("RabbitMQ, more than it can take", full)
        half = run_over_rabbitmq(broker, msgspec.structs.replace(plan, rate=full.answers_per_s / 2, warmup_s=2.0))
        _show("RabbitMQ, half of that", half)


def _two(folder: Path, settings: tuple[str, ...], broker: str, seconds: float) -> None:
    """What an auction costs with one daemon, and with two on the same queue."""
    plan = Plan(target="queue", rate=1_000.0, duration_s=seconds, warmup_s=4.0, connections=256)
    (folder / "second").mkdir()
    with daemon(folder, *settings) as (url, pid, _):
        one = _cost_us(broker, plan, [(url, pid)])
        with daemon(folder / "second", *settings) as (other_url, other_pid, _):
            two = _cost_us(broker, plan, [(url, pid), (other_url, other_pid)])
        again = _cost_us(broker, plan, [(url, pid)])
    alone = (one + again) / 2
    click.echo(f"\nan auction by queue at 1,000/s: one daemon {one:.0f} and {again:.0f} us, two daemons {two:.0f} us")
    click.echo(f"  two cost {two / alone:.0%} of one")


def _cost_us(broker: str, plan: Plan, daemons: list[tuple[str, int]]) -> float:
    """CPU microseconds of these daemons for each message that they consumed."""

    def state() -> tuple[float, float]:
        cpu = sum(sum(psutil.Process(pid).cpu_times()[:2]) for _, pid in daemons)
        return cpu, sum(_consumed(url) for url, _ in daemons)

    before = state()
    run_over_rabbitmq(broker, msgspec.structs.replace(plan, pid=daemons[0][1]))
    after = state()
    return (after[0] - before[0]) / (after[1] - before[1]) * 1e6


def _consumed(url: str) -> float:
    with urlopen(url.replace("/openrtb2/auction", "/metrics")) as page:
        found = CONSUMED.search(page.read())
    assert found is not None
    return float(found[1])


def _profiles(folder: Path, settings: tuple[str, ...], urls: dict[str, str], campaigns: int, seconds: float) -> None:
    """The same load over HTTP: embedded without any profile, with 100,000 of them in Redis (and the budgets' accounts
    with them), and with wins and ledger outside as well. The daemons take turns, so that what the processors are worth
    at a moment meets all of them alike; none of them sheds, so that every answer counted was auctioned."""
    asyncio.run(_fill_redis(urls["state.url"]))
    kinds: dict[str, tuple[str, ...]] = {
        "embedded, no profiles": (),
        "profiles and accounts in Redis": (f"state.url={urls['state.url']}",),
        "everything outside": settings,
    }
    costs_us: dict[str, list[float]] = {what: [] for what in kinds}
    plan = Plan(duration_s=seconds, warmup_s=1.0, give_up_ms=30_000.0, users=USERS)
    bench = Bench(bodies(plan))
    with ExitStack() as stack:
        plans: dict[str, Plan] = {}
        for number, (what, chosen) in enumerate(kinds.items()):
            (place := folder / f"daemon{number}").mkdir()
            if settings is not chosen:
                store = f"store.url=sqlite:///{place}/rtb.db"
                subprocess.run(
                    [*RTB, "lab", "fill", str(campaigns), "--set", store], check=True, stdout=subprocess.DEVNULL
                )
            url, pid, _ = stack.enter_context(daemon(place, f"broker.journal={place}/journal", *chosen, *PATIENT))
            plans[what] = msgspec.structs.replace(plan, url=url, pid=pid)
            bench.run(msgspec.structs.replace(plans[what], duration_s=WARM_UP_S))
        for _ in range(ROUNDS):
            for what, one in plans.items():
                server = bench.run(one).server
                assert server is not None
                costs_us[what].append(server.cpu_s / server.answers * 1e6)
    base_us = median(costs_us["embedded, no profiles"])
    for what, costs in costs_us.items():
        cost_us, every = median(costs), " ".join(f"{cost:.0f}" for cost in costs)
        click.echo(f"\n{what}: {cost_us:.0f} us of CPU an auction at the median ({every})")
        click.echo(f"  {1e6 / cost_us:,.0f} per CPU-second, {base_us / cost_us:.0%} of the embedded daemon's")


async def _fill_redis(url: str) -> None:
    state = RedisState(url)
    traffic = Traffic(1, users=USERS)
    for first in range(0, USERS, 1_000):
        users = [traffic.user(rank) for rank in range(first, first + 1_000)]
        known = {user.id: profile.encode(Profile(user.id, interests=("news", "travel"))) for user in users}
        await state.put_profiles(known, 3_600.0)
    await state.close()


def _show(title: str, result: Result) -> None:
    click.echo(f"\n{title}")
    click.echo(report.text(result))


if __name__ == "__main__":
    main()
