"""Bidders in a process of their own, and auctions among them in this one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import aiohttp

from benchmarks.fanout.client import LOCAL, post
from benchmarks.fanout.figures import DEADLINE_MS, Figures
from benchmarks.fanout.loops import Done, Work, closed_loop
from benchmarks.prepared_dsps import requests
from rtb import openrtb, wiring
from rtb.adapters.clock import SystemClock
from rtb.adapters.coroutine_bidder import CoroutineBidder
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.breaker import BreakerPolicy
from rtb.edges.together import MOST, Together, auctioning
from rtb.openrtb import BidRequest, BidResponse
from rtb.ports import Bidder
from rtb.services.admission import Admission
from rtb.services.answers import encoded
from rtb.services.exchange import Auction, Exchange, Rules
from rtb.wiring.bidders import RemoteBidders

MARGIN_MS = 10
"""The way back to the SSP, as a daemon keeps it: an auction is settled that much before the deadline."""
NEVER_OPEN = BreakerPolicy(calls=1_000_000_000)


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


def aiohttp_bidder(name: str, url: str, session: aiohttp.ClientSession, system: wiring.System) -> Bidder:
    """A bidder that awaits aiohttp's client."""

    async def respond(request: BidRequest) -> BidResponse:
        return openrtb.decode_response(await post(session, url, openrtb.encode(request)))

    return CoroutineBidder(name, respond, system.clock, system.rates)
