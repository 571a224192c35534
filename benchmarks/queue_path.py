"""CPU of daemons for an auction by queue over RabbitMQ: consumed, auctioned, answer confirmed, request acknowledged,
win published, consumed and billed.

    python -m benchmarks.queue_path [--campaigns 10000] [--requests 4000] [--rounds 3] [burst|paced|spread] ...

`burst` puts all requests on the queue at once: batches are full. `paced` sends 1,000 a second for each daemon, `spread`
1,000 a second however many there are. Each first to one daemon, then to two, of which each has taken as many requests
before, so that what they remember is as warm.
The requests' timestamps are whole seconds, so that the deadline counts from their arrival at the daemon and waiting on
the queue costs no answer. Servers, generator and daemons share the processors: only CPU time of the daemons is told,
less what they use while idle and what it takes to look at them (their metrics tell when they have done everything), in
some rounds, for the processors are shared.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import click
import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.daemon import RTB, daemon
from benchmarks.production import servers
from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.lab.load.payload import Payload, payloads, request_ids
from rtb.messages import MessageType
from rtb.ports import Message
from rtb.services import topology
from rtb.services.purse import IDLE_NS

WARM_UP = 12_000
"""Of a daemon: three times every request there is."""
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

    async def measure_idle(self) -> float:
        """CPU seconds a second that they use without any request; and those of a look at them."""
        await self.rest()
        await asyncio.sleep(IDLE_AFTER_S)
        start, cpu_s = time.monotonic(), self.cpu_s()
        await asyncio.sleep(IDLE_S)
        self.idle_share = (self.cpu_s() - cpu_s) / (time.monotonic() - start)
        start, cpu_s = time.monotonic(), self.cpu_s()
        for _ in range(LOOKS):
            self.consumed()
        self.look_s = (self.cpu_s() - cpu_s - self.idle_share * (time.monotonic() - start)) / LOOKS
        return self.idle_share


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


async def cost_us(daemons: Daemons, requests: Requests, count: int, rate: int) -> float:
    """CPU microseconds of an auction, at a rate or (0) all at once, without what the daemons use idle or looked at."""
    start, cpu_s, looks = time.monotonic(), daemons.cpu_s(), daemons.looks
    await (requests.pace(count, rate) if rate else requests.send(count))
    await daemons.rest()
    spare_s = daemons.idle_share * (time.monotonic() - start) + daemons.look_s * (daemons.looks - looks)
    return (daemons.cpu_s() - cpu_s - spare_s) / count * 1e6


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--campaigns", default=10_000, show_default=True)
@click.option("--requests", "count", default=4_000, show_default=True, help="Of each round.")
@click.option("--rounds", default=3, show_default=True)
def main(parts: tuple[str, ...], campaigns: int, count: int, rounds: int) -> None:
    """Print CPU microseconds an auction."""
    wanted = parts or PARTS
    prepared = payloads("1k", 4_000, 1, 100_000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rtb-bench-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        urls = stack.enter_context(servers(folder))
        settings = (*(f"{key}={url}" for key, url in urls.items()), "auction.deadline_ms=1000")
        fill = [*RTB, "lab", "fill", str(campaigns), "--set", f"store.url={urls['store.url']}"]
        subprocess.run(fill, check=True, stdout=subprocess.DEVNULL)
        url, pid, _ = stack.enter_context(daemon(folder, *settings))
        one = Daemons([(url, pid)])

        async def measure(daemons: Daemons, rate: int) -> str:
            broker = RabbitBroker(urls["broker.url"], SystemClock(), confirm_limit_s=60.0)
            await broker.start()
            requests = Requests(broker, prepared)
            await requests.send(WARM_UP * len(daemons.running))
            idle = await daemons.measure_idle()
            await cost_us(daemons, requests, count, rate)  # until leases are there again
            costs = [await cost_us(daemons, requests, count, rate) for _ in range(rounds)]
            await broker.close()
            middle, best = median(costs), min(costs)
            every = " ".join(f"{cost:.0f}" for cost in costs)
            return (
                f"median {middle:.0f} us, {1e6 / middle:,.0f} auctions per CPU-second, best {best:.0f} us, "
                f"{1e6 / best:,.0f} ({every}), idle {idle:.1%} of a processor"
            )

        def show(title: str, daemons: Daemons) -> None:
            rates = {"burst": 0, "paced": RATE * len(daemons.running), "spread": RATE}
            for part in wanted:
                click.echo(f"{part + ',':8}{title:12}{asyncio.run(measure(daemons, rates[part]))}")

        show("one daemon", one)
        (folder / "second").mkdir()
        other_url, other_pid, _ = stack.enter_context(daemon(folder / "second", *settings))
        show("two daemons", Daemons([(url, pid), (other_url, other_pid)]))


if __name__ == "__main__":
    main()
