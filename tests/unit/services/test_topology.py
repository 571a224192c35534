"""rtb.services.topology: one table, everything in it connected."""

from __future__ import annotations

import asyncio

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.messages import MessageType
from rtb.ports import DEATH_REASON, Binding, Delivery, ExchangeType, Message, Overflow
from rtb.services import topology as table


async def declared(clock: ManualClock | None = None) -> MemoryBroker:
    """A broker with the topology."""
    broker = MemoryBroker(clock or ManualClock())
    await broker.start()
    await broker.declare(table.topology())
    return broker


WHERE = {
    MessageType.BID_REQUEST: ["bid.requests"],
    MessageType.BID_RESPONSE: ["bid.responses"],
    MessageType.IMPRESSION: ["ad.impressions"],
    MessageType.CLICK: ["ad.clicks"],
    MessageType.CONVERSION: ["ad.conversions"],
    MessageType.WIN: ["ad.wins"],
    MessageType.LOSS: ["ad.losses"],
    MessageType.CAMPAIGN_UPDATE: ["campaign.updates"],
    MessageType.PERFORMANCE_UPDATE: ["campaign.updates"],
    MessageType.BUDGET_ALERT: ["budget.alerts", "alerts.all"],
    MessageType.RULE_ALERT: ["alerts.all"],
}


@pytest.mark.parametrize("message_type", WHERE)
async def test_every_message_type_reaches_its_queues(message_type: MessageType) -> None:
    """A mandatory publish by the table's route is never unroutable, and goes nowhere else."""
    broker = await declared()
    await broker.publish(*table.ROUTES[message_type], Message(body=b"1"))
    names = [queue.name for queue in table.topology().queues]
    reached = [name for name in names if (await broker.depth(name)).ready]
    assert sorted(reached) == sorted(WHERE[message_type])
    await broker.close()


def test_every_message_type_has_a_route() -> None:
    """All but the result, which goes to its requester, frames, which go to who listens, and notices."""
    unrouted = {MessageType.AUCTION_RESULT, MessageType.METRICS_FRAME, MessageType.BIDDER_NOTICE}
    assert set(table.ROUTES) == set(MessageType) - unrouted == set(WHERE)


@pytest.mark.parametrize("key", ["alert.rule", "alert.anomaly"])
async def test_every_alert_has_a_queue(key: str) -> None:
    """Alerts without a message type of their own are routed as well."""
    broker = await declared()
    await broker.publish(table.ALERTS, key, Message(body=b"1"))
    assert (await broker.depth("alerts.all")).ready == 1
    await broker.close()


def test_the_exchanges_have_their_types() -> None:
    """As written down in the messaging design."""
    kinds = table.topology().exchanges
    assert {name: kinds[name] for name in kinds if not name.startswith("ad.retry.")} == {
        "ad.bidding": ExchangeType.DIRECT,
        "ad.events": ExchangeType.TOPIC,
        "ad.campaigns": ExchangeType.FANOUT,
        "ad.alerts": ExchangeType.DIRECT,
        "ad.dlx": ExchangeType.TOPIC,
    }


def test_money_is_never_dropped_and_bids_expire() -> None:
    """Queues of money or state refuse the publisher when full and dead-letter; bid queues expire after 120 s."""
    queues = {queue.name: queue for queue in table.topology().queues}
    for name in ("ad.impressions", "ad.clicks", "ad.conversions", "ad.wins", "campaign.updates", "budget.alerts"):
        spec = queues[name]
        assert (spec.overflow, spec.delivery_limit, spec.ttl_ms) == (Overflow.REJECT_PUBLISH, 20, None)
        assert (spec.dead_letter_exchange, spec.dead_letter_routing_key) == ("ad.dlx", name)
    for name in ("bid.requests", "bid.responses"):
        spec = queues[name]
        assert (spec.ttl_ms, spec.overflow, spec.dead_letter_exchange) == (120_000, Overflow.DROP_HEAD, None)
    for name in ("ad.retry.1", "ad.retry.2", "ad.retry.3"):
        spec = queues[name]
        assert (spec.overflow, spec.delivery_limit, spec.dead_letter_exchange) == (Overflow.REJECT_PUBLISH, 20, "")
    assert [name for name, spec in queues.items() if spec.max_length is None] == []


async def test_what_is_missing_is_named() -> None:
    """On an empty broker everything is missing, one line each; where it is declared, nothing."""
    broker = MemoryBroker(ManualClock())
    await broker.start()
    made = table.topology()
    assert len(await table.check(broker)) == len(made.exchanges) + len(made.queues)
    await broker.declare(made)
    assert await table.check(broker) == []
    await broker.close()


def test_the_topology_can_be_printed() -> None:
    """One object a line, with what matters about it."""
    lines = table.describe(table.topology()).split("\n")
    assert "exchange  ad.events  topic" in lines
    assert "queue     bid.requests  classic; ttl 120000 ms; at most 100000 messages, then oldest dropped" in lines
    clicks = "quorum, delivery limit 20; at most 500000 messages, then publishers refused"
    assert f"queue     ad.clicks  {clicks}; dead letters to ad.dlx/ad.clicks" in lines
    assert "binding   ad.events -> ad.clicks  event.click" in lines
    assert "binding   ad.campaigns -> campaign.updates" in lines


async def test_a_dead_letter_is_found_under_its_queue() -> None:
    """A rejected event stands in ad.dead with the queue it died in as routing key."""
    broker = await declared()
    dead: asyncio.Queue[Delivery] = asyncio.Queue()
    await broker.consume("ad.dead", dead.put_nowait, prefetch=1)
    await broker.consume("ad.clicks", lambda delivery: delivery.nack(requeue=False), prefetch=1)
    await broker.publish(*table.ROUTES[MessageType.CLICK], Message(body=b"1"))
    delivery = await dead.get()
    assert (delivery.routing_key, delivery.message.headers[DEATH_REASON]) == ("ad.clicks", "rejected")
    await broker.close()


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 1), (2, 5), (3, 25)])
async def test_a_retry_comes_back_to_its_queue_after_its_delay(attempt: int, delay_s: int) -> None:
    """What is published to a retry exchange with a queue as key stands in that queue once the delay is over."""
    clock = ManualClock()
    broker = await declared(clock)
    await broker.publish(table.retry_exchange(attempt), "ad.clicks", Message(body=b"1"))
    clock.advance(delay_s - 0.001)
    assert (await broker.depth("ad.clicks")).ready == 0
    clock.advance(0.001)
    assert (await broker.depth("ad.clicks")).ready == 1
    await broker.close()


async def test_every_daemon_sees_every_update() -> None:
    """The instance queues of two daemons and the durable queue each get a copy; they end with their connections."""
    broker = await declared()
    peer = broker.peer()
    await peer.start()
    await broker.declare(table.instance_topology("one"))
    await peer.declare(table.instance_topology("two"))
    await broker.publish(*table.ROUTES[MessageType.CAMPAIGN_UPDATE], Message(body=b"1"))
    assert (await broker.depth(table.instance_queue("one"))).ready == 1
    assert (await peer.depth(table.instance_queue("two"))).ready == 1
    assert (await peer.depth("campaign.updates")).ready == 1
    await broker.close()
    await peer.close()


def test_bindings_name_what_is_declared() -> None:
    """The table is closed: no binding to an exchange or queue it does not declare, no queue left unbound."""
    made = table.topology()
    queues = {queue.name for queue in made.queues}
    bound: set[Binding] = set(made.bindings)
    assert {binding.exchange for binding in bound} == set(made.exchanges)
    assert {binding.queue for binding in bound} == queues
