"""Fan-out to bidders over HTTP: the client alone, and auctions among five and ten of them; the same over aiohttp.

    python -m benchmarks.fanout [all|client|auctions|sick|shield] ... [--seconds 4]

Bidders are a process of their own, on the loopback: `rtb lab dsps`, or for auctions by the CPU-second the same with
their answers made ahead (`benchmarks.prepared_dsps`). Figures are of this process's CPU time, which includes decoding
the request, the auction, its fan-out and the encoded answer, as in a daemon, but no HTTP edge. What aiohttp does, it
does in turns with what we do, in one run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import click
import uvloop
from msgspec import Struct

from benchmarks.prepared_dsps import requests
from rtb import openrtb, wiring
from rtb.adapters.clock import SystemClock
from rtb.adapters.coroutine_bidder import CoroutineBidder
from rtb.adapters.http_client import Call, FanoutClient, Limits
from rtb.config import Settings, Store
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.breaker import BreakerPolicy
from rtb.domain.histogram import Histogram
from rtb.edges.together import MOST, Together, auctioning
from rtb.lab import null_server
from rtb.openrtb import BidRequest, BidResponse
from rtb.ports import Bidder
from rtb.services.admission import Admission
from rtb.services.answers import encoded
from rtb.services.exchange import Auction, Exchange, Rules
from rtb.wiring.bidders import RemoteBidders

LOCAL = ("127.0.0.1",)
DEADLINE_MS = 100
MARGIN_MS = 10
"""The way back to the SSP, as a daemon keeps it: an auction is settled that much before the deadline."""
IN_FLIGHT = 64
AUCTIONS = 48
"""As many as aiohttp's client has a chance to end in time, with bidders that take 5 to 40 ms."""
MANY_AUCTIONS = (256, 192, 128, 96, 64)
"""The most of these with which the bidders answer in time: among fewer this process waits for most of the time, and is
woken for each answer with the caches full of somebody else's. A machine that others use, too, manages fewer."""
FEW_LATE = 0.02
"""The share of bidders that may be late all the same; an auction costs less the fewer of them answer."""
TURNS = 3
LOADED = 0.7
"""Of the most auctions a second, when it is asked how long they take."""
SICK = ("--misbehave", "9:hang", "--misbehave", "10:hang")
SICK_RATE = 100
SHIELDED = ("--misbehave", "6:hang", "--misbehave", "7:drip", "--misbehave", "8:flood")
SHIELD_RATE = 100
NEVER_OPEN = BreakerPolicy(calls=1_000_000_000)


Done = Callable[[bool], None]
"""Told whether a piece of work went well."""
Work = Callable[[int, Done], None]
"""Begins a numbered piece of work."""


class Figures(Struct):
    """Of some auctions or calls."""

    count: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    good: int = 0
    late: int = 0
    latency: Histogram | None = None

    @property
    def per_cpu_second(self) -> float:
        """How many a second of CPU time."""
        return self.count / self.cpu_s

    def add(self, other: Figures) -> None:
        """Take another turn's in."""
        self.count += other.count
        self.cpu_s += other.cpu_s
        self.wall_s += other.wall_s
        self.good += other.good
        self.late += other.late
        if self.latency is not None and other.latency is not None:
            self.latency.add(other.latency)


@contextmanager
def dsps(count: int, *flags: str) -> Iterator[list[str]]:
    """So many bidders in a process of their own: their URLs."""
    with serving("rtb", "lab", "dsps", str(count), "--port", "0", *flags) as urls:
        yield urls


@contextmanager
def prepared_dsps(count: int) -> Iterator[list[str]]:
    """The same with their answers made ahead."""
    with serving("benchmarks.prepared_dsps", str(count)) as urls:
        yield urls


