"""What user profiles in Redis cost an auction: CPU time of this process, and round trips; with a private Redis.

python -m benchmarks.profiles [--cached 10000] [--rate 20000]

Users come by Zipf's law, all of them known to Redis, a tenth with frequency counters. Auctions begin in bursts, one a
millisecond, as they do in a busy daemon; whoever must wait for the profile is called back, as an auction is. The cost
is the CPU time of such a run less that of the same run without profiles, the best of some passes.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import uvloop

from rtb.adapters.clock import SystemClock
from rtb.adapters.redis_state import RedisState
from rtb.adapters.sql import SqlRepository
from rtb.domain import profile
from rtb.lab.servers.redis import RedisServer
from rtb.lab.vocabulary import INTERESTS, SEGMENTS
from rtb.services.metrics import Metrics
from rtb.services.profiles import Profiles, User

BURST_S = 0.001
CHUNK = 5_000


class Bench:
    """Profiles over a private Redis."""

    def __init__(self, url: str, folder: Path, *, cached: int, gather_ms: float, seed: int = 1) -> None:
        """As a daemon has them, but with a longer wait, so that a busy machine does not spoil the figures."""
        self.clock = SystemClock()
        self.metrics = Metrics("benchmark", self.clock)
        self.state = RedisState(url, timeout_s=5.0)
        self.profiles = Profiles(
            self.state,
            SqlRepository(str(folder / "rtb.db")),
            self.clock,
            self.metrics,
            wait_s=0.1,
            cached=cached,
            fresh_s=300.0,
            ttl_s=3600.0,
            gather_s=gather_ms / 1e3,
        )
        self.random = random.Random(seed)
        self.waiting = 0
        self.rested = asyncio.Event()

    async def fill(self, users: int) -> None:
        """Write every user's profile, and the counters of a tenth."""
        for first in range(0, users, CHUNK):
            ids = [_user(rank) for rank in range(first, min(first + CHUNK, users))]
            await self.state.put_profiles({user_id: self._profile(user_id) for user_id in ids}, 3600)
            await self.state.count_impressions(
                [(user_id, f"campaign-{n}", 3600) for user_id in ids[::10] for n in (1, 2)]
            )

    def _profile(self, user_id: str) -> bytes:
        interests, segments = self.random.sample(INTERESTS, 4), self.random.sample(SEGMENTS, 3)
        return profile.encode(profile.Profile(user_id, tuple(interests), tuple(segments)))

    def look_up(self, user_id: str) -> None:
        """As an auction does."""
        if self.profiles.peek(user_id, self.clock.monotonic_ns()) is None:
            self.waiting += 1
            self.profiles.look_up(user_id, 2.0, self._found)

    def _found(self, user: User) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.rested.set()

    async def rest(self) -> None:
        """Wait until everybody is found."""
        if self.waiting:
            self.rested.clear()
            await self.rested.wait()

    def look_away(self, user_id: str) -> None:
        """As an auction of a user without an id."""
        self.clock.monotonic_ns()


async def run(auction: Callable[[str], None], users: Sequence[str], rate: int) -> float:
    """CPU seconds of this process for an auction of each of the users, at `rate` a second."""
    loop = asyncio.get_running_loop()
    begun, cpu = loop.time(), time.process_time()
    done = 0
    while done < len(users):
        due = min(int((loop.time() - begun) * rate) + 1, len(users), done + rate // 200)
        for user_id in users[done:due]:
            auction(user_id)
        done = due
        await asyncio.sleep(BURST_S)
    return time.process_time() - cpu


async def measure(url: str, folder: Path, options: dict[str, int], gather_ms: float) -> None:
    """Print the figures."""
    bench = Bench(url, folder, cached=options["cached"], gather_ms=gather_ms)
    ranks = range(options["users"])
    weights = list(accumulate(1 / (rank + 1) for rank in ranks))
    await bench.fill(options["users"])
    rate, count = options["rate"], options["rate"] * options["seconds"]
    passes = [
        [_user(r) for r in bench.random.choices(ranks, cum_weights=weights, k=count)] for _ in range(options["repeat"])
    ]
    await run(bench.look_up, [*passes[0], *passes[0]], 2 * rate)
    await bench.rest()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the daemon does
    metrics, trips = bench.metrics, bench.state.round_trips
    hits, misses, late = metrics.profile_hits, metrics.profile_misses, metrics.profile_timeouts
    costs: list[float] = []
    for users in passes[1:]:
        costs.append(await run(bench.look_up, users, rate))
        await bench.rest()
    count *= len(costs)
    trips, hits = bench.state.round_trips - trips, metrics.profile_hits - hits
    misses, late = metrics.profile_misses - misses, metrics.profile_timeouts - late
    idle = min([await run(bench.look_away, users, rate) for users in passes[1:]])
    cost = (min(costs) - idle) * len(costs)
    await bench.profiles.close()
    await bench.state.close()
    click.echo(f"  found in the process        {hits / count:8.1%}")
    click.echo(f"  looked up                   {misses / count:8.1%}")
    click.echo(f"  without profile             {late / count:8.1%}")
    click.echo(f"  CPU an auction              {cost / count * 1e6:8.2f} us")
    click.echo(f"  CPU a lookup                {cost / misses * 1e6:8.2f} us, the hits' share included")
    click.echo(f"  round trips an auction      {trips / count:8.4f}, one for {misses / trips:.1f} lookups")


def _user(rank: int) -> str:
    return f"user-{rank:07d}-4f3a9c"


@click.command()
@click.option("--users", default=100_000, show_default=True, help="Known to Redis.")
@click.option("--cached", default=10_000, show_default=True, help="Kept in the process.")
@click.option("--rate", default=20_000, show_default=True, help="Auctions a second.")
@click.option("--seconds", default=2, show_default=True, help="Length of a pass.")
@click.option(
    "--repeat", default=6, show_default=True, help="Passes; the first warms up, the best of the others counts."
)
@click.option("--gather-ms", default=2.0, show_default=True, help="How long a lookup waits for others.")
def main(gather_ms: float, **options: int) -> None:
    """Print what profiles in Redis cost an auction."""
    click.echo(f"profiles.py: {options['users']:,} users, {options['cached']:,} kept, {options['rate']:,} auctions/s")
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            uvloop.run(measure(server.url, Path(folder), options, gather_ms))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
