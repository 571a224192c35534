"""The messaging topology as one table: what is published where, who gets it, and what becomes of the dead.

Every routing key has a bound queue, so that a mandatory publish that comes back means something. Three kinds of queue:

* perishable (bid requests and responses): expire after 120 s, oldest dropped first, never dead-lettered;
* money and state: delivery limit 20 (more than crashes alone use up), dead letters to ``ad.dlx``, and a publisher is
  refused, not a message lost, when the queue is full;
* informational (losses, all alerts): the newest INFO_LENGTH, because nobody has to consume them.

A retry queue holds a message for its delay and hands it back to the queue named by its routing key; it is as safe as
the queues of money that it serves.
"""

from __future__ import annotations

from collections.abc import Sequence

from rtb.messages import MessageType
from rtb.ports import Binding, Broker, ExchangeType, Overflow, QueueSpec, Topology

BIDDING = "ad.bidding"
EVENTS = "ad.events"
CAMPAIGNS = "ad.campaigns"
ALERTS = "ad.alerts"
METRICS = "ad.metrics"
DEAD_LETTERS = "ad.dlx"

BID_REQUESTS = "bid.requests"
BID_RESPONSES = "bid.responses"
IMPRESSIONS = "ad.impressions"
CLICKS = "ad.clicks"
CONVERSIONS = "ad.conversions"
WINS = "ad.wins"
LOSSES = "ad.losses"
CAMPAIGN_UPDATES = "campaign.updates"
BUDGET_ALERTS = "budget.alerts"
ALL_ALERTS = "alerts.all"
DEAD = "ad.dead"

BID_TTL_MS = 120_000
BID_LENGTH = 100_000
MONEY_LENGTH = 500_000
INFO_LENGTH = 10_000
DELIVERY_LIMIT = 20

RETRY_DELAYS_MS = (1_000, 5_000, 25_000)
"""How long the first, second and third retry of a message wait."""

FRAME = "metrics.frame"
FRAME_TTL_MS = 5_000
FRAME_LENGTH = 2_000

ALERT_RULE = "alert.rule"
ALERT_ANOMALY = "alert.anomaly"

ROUTES: dict[MessageType, tuple[str, str]] = {
    MessageType.BID_REQUEST: (BIDDING, "bid.request"),
    MessageType.BID_RESPONSE: (BIDDING, "bid.response"),
    MessageType.IMPRESSION: (EVENTS, "event.impression"),
    MessageType.CLICK: (EVENTS, "event.click"),
    MessageType.CONVERSION: (EVENTS, "event.conversion"),
    MessageType.WIN: (EVENTS, "event.win"),
    MessageType.LOSS: (EVENTS, "event.loss"),
    MessageType.CAMPAIGN_UPDATE: (CAMPAIGNS, "campaign.update"),
    MessageType.PERFORMANCE_UPDATE: (CAMPAIGNS, "campaign.performance"),
    MessageType.BUDGET_ALERT: (ALERTS, "alert.budget"),
    MessageType.RULE_ALERT: (ALERTS, ALERT_RULE),
}
"""Exchange and routing key of a message type that somebody must get; an auction_result goes to its requester, not
through an exchange, and a metrics_frame to whoever listens on METRICS."""


def retry_exchange(attempt: int) -> str:
    """Where attempt 1, 2 or 3 of a message is published, with the queue that it shall come back to as routing key."""
    return f"ad.retry.{attempt}"


def topology() -> Topology:
    """What every daemon declares at its start."""
    retries = [(retry_exchange(n), delay_ms) for n, delay_ms in enumerate(RETRY_DELAYS_MS, 1)]
    return Topology(
        exchanges={
            BIDDING: ExchangeType.DIRECT,
            EVENTS: ExchangeType.TOPIC,
            CAMPAIGNS: ExchangeType.FANOUT,
            ALERTS: ExchangeType.DIRECT,
            DEAD_LETTERS: ExchangeType.TOPIC,
            **{name: ExchangeType.FANOUT for name, _ in retries},
        },
        queues=(
            QueueSpec(BID_REQUESTS, ttl_ms=BID_TTL_MS, max_length=BID_LENGTH),
            QueueSpec(BID_RESPONSES, ttl_ms=BID_TTL_MS, max_length=BID_LENGTH),
            *(_money(name) for name in (IMPRESSIONS, CLICKS, CONVERSIONS, WINS, CAMPAIGN_UPDATES, BUDGET_ALERTS)),
            QueueSpec(LOSSES, max_length=INFO_LENGTH),
            QueueSpec(ALL_ALERTS, max_length=INFO_LENGTH),
            QueueSpec(DEAD, max_length=BID_LENGTH),
            *(_retry(name, delay_ms) for name, delay_ms in retries),
        ),
        bindings=(
            Binding(BIDDING, BID_REQUESTS, "bid.request"),
            Binding(BIDDING, BID_RESPONSES, "bid.response"),
            Binding(EVENTS, IMPRESSIONS, "event.impression"),
            Binding(EVENTS, CLICKS, "event.click"),
            Binding(EVENTS, CONVERSIONS, "event.conversion"),
            Binding(EVENTS, WINS, "event.win"),
            Binding(EVENTS, LOSSES, "event.loss"),
            Binding(CAMPAIGNS, CAMPAIGN_UPDATES),
            Binding(ALERTS, BUDGET_ALERTS, "alert.budget"),
            *(Binding(ALERTS, ALL_ALERTS, key) for key in ("alert.budget", ALERT_RULE, ALERT_ANOMALY)),
            Binding(DEAD_LETTERS, DEAD, "#"),
            *(Binding(name, name) for name, _ in retries),
        ),
    )


