"""Messages per CPU-second through the in-process broker: published, delivered to a consumer, acknowledged.

python -m benchmarks.memory_broker [messages]
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.ports import Binding, Delivery, ExchangeType, Message, QueueSpec, Topology

PREFETCH = 1_000


async def run(count: int, *, exchange: str, routing_key: str, ttl_ms: int | None) -> float:
    """CPU seconds for `count` messages of 1 KiB through one queue."""
    broker = MemoryBroker(SystemClock())
    await broker.start()
    await broker.declare(
        Topology(
            exchanges={"events": ExchangeType.TOPIC},
            queues=[QueueSpec("work", ttl_ms=ttl_ms, max_length=100_000)],
            bindings=[Binding("events", "work", "event.*")],
        )
    )
    done = asyncio.Event()
    left = count

    def handle(delivery: Delivery) -> None:
        nonlocal left
        delivery.ack()
        left -= 1
        if not left:
            done.set()

    await broker.consume("work", handle, prefetch=PREFETCH)
    body = bytes(1024)
    start = time.process_time()
    for _ in range(count):
        await broker.publish(exchange, routing_key, Message(body=body, message_id="id", timestamp=1.0))
    await done.wait()
    spent = time.process_time() - start
    await broker.close()
    return spent


def main() -> None:
    """Print one line per case, the best of three runs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    cases: list[tuple[str, str, str, int | None]] = [
        ("default exchange", "", "work", None),
        ("topic exchange", "events", "event.click", None),
        ("topic exchange, TTL", "events", "event.click", 120_000),
    ]
    for name, exchange, key, ttl_ms in cases:
        best = min(uvloop.run(run(count, exchange=exchange, routing_key=key, ttl_ms=ttl_ms)) for _ in range(3))
        print(f"{name:22} {count / best:10,.0f} messages per CPU-second")


if __name__ == "__main__":
    main()
