"""How much notices delay auctions: the same auctions with and without them, in turns.

python -m benchmarks.notices [--rate 500] [--bidders 4]

Each bidder bids on every imp and wants a notice of each win and loss; they go to a server in a process of its own. The
clock is this thread's CPU time, for a busy machine changes it little: auctions are due at random, `rate` a second of it
(the same moments on both sides), the loop spins in between, and the latency of an auction is the CPU time from when it
was due to its outcome.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import cast

import click
import uvloop
from msgspec import Struct

from rtb import openrtb, wiring
from rtb.adapters.clock import SystemClock
from rtb.adapters.lean_http import LeanHttp
from rtb.config import Settings, Store
from rtb.domain.auction import Bid
from rtb.domain.histogram import Histogram
from rtb.domain.intake import RemoteBid
from rtb.errors import HttpError
from rtb.lab import catalogue
from rtb.lab.traffic import Traffic
from rtb.ports import OpenAuction
from rtb.services.admission import Admission
from rtb.services.exchange import Exchange, Rules
from rtb.services.notice_sender import NoticeSender
from rtb.services.notices import Notices

SINK = "--sink"


class Remote:
    """A bidder that answers at once, with all three notices."""

    secondary = False

    def __init__(self, number: int, url: str) -> None:
        """Bid as the `number`-th of its kind, to be told at `url`."""
        self.name = f"dsp-{number}"
        macros = "id=${AUCTION_ID}&price=${AUCTION_PRICE}&loss=${AUCTION_LOSS}&min=${AUCTION_MIN_TO_WIN}"
        self._wire = openrtb.Bid(
            id=self.name,
            adm="<b>ad</b>",
            nurl=f"{url}/{self.name}/win?{macros}",
            burl=f"{url}/{self.name}/bill?{macros}",
            lurl=f"{url}/{self.name}/loss?{macros}",
        )
        self._price_micros = 40_000_000 + number

    def bid(self, auction: OpenAuction) -> None:
        """Bid on every imp."""
        bids = [
            RemoteBid(
                impid=terms.impid,
                seat=self.name,
                price_micros=self._price_micros,
                bidder=self.name,
                content=self._wire,
                currency="USD",
            )
            for terms in auction.terms
        ]
        auction.report(self, bids)

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Its money is its own."""
        return True


class Sink(asyncio.Protocol):
    """Answers every request with 204."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer; a client sends whole requests."""
        self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n" * data.count(b"\r\n\r\n"))


class Side(Struct):
    """What was measured with or without notices, in each round."""

    exchange: Exchange
    rounds: list[Histogram] = []

    def milliseconds(self, percentile: float) -> list[float]:
        """A percentile in each round, and over all of them last."""
        together = Histogram()
        for latency in self.rounds:
            together.add(latency)
        return [latency.percentile(percentile) / 1e6 for latency in (*self.rounds, together)]


async def sink() -> None:
    """The server of the bidders; it ends with the process that started it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0)
    click.echo(server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)


async def drive(side: Side, requests: Sequence[openrtb.BidRequest], rate: float) -> None:
    """One auction after the other, each when it is due or the one before has ended."""
    loop = asyncio.get_running_loop()
    side.rounds.append(latency := Histogram())
    finished: asyncio.Future[None] = loop.create_future()
    gaps = Random(1)
    due_ns = time.thread_time_ns()
    left = iter(requests)

    def step() -> None:
        nonlocal due_ns
        if time.thread_time_ns() >= due_ns:
            request = next(left, None)
            if request is None:
                finished.set_result(None)
                return
            side.exchange.begin(request, time.monotonic_ns())
            latency.record(time.thread_time_ns() - due_ns)
            due_ns += round(gaps.expovariate(rate) * 1e9)
        loop.call_soon(step)

    step()
    await finished


async def measure(port: int, campaigns: int, bidders: int, rate: float, rounds: int) -> None:
    """Print a row for each side."""
    with TemporaryDirectory() as folder:
        system = wiring.build(Settings(store=Store(url=f"sqlite:///{folder}/rtb.db")), os.getpid())
        system.house.load(catalogue.campaigns(campaigns))
        remotes = [Remote(number, f"http://127.0.0.1:{port}") for number in range(bidders)]
        admission = Admission(deadline_ms=100, network_margin_ms=10, minimum_ms=1, max_in_flight=512)

        def exchange() -> Exchange:
            parts = (system.profiles, admission, system.metrics, system.clock)
            return Exchange([system.house, *remotes], *parts, rates=system.rates, rules=Rules())

        http = LeanHttp(allow=["127.0.0.1"])
        sender = NoticeSender(http, SystemClock())
        off, on = Side(exchange()), Side(exchange())
        on.exchange.listen(Notices(sender, system.clock, system.rates).auction_closed)
        traffic = Traffic(1)
        requests = [openrtb.decode_request(traffic.body(1024)) for _ in range(round(2 * rate))]
        for request in requests:  # no user to look up: every auction ends at once
            request.user = None
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as the daemon does
        for number in range(rounds + 1):
            for side in (off, on):
                await drive(side, requests, rate)
                await sender.quiet()
                if number == 0:  # to warm up
                    side.rounds.clear()
        report(off, on, sender)
        await price(http, f"http://127.0.0.1:{port}/win?price=0.91&id=1")
        await sender.stop(1)
        await http.close()
        await system.profiles.close()
        await system.outside.repository.close()


def report(off: Side, on: Side, sender: NoticeSender) -> None:
    """Print what was measured."""
    for name, side in (("without", off), ("with", on)):
        each = "  ".join(f"p{q:g} {side.milliseconds(q)[-1]:.3f}" for q in (50, 90, 99, 99.9))
        rounds = " ".join(f"{ms:.2f}" for ms in side.milliseconds(99)[:-1])
        click.echo(f"  {name:8} {each} ms; p99 of the rounds {rounds}")
    for kind, tally in sender.tallies.items():
        click.echo(f"  {kind:8} {tally}")


async def price(http: LeanHttp, url: str, count: int = 2_000, at_once: int = 8) -> None:
    """Print what one request of the client costs."""
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = count

    def answered(status: int, error: HttpError | None) -> None:
        nonlocal left
        left -= 1
        if left >= at_once:
            http.get(url, answered)
        elif not left:
            finished.set_result(None)

    begun_s = time.process_time()
    for _ in range(at_once):
        http.get(url, answered)
    await finished
    click.echo(f"  the client alone: {(time.process_time() - begun_s) / count * 1e6:.0f} us a request")


@click.command()
@click.option("--campaigns", default=10_000, show_default=True)
@click.option("--bidders", default=4, show_default=True, help="Each gets a notice of every imp.")
@click.option("--rate", default=500.0, show_default=True, help="Auctions a second of CPU.")
@click.option("--rounds", default=4, show_default=True, help="Of two seconds on each side.")
@click.option(SINK, "is_sink", is_flag=True, hidden=True)
def main(campaigns: int, bidders: int, rate: float, rounds: int, is_sink: bool) -> None:
    """Print the latency of auctions with and without notices."""
    if is_sink:
        uvloop.run(sink())
        return
    command = [sys.executable, "-m", "benchmarks.notices", SINK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        click.echo(f"{Path(__file__).name}: {campaigns:,} campaigns, {bidders} bidders, {rate:.0f} auctions/s")
        uvloop.run(measure(port, campaigns, bidders, rate, rounds))
        process.communicate()


if __name__ == "__main__":
    main()
