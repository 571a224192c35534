"""Tracked events per CPU-second of a process that takes them over HTTP and has each confirmed by a broker.

python -m benchmarks.tracker [--events 40000] [--rabbitmq]

The tracker runs in a process of its own, behind the HTTP server of the exchange; this one asks over connections that
are always busy: 8 impression pixels, a click redirect and a conversion of ten, each with a ticket of its own. It is
answered once the broker has confirmed it: the one in the process with its journal, as the daemon has it unless told
otherwise, that is once the event is on the disk; and the same without a journal. The process is also asked for a page
of nothing: HTTP alone. Nobody takes the events off their queues.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import IO
from urllib.parse import quote

import click
import psutil  # type: ignore[import-untyped]
import structlog
import uvloop

from benchmarks.ledger import probe_ns
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.spool import FileSpool
from rtb.domain.campaign import Pricing
from rtb.domain.tracking import Keys, Signer, Ticket
from rtb.edges.http1 import Connection, Server
from rtb.edges.tracker_http import DONE, TrackerResponder
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.ports import Broker
from rtb.services import topology
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from rtb.services.tickets import Tickets
from rtb.services.tracker import Tracker

CONNECTIONS = 256
"""With fewer the process waits for the disk, and a batch of the journal is small."""
RUNS = 3
SIGNER = Signer(Keys({1: b"benchmarks.tracker"}, 1), b"benchmarks.tracker")
LANDING = "https://shop.example/products?ref=${CLICK_ID}"
USER_AGENT = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Mobile Safari/537.36"
)


class Site:
    """What the measured process answers: the tracker, and nothing."""

    def __init__(self, responder: TrackerResponder) -> None:
        self._responder = responder

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """A page of nothing, or the tracker's."""
        return DONE if path == b"/t/nothing" else self._responder.respond(connection, method, path, body)


async def serve(url: str, folder: Path, journal: bool) -> None:
    """Take events until standard input ends."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output tells the port
    clock = SystemClock()
    broker: Broker = (
        RabbitBroker(url, clock) if url else MemoryBroker(clock, journal=folder / "journal" if journal else None)
    )
    await broker.start()
    await broker.declare(topology.topology())
    outbox = Outbox(broker, FileSpool(folder / "spool"), Metrics("benchmark", clock))
    await outbox.start()
    tickets = None if url else Tickets(SIGNER)  # as the daemon does
    tracker = Tracker(SIGNER, outbox.post, clock, instance="benchmark", tickets=tickets)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the daemon does
    loop = asyncio.get_running_loop()
    server = Server(Site(TrackerResponder(tracker, clock)), clock)
    listener = await loop.create_server(server, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(sum(tracker.accepted.values()), outbox.confirmed, outbox.spooled, tracker.unsafe, flush=True)
    await outbox.stop()
    await broker.close()


@contextmanager
def tracker(url: str, folder: Path, journal: bool) -> Iterator[tuple[int, psutil.Process, subprocess.Popen[str]]]:
    """The measured process, and the port it listens on."""
    command = [sys.executable, "-m", "benchmarks.tracker", "--serve", f"--url={url}", f"--folder={folder}"]
    command += ["--journal"] * journal
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(_pipe(process.stdout).readline()), psutil.Process(process.pid), process
        finally:
            process.kill()


def requests(count: int, first: int) -> list[bytes]:
    """So many, each about a win of its own."""
    now = time.time()
    made = []
    for n in range(first, first + count):
        ticket = Ticket(
            auction_id=f"9f3c2a7b1d4e{n:x}",
            impid="1",
            campaign_id=f"campaign-{n % 1_000:06}",
            creative_id="creative-1",
            day="2026-11-22",
            instance="12345-9f3c2a7b",
            pricing=Pricing.CPM,
            price_nanos=2_010_000,
            held_nanos=2_010_000,
            won_at=now,
            expires_at=now + 3_600.0,
            user=SIGNER.user_digest(str(n)),
            destination=SIGNER.destination(LANDING),
        )
        token = SIGNER.token(ticket)
        target = f"/t/i/{token}"
        if n % 10 == 8:
            target = f"/t/c/{token}?u={quote(LANDING, safe='')}"
        elif n % 10 == 9:
            target = f"/t/v/{token}?value=19.9&currency=EUR&order={n}"
        made.append(_request(target))
    return made


async def ask(port: int, batch: list[bytes]) -> None:
    """Send all of them, CONNECTIONS at a time."""
    left = iter(batch)

    async def keep_busy() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3")):
                raise SystemExit(head.decode())
            if b"content-length: 43" in head:
                await reader.readexactly(43)
        writer.close()

    await asyncio.gather(*[keep_busy() for _ in range(CONNECTIONS)])


def rate(process: psutil.Process, port: int, batch: list[bytes]) -> float:
    """Requests a second of the process's CPU time."""
    before = process.cpu_times()
    uvloop.run(ask(port, batch))
    after = process.cpu_times()
    return len(batch) / float(after.user + after.system - before.user - before.system)


def measure(name: str, url: str, events: int, *, journal: bool = False) -> None:
    """Print the figures over one broker."""
    with TemporaryDirectory(dir=".") as folder, tracker(url, Path(folder), journal) as (port, process, child):
        uvloop.run(ask(port, requests(2_000, 0)))
        told, alone, probes = [], [], []
        for run in range(RUNS):
            probes.append(probe_ns())
            told.append(rate(process, port, requests(events, 2_000 + run * events)))
            alone.append(rate(process, port, [_request("/t/nothing")] * events))
        _pipe(child.stdin).close()
        accepted, confirmed, spooled, unsafe = _pipe(child.stdout).readline().split()
        share = median(told) / median(alone)
        click.echo(f"  {name:12} {median(told):8,.0f} events per CPU-second, {share:4.0%} of HTTP alone")
        click.echo(
            f"  {'':12} runs: {min(told):,.0f} to {max(told):,.0f}; probe {min(probes):.0f} to {max(probes):.0f} ns"
        )
        click.echo(f"  {'':12} {accepted} accepted, {confirmed} confirmed, {spooled} spooled, {unsafe} unsafe")


def _request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: track.example\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\r\n".encode()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@click.command()
@click.option("--events", default=40_000, show_default=True)
@click.option("--rabbitmq", is_flag=True, help="Through a private RabbitMQ as well.")
@click.option("--serve", "serves", is_flag=True, hidden=True)
@click.option("--url", default="", hidden=True)
@click.option("--folder", default=".", hidden=True)
@click.option("--journal", is_flag=True, hidden=True)
def main(events: int, rabbitmq: bool, serves: bool, url: str, folder: str, journal: bool) -> None:
    """Print how many tracked events a second of processor time takes in."""
    if serves:
        uvloop.run(serve(url, Path(folder), journal))
        return
    click.echo(f"{Path(__file__).name}: {events:,} events over {CONNECTIONS} connections")
    measure("embedded", "", events, journal=True)
    measure("no journal", "", events)
    if rabbitmq:
        with TemporaryDirectory() as place:
            server = RabbitServer(Path(place))
            server.start()
            try:
                measure("RabbitMQ", server.url, events)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
