"""How many rows a second the ledger takes, in a SQLite file and in a private PostgreSQL, both waiting for the disk.

    python -m benchmarks.ledger [rows] [rows a batch]

CPU seconds are those of this process; the server's come beside them. `spread` campaigns share the rows, each batch is
fenced by the epochs of those in it, and every tenth row is one that was written before.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil  # type: ignore[import-untyped]
import uvloop

from rtb.adapters.sql_ledger import SqlLedger
from rtb.lab.servers.postgres import PostgresServer
from rtb.ports import LedgerKind, LedgerRow

SPREAD = 1_000
CALIBRATION = 100_000


@dataclass(frozen=True, slots=True)
class Result:
    """Of one database."""

    name: str
    rows: int
    wall_s: float
    own_cpu_s: float
    server_cpu_s: float
    slowest_ms: float
    read_wall_s: float
    sum_wall_s: float

    def __str__(self) -> str:
        return (
            f"{self.name:10}  {self.rows / self.wall_s:9,.0f}  {self.rows / self.own_cpu_s:9,.0f}"
            f"  {self.server_cpu_s / self.rows * 1e6:9.1f}  {self.slowest_ms:9.1f}"
            f"  {self.rows / self.read_wall_s:9,.0f}  {self.sum_wall_s * 1e3:9.1f}"
        )


def batches(count: int, size: int) -> Iterator[tuple[list[LedgerRow], dict[str, int]]]:
    """Impressions as a daemon bills them, and their epochs; made beforehand, so that only `append` is timed."""
    rng = random.Random(7)
    earlier: list[LedgerRow] = []
    for start in range(0, count, size):
        rows = [_row(rng, start + n) for n in range(min(size, count - start))]
        for n in range(0, len(rows) if earlier else 0, 10):
            rows[n] = earlier[n % len(earlier)]
        earlier = rows
        yield rows, dict.fromkeys({row.campaign_id for row in rows}, 0)


def _row(rng: random.Random, number: int) -> LedgerRow:
    auction_id = str(UUID(int=rng.getrandbits(128)))
    price_nanos = rng.randrange(100_000, 9_000_000)
    return LedgerRow(
        key=f"{auction_id}:1:impression",
        kind=LedgerKind.IMPRESSION,
        campaign_id=f"campaign-{rng.randrange(SPREAD):06d}",
        day="2026-11-22",
        auction_id=auction_id,
        impid="1",
        instance="0d5c1f6a-daemon-1",
        price_nanos=price_nanos,
        charged_nanos=price_nanos,
        expires_at=1_795_305_900.0 + number / 1_000,
        received_at=1_795_305_600.0 + number / 1_000,
    )


async def measure(name: str, database: str, count: int, size: int, server: psutil.Process | None) -> Result:
    """Fill an empty ledger, then read all of it and sum it up."""
    ledger = SqlLedger(database, upgrade=True)
    await ledger.start()
    work = [*batches(count, size)]
    slowest, written = 0.0, 0
    server_before, wall, cpu = _cpu_s(server), time.perf_counter(), time.process_time()
    for rows, epochs in work:
        begin = time.perf_counter()
        written += len(rows) - len(await ledger.append(rows, epochs=epochs))
        slowest = max(slowest, time.perf_counter() - begin)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    server_cpu_s = _cpu_s(server) - server_before
    begin = time.perf_counter()
    read = sum([len(part) async for part in ledger.rows()])
    read_s = time.perf_counter() - begin
    assert read == written, f"{read} rows in the ledger, {written} written"
    begin = time.perf_counter()
    spent = await ledger.spent(since_day="2026-11-22")
    sum_s = time.perf_counter() - begin
    assert sum(spent.values()) == sum({row.key: row.charged_nanos for rows, _ in work for row in rows}.values())
    await ledger.close()
    return Result(name, count, wall, cpu, server_cpu_s, slowest * 1e3, read_s, sum_s)


def _cpu_s(server: psutil.Process | None) -> float:
    """Of the server and its children, those that ended left out."""
    if server is None:
        return 0.0
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def probe_ns() -> float:
    """How fast this machine is just now: `a & b` of two 1024-bit integers."""
    a, b = (random.Random(seed).getrandbits(1_024) for seed in (1, 2))
    start = time.process_time()
    for _ in range(CALIBRATION):
        a & b
    return (time.process_time() - start) / CALIBRATION * 1e9


def main() -> None:
    """Print a line a database."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    print(f"{count:,} rows in batches of {size:,}, every tenth known; probe {probe_ns():.0f} ns; {os.cpu_count()} CPUs")
    print("database       rows/s  per CPU-s  server us  slowest ms  read rows/s  sum ms")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = str(Path(folder) / "ledger.db")
        print(uvloop.run(measure("sqlite", path, count, size, None)), flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            process = psutil.Process(server.pid)
            print(uvloop.run(measure("postgresql", server.url, count, size, process)), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
