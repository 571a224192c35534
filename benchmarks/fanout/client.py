"""The client alone: ours, aiohttp's, and none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
import click

from benchmarks.fanout.figures import DEADLINE_MS, TURNS, Figures, rates
from benchmarks.fanout.loops import Done, closed_loop
from rtb.adapters.clock import SystemClock
from rtb.adapters.http_client import Call, FanoutClient, Limits
from rtb.lab import null_server

LOCAL = ("127.0.0.1",)
IN_FLIGHT = 64


async def measure_client(bodies: Sequence[bytes], seconds: float) -> None:
    """The client alone, in turns with aiohttp's and with none, against a server that does nothing."""
    async with null_server.running() as (port, _):
        url = f"http://127.0.0.1:{port}{null_server.AUCTION_PATH.decode()}"
        totals = {"ours": Figures(), "none": Figures(), "aiohttp": Figures()}
        await ours_alone(url, bodies, 1.0)
        for _ in range(TURNS):
            totals["ours"].add(await ours_alone(url, bodies, seconds))
            totals["none"].add(await bare_alone(port, bodies[0], seconds))
            totals["aiohttp"].add(await aiohttp_alone(url, bodies, seconds))
    click.echo(f"client alone, {IN_FLIGHT} calls under way, each with a deadline; none: one fixed request, no client")
    for name, figures in totals.items():
        click.echo(f"  {name:10}{rates(figures)}, {figures.count - figures.good} failed")


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