@contextmanager
def serving(*command: str) -> Iterator[list[str]]:
    """A module that prints URLs and then that it is ready: they."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "ready\n")
        yield [line.split()[1] for line in lines]
    finally:
        process.terminate()
        process.wait(30)


async def closed_loop(work: Work, in_flight: int, seconds: float) -> Figures:
    """Keep so many under way; one begins when one ends."""
    figures = Figures(latency=Histogram())
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    over = asyncio.get_running_loop().create_future()
    under_way = in_flight

    def begin(number: int) -> None:
        work(number, _timed(figures, lambda: end(number)))

    def end(number: int) -> None:
        nonlocal under_way
        if time.monotonic_ns() < until_ns:
            begin(number + in_flight)
            return
        under_way -= 1
        if not under_way:
            over.set_result(None)

    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(in_flight):
        begin(number)
    await over
    figures.cpu_s, figures.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return figures


async def open_loop(work: Work, rate: float, seconds: float) -> Figures:
    """Begin so many a second, in bursts a millisecond apart, however the earlier ones fare."""
    figures = Figures(latency=Histogram())
    begun = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - wall) < seconds:
        while begun < rate * passed:
            work(begun, _timed(figures, lambda: None))
            begun += 1
        await asyncio.sleep(0.001)
    while figures.count < begun:  # noqa: ASYNC110 - a last look a turn costs nobody anything
        await asyncio.sleep(0.01)
    figures.cpu_s, figures.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return figures


def _timed(figures: Figures, then: Callable[[], None]) -> Done:
    """Counts a piece of work that begins now and ends when this is called."""
    begun_ns = time.monotonic_ns()

    def done(well: bool) -> None:
        assert figures.latency is not None
        figures.latency.record(time.monotonic_ns() - begun_ns)
        figures.good += well
        figures.count += 1
        then()

    return done


async def ours_alone(url: str, bodies: Sequence[bytes], seconds: float) -> Figures:
    """Calls of the fan-out client, each with its deadline, a callback following on another."""
    clock = SystemClock()
    client = FanoutClient(clock, allow=LOCAL)
    client.start()
    endpoint = client.endpoint(url, limits=Limits(connections=IN_FLIGHT, waiting=IN_FLIGHT))
    figures = Figures()
    over = asyncio.get_running_loop().create_future()
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    under_way = IN_FLIGHT
    ended = failed = 0

    def done(call: Call) -> None:
        nonlocal under_way, ended, failed
        ended += 1
        if call.failure is not None:
            failed += 1
        now_ns = call.ended_ns
        if now_ns < until_ns:
            deadline_ns = now_ns + DEADLINE_MS * 1_000_000
            client.call(endpoint, bodies[ended % len(bodies)], done, deadline_ns, now_ns=now_ns)
        else:
            under_way -= 1
            if not under_way:
                over.set_result(None)

    cpu, wall = time.process_time(), time.perf_counter()
    for n in range(IN_FLIGHT):
        client.call(endpoint, bodies[n], done, time.monotonic_ns() + DEADLINE_MS * 1_000_000)
    await over
    figures.cpu_s, figures.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    figures.count, figures.good = ended, ended - failed
    await client.close()
    return figures


class Bare(asyncio.Protocol):
    """Writes a request when it is connected and again at every packet: what the loop and the kernel cost by themselves.

    The responses must come whole.
    """

    def __init__(self, request: bytes, figures: Figures) -> None:
        self.request = request
        self.figures = figures
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's own class is no asyncio.Transport
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        """Go on."""
        self.figures.count += 1
        if self.transport is not None:
            self.transport.write(self.request)


async def bare_alone(port: int, body: bytes, seconds: float) -> Figures:
    """No client at all."""
    figures = Figures()
    head = (
        f"POST {null_server.AUCTION_PATH.decode()} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    cpu, wall = time.process_time(), time.perf_counter()
    made = [
        await loop.create_connection(lambda: Bare(head.encode() + body, figures), "127.0.0.1", port)
        for _ in range(IN_FLIGHT)
    ]
    await asyncio.sleep(seconds)
    figures.cpu_s, figures.wall_s = time.process_time() - cpu, time.perf_counter() - wall
    figures.good = figures.count
    for transport, _ in made:
        transport.abort()
    return figures


async def aiohttp_alone(url: str, bodies: Sequence[bytes], seconds: float) -> Figures:
    """The same with aiohttp's client under asyncio.wait_for."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def call(number: int, done: Done) -> None:
            try:
                await asyncio.wait_for(post(session, url, bodies[number % len(bodies)]), DEADLINE_MS / 1e3)
            except TimeoutError:
                done(False)
            else:
                done(True)

        def begin(number: int, done: Done) -> None:
            tasks.add(task := asyncio.create_task(call(number, done)))
            task.add_done_callback(tasks.discard)

        tasks: set[asyncio.Task[None]] = set()
        return await closed_loop(begin, IN_FLIGHT, seconds)


