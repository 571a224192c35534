"""What an auction costs, stage by stage, in one process and without a socket; figures are CPU time of this thread.

python benchmarks/auction.py [--campaigns 10000] [--body 1k|3.5k]
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import click
import uvloop

from rtb import openrtb, wiring
from rtb.config import Settings, Store
from rtb.domain import facts, profile
from rtb.domain.terms import Terms, terms_of
from rtb.lab import catalogue
from rtb.lab.traffic import Traffic
from rtb.openrtb import BidRequest
from rtb.services.answers import bid_response
from rtb.services.exchange import Auction, Outcome

SIZES = {"1k": 1024, "3.5k": 3584}
T = TypeVar("T")


def timed(work: Callable[[T], object], items: Sequence[T], repeat: int) -> float:
    """Microseconds of thread CPU time an item, the best of `repeat` passes."""
    best = float("inf")
    for _ in range(repeat):
        begun = time.thread_time_ns()
        for item in items:
            work(item)
        best = min(best, (time.thread_time_ns() - begun) / len(items) / 1000)
    return best


async def measure(campaigns: int, body: str, count: int, repeat: int) -> list[tuple[str, float]]:
    """(stage, microseconds) for auctions among generated campaigns, every user known."""
    with TemporaryDirectory() as folder:
        system = wiring.build(Settings(store=Store(url=f"sqlite:///{folder}/rtb.db")), os.getpid())
        system.house.load(catalogue.campaigns(campaigns))
        gc.collect()
        gc.freeze()
        await system.outside.repository.start()
        traffic = Traffic(1)
        bodies = [traffic.body(SIZES[body]) for _ in range(count)]
        requests = [openrtb.decode_request(item) for item in bodies]
        await system.outside.repository.put_profiles([profile.Profile(traffic.user(rank).id) for rank in range(1000)])
        clock, exchange, house, rates = system.clock, system.exchange, system.house, system.rates
        for request in requests:
            await exchange.run(request, clock.monotonic_ns())

        def begin(request: BidRequest) -> Auction:
            return exchange.begin(request, clock.monotonic_ns())

        def context(request: BidRequest) -> facts.Context:
            return facts.context(request, None, now=clock.time())

        def placements(request: BidRequest) -> list[facts.Placement]:
            return [facts.placement(imp, rates) for imp in request.imp or ()]

        def terms(request: BidRequest) -> list[Terms]:
            return [terms_of(request, imp, rates) for imp in request.imp or ()]

        def match(pair: tuple[facts.Context, list[facts.Placement]]) -> None:
            for placement in pair[1]:
                house.index.match(pair[0], placement)

        def answer(pair: tuple[BidRequest, Outcome]) -> bytes:
            return openrtb.encode(bid_response(pair[0], pair[1], rates))

        outcomes = [(request, outcome) for request in requests if (outcome := begin(request).outcome) is not None]
        pairs = [(context(request), placements(request)) for request in requests]
        rows = [
            ("decode and validate", timed(openrtb.decode_request, bodies, repeat)),
            ("facts: context", timed(context, requests, repeat)),
            ("facts: placements", timed(placements, requests, repeat)),
            ("terms", timed(terms, requests, repeat)),
            ("match", timed(match, pairs, repeat)),
            ("auction, all of the above but decode", timed(begin, requests, repeat)),
            ("answer and encode", timed(answer, outcomes, repeat)),
        ]
        await system.profiles.close()
        await system.outside.repository.close()
        return rows


@click.command()
@click.option("--campaigns", default=10_000, show_default=True)
@click.option("--body", type=click.Choice(list(SIZES)), default="1k", show_default=True)
@click.option("--count", default=2000, show_default=True, help="Requests a pass.")
@click.option("--repeat", default=5, show_default=True, help="Passes; the best counts.")
def main(campaigns: int, body: str, count: int, repeat: int) -> None:
    """Print the cost of each stage of an auction in CPU microseconds."""
    click.echo(f"{Path(__file__).name}: {campaigns:,} campaigns, bodies of {body}")
    for stage, cost in uvloop.run(measure(campaigns, body, count, repeat)):
        click.echo(f"  {stage:40} {cost:7.2f} us")


if __name__ == "__main__":
    main()