def instance_topology(instance_id: str) -> Topology:
    """The queue by which one daemon sees every campaign and performance update; it ends with its connection."""
    queue = QueueSpec(instance_queue(instance_id), max_length=BID_LENGTH, exclusive=True)
    return Topology(exchanges={}, queues=(queue,), bindings=(Binding(CAMPAIGNS, queue.name),))


def instance_queue(instance_id: str) -> str:
    """The name of a daemon's own queue of updates."""
    return f"campaign.updates.{instance_id}"


def frames_topology(instance_id: str) -> Topology:
    """The queue by which one daemon hears what the others count, and its exchange; what waits there is worthless after
    seconds. Only daemons that share a broker have it."""
    queue = QueueSpec(frames_queue(instance_id), ttl_ms=FRAME_TTL_MS, max_length=FRAME_LENGTH, exclusive=True)
    return Topology({METRICS: ExchangeType.FANOUT}, queues=(queue,), bindings=(Binding(METRICS, queue.name),))


def frames_queue(instance_id: str) -> str:
    """The name of a daemon's own queue of frames."""
    return f"metrics.{instance_id}"


def notice_topology(instance_id: str) -> Topology:
    """The queue by which a daemon hears of notices that were called elsewhere; it ends with its connection, as what it
    remembers of its sales ends with it."""
    queue = QueueSpec(
        notice_queue(instance_id), max_length=INFO_LENGTH, overflow=Overflow.REJECT_PUBLISH, exclusive=True
    )
    return Topology(exchanges={}, queues=(queue,), bindings=())


def notice_queue(instance_id: str) -> str:
    """The name of a daemon's own queue of notices."""
    return f"notices.{instance_id}"


async def check(broker: Broker) -> Sequence[str]:
    """One line for each exchange or queue that the broker does not have, or has otherwise; raises BrokerError."""
    return await broker.differences(topology())


def describe(wanted: Topology) -> str:
    """The topology as text, one object a line."""
    lines = [f"exchange  {name}  {kind}" for name, kind in wanted.exchanges.items()]
    lines += [f"queue     {queue.name}  {_properties(queue)}" for queue in wanted.queues]
    lines += [f"binding   {b.exchange} -> {b.queue}  {b.routing_key}".rstrip() for b in wanted.bindings]
    return "\n".join(lines)


def _properties(queue: QueueSpec) -> str:
    full = "publishers refused" if queue.overflow is Overflow.REJECT_PUBLISH else "oldest dropped"
    limit = queue.delivery_limit
    target = f"{queue.dead_letter_exchange or 'default exchange'}/{queue.dead_letter_routing_key or 'same key'}"
    said = [
        "exclusive" if queue.exclusive else "classic" if limit is None else f"quorum, delivery limit {limit}",
        f"ttl {queue.ttl_ms} ms" if queue.ttl_ms is not None else "",
        f"at most {queue.max_length} messages, then {full}" if queue.max_length is not None else "",
        f"dead letters to {target}" if queue.dead_letter_exchange is not None else "",
    ]
    return "; ".join(text for text in said if text)


def _retry(name: str, delay_ms: int) -> QueueSpec:
    return QueueSpec(
        name,
        ttl_ms=delay_ms,
        max_length=MONEY_LENGTH,
        overflow=Overflow.REJECT_PUBLISH,
        delivery_limit=DELIVERY_LIMIT,
        dead_letter_exchange="",
    )


def _money(name: str) -> QueueSpec:
    return QueueSpec(
        name,
        max_length=MONEY_LENGTH,
        overflow=Overflow.REJECT_PUBLISH,
        delivery_limit=DELIVERY_LIMIT,
        dead_letter_exchange=DEAD_LETTERS,
        dead_letter_routing_key=name,
    )
