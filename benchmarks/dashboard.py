"""What watching costs: CPU and memory of a server with a thousand dashboards, each subscribed to twenty campaigns, and
what its auctions notice of them.

python -m benchmarks.dashboard [clients] [campaigns each] [seconds]

The clients run in this process, the server in another; what is printed is the server's own. Its auctions arrive four
milliseconds apart whether the one before is done or not, and each is timed from when it was due. In every other second
the hub is silent: the two kinds of seconds differ by nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil  # type: ignore[import-untyped]
import uvloop

from dashboard.server import HUB
from rtb.adapters.clock import SystemClock
from rtb.domain.histogram import Histogram, upper_ns
from tests.support.dashboard_site import OPS, DashboardSite
from tests.unit.parts import bid_request, campaign, world

CAMPAIGNS = 40
SETTLE_S = 3
AUCTIONS_S = 40
"""Seconds of auctions, in every other one of which dashboards are told."""
TOLD, SILENT, TICK, SERVING = range(4)
AUCTION_EVERY_S = 0.004
AUCTIONS_AT = 2
"""The report with which auctions begin."""


class Server:
    """A dashboard whose source ticks every second, in a process that runs auctions."""

    def __init__(self, folder: str) -> None:
        """Not started."""
        campaigns = [campaign(f"c{n}") for n in range(CAMPAIGNS)]
        self.site = DashboardSite(world(str(Path(folder) / "rtb.db"), campaigns=campaigns, clock=SystemClock()))
        self.times = _histograms()
        """Of auctions while dashboards are told, and while they are not; of the processor for a second's tick, and for
        one step of telling."""
        self.p99s: tuple[list[float], list[float]] = [], []
        """Of the auctions of each second, in milliseconds: of those told, and of the silent ones."""

    async def run(self) -> None:
        """Serve until the process is ended; each line on standard input asks for a report."""
        await self.site.start()
        self._watch_steps()
        self.site.source.start()
        print(self.site.origin, flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        asked = 0
        auctions: asyncio.Task[None] | None = None
        async for _ in reader:
            asked += 1
            if asked == AUCTIONS_AT:
                auctions = asyncio.create_task(self._auctions())
            report = [histogram.pack() for histogram in self.times], self.p99s
            self.times, self.p99s = _histograms(), ([], [])
            print(msgspec.json.encode(report).decode(), flush=True)
        del auctions

    def _watch_steps(self) -> None:
        """Record how long the loop is held up by each second's tick, and by each step in which some are served: the
        processor's time, writes included, which are made at the end of the step."""
        loop = asyncio.get_running_loop()
        hub, source = self.site.runner.app[HUB], self.site.source

        def timed(step: Callable[..., None], kind: int) -> Callable[..., None]:
            def run(*arguments: Any) -> None:
                began_ns = time.thread_time_ns()
                loop.call_soon(lambda: self.times[kind].record(time.thread_time_ns() - began_ns))
                step(*arguments)

            return run

        hub._hand_out = timed(hub._hand_out, SERVING)  # type: ignore[method-assign]
        source.tick = timed(source.tick, TICK)  # type: ignore[method-assign]

    async def _auctions(self) -> None:
        """One every four milliseconds; in every other second the hub is told nothing."""
        loop = asyncio.get_running_loop()
        hub = self.site.runner.app[HUB]
        due, told, second = loop.time(), True, Histogram()
        flip = due + 1.0
        while True:
            await asyncio.sleep(max(due - loop.time(), 0))
            if due >= flip:
                flip += 1.0
                self.p99s[not told].append(second.percentile(99) / 1e6)
                told, second = not told, Histogram()
                if hub._unsubscribe is not None:
                    hub._unsubscribe()
                    hub._unsubscribe = None
                if told:
                    hub.start()
            due_ns = round(due * 1e9)
            self.site.world.exchange.begin(bid_request(), due_ns)
            took_ns = time.monotonic_ns() - due_ns
            self.times[not told].record(took_ns)
            second.record(took_ns)
            due += AUCTION_EVERY_S


async def serve(folder: str) -> None:
    """Be the server."""
    await Server(folder).run()


