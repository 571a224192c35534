"""What becomes of messages that cannot be handled: buried, tried again, waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.edges import failure
from rtb.edges.failure import ATTEMPT, QUEUE, Failures, attempts, outlast
from rtb.errors import BrokerError, InvalidCampaign, Malformed, NotFound, StoreError, Transient
from rtb.ports import ERROR, Message
from rtb.services import topology
from rtb.services.metrics import Metrics
from tests.contract.brokers import Inbox

QUEUE_NAME = topology.CAMPAIGN_UPDATES


class Bench:
    """A broker on a clock that is set by hand, a message in hand, and the dead letters."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(self.clock)
        self.metrics = Metrics("test", self.clock)
        self.failures = Failures(self.broker, self.metrics)
        self.inbox = Inbox(ack=False)
        self.dead = Inbox()

    async def start(self) -> Bench:
        await self.broker.start()
        await self.broker.declare(topology.topology())
        await self.inbox.open(self.broker, QUEUE_NAME)
        await self.dead.open(self.broker, topology.DEAD)
        return self

    async def send(self, **fields: object) -> None:
        message = Message(body=b"{}", message_id="m", correlation_id="c", headers={"mine": 1}, **fields)  # type: ignore[arg-type]
        await self.broker.publish(topology.CAMPAIGNS, "", message)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = await Bench().start()
    yield made
    await made.broker.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits end in the loop's next step."""
    monkeypatch.setattr(failure, "FIRST_WAIT_S", 0.0)


@pytest.mark.parametrize("error", [Malformed("a:\n  bad"), InvalidCampaign("a: bad"), NotFound("a: bad")])
async def test_what_no_repetition_heals_is_buried(bench: Bench, error: Exception) -> None:
    """At once, with the reason on one line, the queue it came from and all it carried; then it is acknowledged."""
    await bench.send(expiration_ms=60_000)
    await bench.failures.settle(await bench.inbox.next(), error)
    dead = (await bench.dead.next()).message
    assert dead.headers == {"mine": 1, ERROR: "a: bad", QUEUE: QUEUE_NAME}
    assert (dead.body, dead.message_id, dead.correlation_id, dead.expiration_ms) == (b"{}", "m", "c", None)
    assert (await bench.broker.depth(QUEUE_NAME)).unacked == 0
    assert (bench.metrics.dead_lettered, bench.metrics.message_errors, bench.metrics.retried) == (1, 0, 0)


async def test_a_mistake_of_ours_is_buried_with_its_error(bench: Bench) -> None:
    """And counted."""
    await bench.send()
    await bench.failures.settle(await bench.inbox.next(), ZeroDivisionError("oh"))
    assert (await bench.dead.next()).message.headers[ERROR] == "ZeroDivisionError: oh"
    assert bench.metrics.message_errors == 1


async def test_three_retries_with_growing_delay(bench: Bench) -> None:
    """1, 5 and 25 seconds later it is there again, counted in a header; the fourth failure is the last."""
    await bench.send()
    for attempt, delay_ms in enumerate(topology.RETRY_DELAYS_MS, 1):
        delivery = await bench.inbox.next()
        assert attempts(delivery.message) == attempt - 1
        await bench.failures.settle(delivery, Transient("not yet"))
        assert (await bench.broker.depth(QUEUE_NAME)).ready == 0
        bench.clock.advance(delay_ms / 1e3)
    delivery = await bench.inbox.next()
    assert attempts(delivery.message) == 3
    await bench.failures.settle(delivery, Transient("not yet"))
    assert (await bench.dead.next()).message.headers[ERROR] == "not yet (given up after 3 retries)"
    assert (bench.metrics.retried, bench.metrics.dead_lettered) == (3, 1)
    assert (await bench.broker.depth(QUEUE_NAME)).unacked == 0


@pytest.mark.parametrize("value", [-1, 4, 1.5, "x"])
async def test_a_forged_attempt_is_the_last(bench: Bench, value: float | str) -> None:
    """A header that makes no sense cannot keep a message circling."""
    assert attempts(Message(body=b"", headers={ATTEMPT: value})) == 3


async def test_an_outage_is_outlasted() -> None:
    """The work is called again until the store is back, whatever number of times."""
    left = 10

    async def work() -> str:
        nonlocal left
        left -= 1
        if left:
            raise StoreError("away")
        return "done"

    async def reachable() -> None:
        raise StoreError("away")

    assert await outlast(work, "store", reachable=reachable) == "done"


async def test_a_store_that_is_there_and_refuses_is_no_outage() -> None:
    """One message's own fault must not stop the queue: it becomes a retry."""
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        raise StoreError("numeric value out of range")

    async def reachable() -> None:
        return

    with pytest.raises(Transient, match="out of range"):
        await outlast(work, "store", reachable=reachable)
    assert calls == 2


async def test_a_burial_waits_for_the_broker(bench: Bench) -> None:
    """While the dead-letter exchange cannot be reached the delivery stays unacknowledged."""
    await bench.send()
    delivery = await bench.inbox.next()
    publish, tried = bench.broker.publish, asyncio.Event()

    async def refuse(*args: object, **kwargs: object) -> None:
        tried.set()
        raise BrokerError("away")

    bench.broker.publish = refuse  # type: ignore[method-assign,assignment]
    settling = asyncio.ensure_future(bench.failures.settle(delivery, Malformed("bad")))
    await tried.wait()
    assert (await bench.broker.depth(QUEUE_NAME)).unacked == 1
    bench.broker.publish = publish  # type: ignore[method-assign]
    await settling
    assert (await bench.dead.next()).message.headers[ERROR] == "bad"