async def post(session: aiohttp.ClientSession, url: str, body: bytes) -> bytes:
    """A request and its response."""
    async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
        return await response.read()


def aiohttp_bidder(name: str, url: str, session: aiohttp.ClientSession, system: wiring.System) -> Bidder:
    """A bidder that awaits aiohttp's client."""

    async def respond(request: BidRequest) -> BidResponse:
        return openrtb.decode_response(await post(session, url, openrtb.encode(request)))

    return CoroutineBidder(name, respond, system.clock, system.rates)


class Asked:
    """A request on its way to an answer."""

    request: BidRequest
    auction: Auction

    def __init__(self, body: bytes, done: Done) -> None:
        """It arrives now."""
        self.body = body
        self.done = done
        self.received_ns = time.monotonic_ns()


class World:
    """Exchanges over the parts of a daemon, without house campaigns."""

    def __init__(self, system: wiring.System) -> None:
        self.system = system
        self.bodies = requests()

    def auctions(self, bidders: Sequence[Bidder]) -> Work:
        """One auction among these, from bytes to bytes, in the stages of the edge: whether it ended inside its
        deadline."""
        system, bodies = self.system, self.bodies
        settle_ms = DEADLINE_MS - MARGIN_MS
        admission = Admission(deadline_ms=settle_ms, network_margin_ms=0, minimum_ms=5, max_in_flight=100_000)
        exchange = Exchange(
            bidders, system.profiles, admission, system.metrics, system.clock, rates=system.rates, rules=Rules()
        )

        def read(asked: Asked) -> bool:
            asked.request = openrtb.decode_request(asked.body)
            return True

        def admit(asked: Asked) -> bool:
            asked.auction = exchange.admit(asked.request, asked.received_ns, body=asked.body)
            return True

        def concluded(asked: Asked, auction: Auction, error: Exception | None) -> None:
            assert error is None
            concluding.add(asked)

        def answer(asked: Asked) -> bool:
            assert asked.auction.outcome is not None
            encoded(asked.request, asked.auction.outcome, system.rates)
            asked.done(time.monotonic_ns() - asked.received_ns <= DEADLINE_MS * 1_000_000)
            return True

        def failed(asked: Asked, error: Exception) -> None:
            raise error

        stages = (read, admit, *auctioning(exchange, concluded), answer)
        together = Together(stages, failed, lambda: exchange.room, system.clock)
        concluding = Together((answer,), failed, lambda: MOST, system.clock)

        def run(number: int, done: Done) -> None:
            together.add(Asked(bodies[number % len(bodies)], done))

        return run

    async def load(self, bidders: Sequence[Bidder], in_flight: int, seconds: float) -> Figures:
        """Auctions among these, one after another, and how many of the bidders' answers did not come in time."""
        metrics = self.system.metrics
        late = metrics.bidder_timeouts
        figures = await closed_loop(self.auctions(bidders), in_flight, seconds)
        figures.late = metrics.bidder_timeouts - late
        return figures

    @asynccontextmanager
    async def ours(self, urls: Sequence[str], breaker: BreakerPolicy) -> AsyncIterator[Sequence[Bidder]]:
        """Bidders on the fan-out client."""
        remotes = RemoteBidders(SystemClock(), self.system.rates, os.environ, allow=LOCAL)
        remotes.start()
        settings = [
            BidderSettings(name=f"dsp{n}", url=url, max_in_flight=1_024, warm=64, breaker=breaker)
            for n, url in enumerate(urls, 1)
        ]
        bidders = remotes.apply(settings)
        await asyncio.sleep(2.0)  # until connections are warm
        yield bidders
        await remotes.close()

    @asynccontextmanager
    async def theirs(self, urls: Sequence[str]) -> AsyncIterator[Sequence[Bidder]]:
        """Bidders on aiohttp's client."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield [aiohttp_bidder(f"dsp{n}", url, session, self.system) for n, url in enumerate(urls, 1)]


async def measure_client(world: World, seconds: float) -> None:
    """The client alone, in turns with aiohttp's and with none, against a server that does nothing."""
    async with null_server.running() as (port, _):
        url = f"http://127.0.0.1:{port}{null_server.AUCTION_PATH.decode()}"
        totals = {"ours": Figures(), "none": Figures(), "aiohttp": Figures()}
        await ours_alone(url, world.bodies, 1.0)
        for _ in range(TURNS):
            totals["ours"].add(await ours_alone(url, world.bodies, seconds))
            totals["none"].add(await bare_alone(port, world.bodies[0], seconds))
            totals["aiohttp"].add(await aiohttp_alone(url, world.bodies, seconds))
    click.echo(f"client alone, {IN_FLIGHT} calls under way, each with a deadline; none: one fixed request, no client")
    for name, figures in totals.items():
        click.echo(f"  {name:10}{_rates(figures)}, {figures.count - figures.good} failed")


