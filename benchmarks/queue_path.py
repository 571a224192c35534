"""CPU of daemons for an auction by queue over RabbitMQ: consumed, auctioned, answer confirmed, request acknowledged,
win published, consumed and billed.

    python -m benchmarks.queue_path [--campaigns 10000] [--requests 16000] [--rounds 3] [burst|paced|spread] ...

`burst` puts all requests on the queue at once: batches are full. `paced` sends 1,000 a second for each daemon, `spread`
1,000 a second however many there are. One daemon and two that share a queue do each in turns, round by round: each side
has a virtual host, a database and budget accounts of its own, and each daemon has taken as many requests before, so
that what they remember is as warm. One daemon does each round once more with everything that runs, servers and
generator too, kept to half of the processors: two daemons have the same of the machine for each of them.
The requests' timestamps are whole seconds, so that the deadline counts from their arrival at the daemon and waiting on
the queue costs no answer. Servers, generator and daemons share the processors: only CPU time of the daemons is told,
less what they use while idle and what it takes to look at them (their metrics tell when they have done everything), in
some rounds, for the processors are shared. Each round begins with requests that are not measured: a daemon that has
rested has given leases back, and its data is in no cache any more.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import asyncpg  # type: ignore[import-untyped]
import click
import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.daemon import RTB, daemon
from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.sql_schema import migrate
from rtb.lab.load.payload import Payload, payloads, request_ids
from rtb.lab.servers.postgres import DATABASE, PostgresServer
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.lab.servers.redis import RedisServer
from rtb.messages import MessageType
from rtb.ports import Message
from rtb.services import topology
from rtb.services.purse import IDLE_NS

WARM_UP = 12_000
"""Of a daemon: three times every request there is."""
LEAD = 4_000
"""Before each round."""
RATE = 1_000
PARTS = ("burst", "paced", "spread")
STEP_S = 0.01
LOOK_S = 0.7
LOOKS = 40
IDLE_S = 10.0
"""Leases are renewed every five seconds, many at once: it takes in two of these moments, wherever it begins."""
IDLE_AFTER_S = IDLE_NS / 1e9 + 3.0
"""Until then a daemon is busy giving leases back that nobody has used for so long."""
COUNTER = re.compile(rb"^rtb_queue_consumed_total (\S+)$", re.MULTILINE)


@dataclass
class Daemons:
    """The daemons at work, by URL and pid."""

    running: Sequence[tuple[str, int]]
    looks: int = 0
    idle_share: float = 0.0
    look_s: float = 0.0

    def cpu_s(self) -> float:
        """User and system time of all of them."""
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for _, pid in self.running)

    def consumed(self) -> float:
        """Messages that they took off queues."""
        self.looks += 1
        total = 0.0
        for url, _ in self.running:
            with urlopen(url.replace("/openrtb2/auction", "/metrics")) as page:
                found = COUNTER.search(page.read())
            assert found is not None
            total += float(found[1])
        return total

    async def rest(self) -> None:
        """Wait until they have done everything."""
        before = -1.0
        while (now := self.consumed()) != before:
            before = now
            await asyncio.sleep(LOOK_S)

    async def measure_idle(self) -> None:
        """CPU seconds a second that they use without any request; and those of a look at them."""
        start, cpu_s = time.monotonic(), self.cpu_s()
        await asyncio.sleep(IDLE_S)
        self.idle_share = (self.cpu_s() - cpu_s) / (time.monotonic() - start)
        start, cpu_s = time.monotonic(), self.cpu_s()
        for _ in range(LOOKS):
            self.consumed()
        self.look_s = (self.cpu_s() - cpu_s - self.idle_share * (time.monotonic() - start)) / LOOKS


class Requests:
    """Puts requests on the queue."""

    def __init__(self, broker: RabbitBroker, prepared: Sequence[Payload]) -> None:
        self._broker = broker
        self._prepared = prepared
        self._ids = request_ids(time.time_ns())

    async def send(self, count: int) -> None:
        """So many at once, confirmed."""
        made = [self._message(n) for n in range(count)]
        for first in range(0, count, 1_000):
            batch = made[first : first + 1_000]
            await asyncio.gather(*(self._broker.publish(topology.BIDDING, "bid.request", one) for one in batch))

    async def pace(self, count: int, rate: int) -> None:
        """So many, at a rate a second, evenly."""
        loop = asyncio.get_running_loop()
        start, sent = loop.time(), 0
        while sent < count:
            due = min(count, int((loop.time() - start) * rate) + 1)
            await self.send(due - sent)
            sent = due
            await asyncio.sleep(STEP_S)

    def _message(self, n: int) -> Message:
        request_id, now = next(self._ids), float(int(time.time()))
        data = msgspec.Raw(self._prepared[n % len(self._prepared)].body(request_id))
        name = request_id.decode()
        body = messages.encode(MessageType.BID_REQUEST, data, message_id=name, timestamp=now)
        return Message(body=body, message_id=name, timestamp=now, persistent=False)


@dataclass
class Side:
    """Daemons with a queue of their own, and who puts requests on it."""

    title: str
    daemons: Daemons
    requests: Requests
    processors: set[int]
    """What everything that runs is kept to meanwhile."""

    async def cost_us(self, count: int, part: str) -> float:
        """CPU microseconds of an auction, without what the daemons use idle or looked at."""
        daemons, requests = self.daemons, self.requests
        _keep_to(self.processors)
        await requests.send(LEAD)
        await daemons.rest()
        start, cpu_s, looks = time.monotonic(), daemons.cpu_s(), daemons.looks
        if part == "burst":
            await requests.send(count)
        else:
            await requests.pace(count, RATE * len(daemons.running) if part == "paced" else RATE)
        await daemons.rest()
        spare_s = daemons.idle_share * (time.monotonic() - start) + daemons.look_s * (daemons.looks - looks)
        return (daemons.cpu_s() - cpu_s - spare_s) / count * 1e6


def _keep_to(processors: set[int]) -> None:
    """Let us and what we have started run there alone."""
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, processors)


async def measure(sides: Sequence[Side], parts: Sequence[str], count: int, rounds: int) -> None:
    """Each part, by each side in turns: one daemon, two, and the one on half of the machine."""
    one, two, half = sides
    for side in (one, two):
        await side.requests.send(WARM_UP * len(side.daemons.running))
        await side.daemons.rest()
    await asyncio.sleep(IDLE_AFTER_S)
    for side in (one, two):
        await side.daemons.measure_idle()
    for part in parts:
        costs: dict[str, list[float]] = {side.title: [] for side in sides}
        for n in range(rounds):
            for side in reversed(sides) if n % 2 else sides:
                costs[side.title].append(await side.cost_us(count, part))
        for side in sides:
            _show(part, side, costs[side.title])
        for other, where in ((one, ""), (half, " on half of the processors")):
            medians = median(costs[two.title]) / median(costs[other.title])
            by_round = median(a / b for a, b in zip(costs[two.title], costs[other.title], strict=True))
            click.echo(
                f"{part + ',':8}two use {medians:.0%} of one's{where} by the medians, {by_round:.0%} by the rounds"
            )


def _show(part: str, side: Side, costs: Sequence[float]) -> None:
    middle, best = median(costs), min(costs)
    every = " ".join(f"{cost:.0f}" for cost in costs)
    click.echo(
        f"{part + ',':8}{side.title:23}median {middle:.0f} us, {1e6 / middle:,.0f} auctions per CPU-second, best "
        f"{best:.0f} us, {1e6 / best:,.0f} ({every}), idle {side.daemons.idle_share:.1%} of a processor"
    )


async def run(parts: Sequence[str], campaigns: int, count: int, rounds: int) -> None:
    """Start the servers and the daemons, and measure."""
    prepared = payloads("1k", 4_000, 1, 100_000)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rtb-bench-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        rabbit, redis, postgres = RabbitServer(folder), RedisServer(folder), PostgresServer(folder / "postgres")
        for server in (rabbit, redis, postgres):
            stack.callback(server.stop)
            await asyncio.to_thread(server.start)
        await migrate(postgres.url)
        fill = [*RTB, "lab", "fill", str(campaigns), "--set", f"store.url={postgres.url}"]
        await asyncio.to_thread(subprocess.run, fill, check=True, stdout=subprocess.DEVNULL)
        sides, processors = [], os.sched_getaffinity(0)
        for place, title in enumerate(("one daemon", "two daemons")):
            name = f"side{place}"
            await _copy(postgres, name)
            url = await asyncio.to_thread(rabbit.add_vhost, name)
            state = f"redis://127.0.0.1:{redis.port}/{place}"
            urls = (f"broker.url={url}", f"state.url={state}", f"store.url={postgres.url_of(name)}")
            running = []
            for n in range(place + 1):
                own = folder / f"{name}-{n}"
                own.mkdir()
                begun = daemon(own, *urls, "auction.deadline_ms=1000")
                running.append((await asyncio.to_thread(stack.enter_context, begun))[:2])
            broker = RabbitBroker(url, SystemClock(), confirm_limit_s=60.0)
            await broker.start()
            stack.push_async_callback(broker.close)
            sides.append(Side(title, Daemons(running), Requests(broker, prepared), processors))
        half = set(sorted(processors)[: max(1, len(processors) // 2)])
        sides.append(replace(sides[0], title="one, half the machine", processors=half))
        await measure(sides, parts, count, rounds)


async def _copy(postgres: PostgresServer, name: str) -> None:
    """The filled database, once more."""
    connection = await asyncpg.connect(postgres.url_of("postgres"))
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {DATABASE}")
    await connection.close()


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--campaigns", default=10_000, show_default=True)
@click.option("--requests", "count", default=16_000, show_default=True, help="Of each round.")
@click.option("--rounds", default=3, show_default=True)
def main(parts: tuple[str, ...], campaigns: int, count: int, rounds: int) -> None:
    """Print CPU microseconds an auction."""
    asyncio.run(run(parts or PARTS, campaigns, count, rounds))


if __name__ == "__main__":
    main()
