"""Messages per CPU-second through the in-process broker: sent, delivered to a consumer, acknowledged.

python -m benchmarks.memory_broker [messages]

With the journal each message is durable before it is confirmed; its CPU time includes the thread that writes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.errors import BrokerError
from rtb.ports import Binding, Delivery, ExchangeType, Message, QueueSpec, Topology

PREFETCH = 1_000
BURST = 100
"""Messages sent in one step of the loop."""


async def run(
    count: int,
    *,
    exchange: str = "events",
    routing_key: str = "event.click",
    ttl_ms: int | None = None,
    journal: Path | None = None,
    rate: int | None = None,
) -> float:
    """CPU seconds for `count` messages of 1 KiB through one queue, as fast as it goes or `rate` a second."""
    broker = MemoryBroker(SystemClock(), journal=journal)
    await broker.start()
    await broker.declare(
        Topology(
            exchanges={"events": ExchangeType.TOPIC},
            queues=[QueueSpec("work", ttl_ms=ttl_ms, max_length=1_000_000)],
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

    def confirmed(error: BrokerError | None) -> None:
        assert error is None

    await broker.consume("work", handle, prefetch=PREFETCH)
    body = bytes(1024)
    start, loop = time.process_time(), asyncio.get_running_loop()
    begun_s, sent = loop.time(), 0
    while sent < count:
        burst = BURST if rate is None else min(int((loop.time() - begun_s) * rate) + 1, count) - sent
        for _ in range(burst):
            broker.send(exchange, routing_key, Message(body=body, message_id="id", timestamp=1.0), confirmed)
        sent += burst
        await asyncio.sleep(0 if rate is None else 0.001)
    await done.wait()
    spent = time.process_time() - start
    await broker.close()
    return spent


def main() -> None:
    """Print one line per case, the best of three runs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000

    def show(name: str, messages: int, spent_s: list[float]) -> None:
        best = min(spent_s)
        print(f"{name:34} {messages / best:10,.0f} messages per CPU-second, {best / messages * 1e6:5.1f} us each")

    def measure(name: str, messages: int, *, exchange: str, routing_key: str, ttl_ms: int | None = None) -> None:
        case = {"exchange": exchange, "routing_key": routing_key, "ttl_ms": ttl_ms}
        show(name, messages, [uvloop.run(run(messages, **case)) for _ in range(3)])  # type: ignore[arg-type]

    measure("default exchange", count, exchange="", routing_key="work")
    measure("topic exchange", count, exchange="events", routing_key="event.click")
    measure("topic exchange, TTL", count, exchange="events", routing_key="event.click", ttl_ms=120_000)
    with TemporaryDirectory(prefix="rtb-bench-") as folder:
        for rate, messages in ((None, count // 4), (10_000, 20_000), (1_000, 3_000)):
            name = "topic exchange, journal" + ("" if rate is None else f", {rate:,}/s")
            spent = [uvloop.run(run(messages, journal=Path(folder), rate=rate)) for _ in range(3)]
            idle = [uvloop.run(run(messages, rate=rate)) for _ in range(3)] if rate else []
            show(name, messages, spent)
            if idle:
                show("the same without journal", messages, idle)


if __name__ == "__main__":
    main()
