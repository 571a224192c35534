"""How long the catalogue takes to load from a SQLite file, and what it weighs.

    python -m benchmarks.catalogue_load [campaigns] [file]

A file that is not there is made first, from the lab's campaigns with creatives of their own.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from msgspec.structs import replace

from rtb.adapters.sql import SqlRepository
from rtb.domain.campaign import Campaign
from rtb.lab.catalogue import campaigns

PART = 20_000


def generated(count: int) -> Iterator[Campaign]:
    """The lab's campaigns, each with creatives of its own, as advertisers have them."""
    for campaign in campaigns(count):
        own = f"{campaign.adomain[0]}/{campaign.id}"
        creatives = tuple(
            replace(
                creative,
                id=f"{campaign.id}-{creative.id}",
                image_url=f"https://cdn.{own}/{creative.id}.jpg",
                landing_page=f"https://www.{own}?creative={creative.id}",
            )
            for creative in campaign.creatives
        )
        yield replace(campaign, creatives=creatives)


async def write(path: Path, count: int) -> float:
    """Fill the file; seconds spent in the repository."""
    repository = SqlRepository(str(path))
    await repository.start()
    source, spent = generated(count), 0.0
    while part := list(islice(source, PART)):
        start = time.perf_counter()
        await repository.put_campaigns(part)
        spent += time.perf_counter() - start
    await repository.close()
    return spent


async def read(path: Path) -> tuple[list[Campaign], float, float]:
    """Every campaign, wall seconds and CPU seconds."""
    repository = SqlRepository(str(path))
    await repository.start()
    gc.disable()  # as the daemon does while it loads
    start, start_cpu = time.perf_counter(), time.process_time()
    loaded = [campaign async for part in repository.campaigns() for campaign in part]
    taken = time.perf_counter() - start, time.process_time() - start_cpu
    await repository.close()
    return loaded, *taken


def main() -> None:
    """Print what writing and loading took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[2] if len(sys.argv) > 2 else f"{folder}/catalogue.db")
        if not path.exists():
            print(f"written: {count:,} campaigns in {asyncio.run(write(path, count)):.1f} s")
        process = psutil.Process()
        before = process.memory_info().rss
        loaded, wall_s, cpu_s = asyncio.run(read(path))
        resident = process.memory_info().rss
    print(f"loaded:  {len(loaded):,} campaigns in {wall_s:.1f} s ({cpu_s:.1f} s CPU)")
    each = (resident - before) / max(len(loaded), 1)
    print(f"memory:  {resident / 2**20:,.0f} MiB resident, {each:,.0f} bytes a campaign")


if __name__ == "__main__":
    main()