class Load:
    """So many connected clients, and what they have received."""

    def __init__(self) -> None:
        """None."""
        self.messages = self.bytes = 0

    @contextlib.asynccontextmanager
    async def clients(self, origin: str, clients: int, each: int) -> AsyncIterator[None]:
        """Connect and subscribe them all; they read until the end."""

        async def read(ws: aiohttp.ClientWebSocketResponse) -> None:
            async for message in ws:
                self.messages += 1
                self.bytes += len(message.data)

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=OPS, connector=connector) as session, asyncio.TaskGroup() as group:
            tasks = []
            for number in range(clients):
                ws = await session.ws_connect(f"{origin}/ws", max_msg_size=0)
                for n in range(each):
                    await ws.send_json({"type": "subscribe", "campaign_id": f"c{(number + n) % CAMPAIGNS}"})
                tasks.append(group.create_task(read(ws)))
            await asyncio.sleep(SETTLE_S)
            yield
            for task in tasks:
                task.cancel()


async def measure(clients: int, each: int, seconds: int) -> None:
    """Connect, wait until all is quiet, and look at the server for a while; then at its auctions."""
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.dashboard", "--serve", folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        output, orders = server.stdout, server.stdin
        process = psutil.Process(server.pid)
        with contextlib.suppress(psutil.AccessDenied):
            process.nice(-10)  # neighbours disturb less

        async def report() -> tuple[list[Histogram], list[list[float]]]:
            orders.write(b"\n")
            packed, p99s = msgspec.json.decode(await output.readline())
            return [Histogram.unpack(one) for one in packed], p99s

        try:
            origin = (await output.readline()).decode().strip()
            before, load = process.memory_info().rss, Load()
            async with load.clients(origin, clients, each):
                await report()
                began_s, heard, size = sum(process.cpu_times()[:2]), load.messages, load.bytes
                await asyncio.sleep(seconds)
                share = (sum(process.cpu_times()[:2]) - began_s) / seconds
                megabytes = (process.memory_info().rss - before) / 1e6
                count = load.messages - heard
                print(
                    f"{clients} clients, {each} campaigns each: {share:.1%} of a core, {megabytes:.0f} MB, "
                    f"{count / seconds:.0f} updates/s of {(load.bytes - size) / max(count, 1):.0f} bytes"
                )
                (_, _, ticks, steps), _ = await report()
                for what, times in ("the second's tick", ticks), ("a step of telling", steps):
                    print(f"the loop is held up by {what}: {_spread(times)}")
                print(f"an auction waits for these {_waits([ticks, steps], seconds)}")
                await asyncio.sleep(AUCTIONS_S)
                (told, silent, _, _), p99s = await report()
                for what, times, by_second in ("told", told, p99s[0]), ("silent", silent, p99s[1]):
                    low, middle, high = statistics.quantiles(by_second, n=4)
                    print(
                        f"auctions while dashboards are {what}: {_spread(times)}; "
                        f"p99 of each of {len(by_second)} seconds {low:.2f}, {middle:.2f}, {high:.2f} ms (quartiles)"
                    )
                above = statistics.median(p99s[0]) - statistics.median(p99s[1])
                print(f"their p99 in the second in the middle: {above:+.2f} ms when told")
        finally:
            server.kill()
            await server.wait()


def _spread(times: Histogram) -> str:
    p50, p99, most = (times.percentile(q) / 1e6 for q in (50, 99, 100))
    return f"p50 {p50:.2f}, p99 {p99:.2f}, longest {most:.2f} ms"


def _waits(kinds: Sequence[Histogram], seconds: int) -> str:
    """What an auction that arrives at any time waits for the step that is under way, without other load."""
    steps = [(upper_ns(index), count) for kind in kinds for index, count in enumerate(kind.counts) if count]
    busy_ns = sum(count * took_ns for took_ns, count in steps)
    beyond = [
        sum(count * max(took_ns - wait_us * 1_000, 0) for took_ns, count in steps) for wait_us in range(0, 20_000, 10)
    ]
    p99_us = next(10 * n for n, over_ns in enumerate(beyond) if over_ns <= 0.01 * seconds * 1e9)
    return f"at p99 {p99_us / 1_000:.2f} ms, in {busy_ns / seconds / 1e9:.1%} of all cases at all"


def _histograms() -> tuple[Histogram, ...]:
    return tuple(Histogram() for _ in range(4))


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(sys.argv[2]))
        return
    clients, each, seconds = (int(given) for given in [*sys.argv[1:], *("1000", "20", "20")[len(sys.argv) - 1 :]])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(4 * clients, 1_024)), most))
    uvloop.run(measure(clients, each, seconds))


if __name__ == "__main__":
    main()