async def measure_auctions(world: World, seconds: float) -> None:
    """Five bidders that answer in 5 to 40 ms, over our client and over aiohttp's; what each further bidder costs."""
    with prepared_dsps(5) as urls:
        totals = {"ours": Figures(), "aiohttp": Figures()}
        async with world.ours(urls, NEVER_OPEN) as ours, world.theirs(urls) as theirs:
            await world.load(ours, AUCTIONS, 2.0)
            for _ in range(TURNS):
                totals["ours"].add(await world.load(ours, AUCTIONS, seconds))
                totals["aiohttp"].add(await world.load(theirs, AUCTIONS, seconds))
            click.echo(f"five bidders in 5-40 ms, {AUCTIONS} auctions under way")
            for name, figures in totals.items():
                _show_load(name, figures)
            for under_way in MANY_AUCTIONS:
                await world.load(ours, under_way, 1.0)
                many = await world.load(ours, under_way, TURNS * seconds)
                click.echo(f"five bidders in 5-40 ms, {under_way} auctions under way")
                _show_load("ours", many)
                if many.late <= FEW_LATE * 5 * many.count:
                    break
            await measure_bidders(world, ours, under_way, seconds)
            await measure_loaded(world, ours, under_way, seconds)


async def measure_loaded(world: World, bidders: Sequence[Bidder], under_way: int, seconds: float) -> None:
    """How long auctions take at a share of the most that this process manages, which is measured anew before each turn:
    a shared machine is not as fast now as it was a minute ago."""
    loaded = Figures(latency=Histogram())
    p99_ms = []
    for _ in range(2 * TURNS):
        most = await world.load(bidders, under_way, seconds / 2)
        turn = await open_loop(world.auctions(bidders), LOADED * most.count / most.wall_s, seconds / 2)
        loaded.add(turn)
        if turn.latency is not None:
            p99_ms.append(turn.latency.percentile(99) / 1e6)
    _show(f"at {100 * LOADED:.0f} % of the most, {loaded.count / loaded.wall_s:,.0f} a second", loaded)
    click.echo(f"  the p99 of each turn: {', '.join(f'{ms:.1f}' for ms in p99_ms)} ms")


async def measure_bidders(world: World, bidders: Sequence[Bidder], under_way: int, seconds: float) -> None:
    """What an auction of so many costs among no, one, three and five bidders, and what of that is the loop's and the
    kernel's."""
    totals = {count: Figures() for count in (0, 1, 3, 5)}
    bare = Figures()
    async with null_server.running() as (port, _):
        for _ in range(TURNS):
            for count, total in totals.items():
                total.add(await world.load(bidders[:count], under_way, seconds / TURNS))
            bare.add(await bare_alone(port, world.bodies[0], seconds / TURNS))
    costs = [1e6 / figures.per_cpu_second for figures in totals.values()]
    click.echo(
        f"  no, one, three, five bidders: {', '.join(f'{cost:.0f}' for cost in costs)} us an auction, "
        f"{(costs[3] - costs[1]) / 4:.1f} us a further bidder, of which a call costs the loop and the kernel "
        f"{1e6 / bare.per_cpu_second:.1f} us"
    )


async def measure_sick(world: World, seconds: float) -> None:
    """Ten bidders of which two never answer: every auction takes its whole deadline, and not more.

    In turns with as many timers of the same length and nothing else: what they are late by, the machine is.
    """
    with dsps(10, *SICK) as urls:
        async with world.ours(urls, NEVER_OPEN) as bidders:
            works = {"ten bidders of which two hang": world.auctions(bidders), "timers alone": _timer}
            totals = {name: Figures(latency=Histogram()) for name in works}
            await open_loop(works["ten bidders of which two hang"], SICK_RATE, 2.0)
            for _ in range(TURNS):
                for name, work in works.items():
                    totals[name].add(await open_loop(work, SICK_RATE, seconds))
            for name, figures in totals.items():
                _show(f"{name}, {SICK_RATE} a second", figures)


def _timer(number: int, done: Done) -> None:
    """Nothing but the wait for the deadline."""
    begun_ns = time.monotonic_ns()
    asyncio.get_running_loop().call_later(
        (DEADLINE_MS - MARGIN_MS) / 1e3, lambda: done(time.monotonic_ns() - begun_ns <= DEADLINE_MS * 1_000_000)
    )


async def measure_shield(world: World, seconds: float) -> None:
    """What a dead, a dripping and a flooding bidder add to the time of auctions among five others, in turns."""
    with dsps(8, *SHIELDED) as urls:
        async with world.ours(urls, BreakerPolicy()) as bidders:
            works = {"five healthy": world.auctions(bidders[:5]), "and three sick": world.auctions(bidders)}
            await open_loop(works["and three sick"], SHIELD_RATE, 3.0)  # until their breakers are open
            totals = {name: Figures(latency=Histogram()) for name in works}
            for _ in range(2 * TURNS):
                for name, work in works.items():
                    totals[name].add(await open_loop(work, SHIELD_RATE, seconds / 2))
            for name, figures in totals.items():
                _show(f"{name}, {SHIELD_RATE} a second", figures)
            p99 = [figures.latency.percentile(99) / 1e6 for figures in totals.values() if figures.latency]
            click.echo(f"  the p99 rises by {p99[1] - p99[0]:.1f} ms")


def _rates(figures: Figures) -> str:
    return (
        f"{figures.per_cpu_second:10,.0f} a CPU-second, {1e6 * figures.cpu_s / figures.count:6.1f} us each, "
        f"{figures.count / figures.wall_s:8,.0f} a second"
    )


def _show_load(title: str, figures: Figures) -> None:
    click.echo(
        f"  {title:10}{_rates(figures)}, {figures.cpu_s / figures.wall_s:.0%} busy, "
        f"{figures.late / figures.count / 5:.1%} of the bidders late"
    )


def _show(title: str, figures: Figures) -> None:
    latency = figures.latency
    assert latency is not None
    click.echo(
        f"{title}: p50 {latency.percentile(50) / 1e6:.1f} ms, p99 {latency.percentile(99) / 1e6:.1f} ms, p99.9 "
        f"{latency.percentile(99.9) / 1e6:.1f} ms; {figures.good / figures.count:.2%} inside {DEADLINE_MS} ms"
    )


async def measure(parts: set[str], seconds: float) -> None:
    """All that is wanted."""
    with TemporaryDirectory(prefix="rtb-bench-") as folder:
        database = Store(url=f"sqlite:///{Path(folder) / 'rtb.db'}")
        system = wiring.build(Settings(store=database), os.getpid())
        await system.outside.repository.start()
        world = World(system)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as the daemon has it
        if parts & {"all", "client"}:
            await measure_client(world, seconds)
        if parts & {"all", "auctions"}:
            await measure_auctions(world, seconds)
        if parts & {"all", "sick"}:
            await measure_sick(world, seconds)
        if parts & {"all", "shield"}:
            await measure_shield(world, seconds)
        await system.profiles.close()
        await system.outside.repository.close()


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["all", "client", "auctions", "sick", "shield"]))
@click.option("--seconds", default=4.0, show_default=True, help="Of each turn.")
def main(parts: tuple[str, ...], seconds: float) -> None:
    """Print the figures."""
    uvloop.run(measure(set(parts or ("all",)), seconds))


if __name__ == "__main__":
    main()
