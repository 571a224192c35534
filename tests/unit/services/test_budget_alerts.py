"""Budget alerts go out once a campaign, day and kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from rtb import messages
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.spool import FileSpool
from rtb.errors import StoreError
from rtb.messages import BUDGET_ALERT, AlertKind, BudgetAlert
from rtb.services import topology
from rtb.services.budget_alerts import BudgetAlerts
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from tests.contract.brokers import Inbox

CLOCK = SystemClock()


class Amnesiac(MemoryState):
    """A state store that is away."""

    async def seen(self, claims: object, ttl_s: float) -> list[bool]:
        """Fail."""
        raise StoreError("away")


class Bench:
    """What daemons share, and the alerts that came out."""

    def __init__(self, outbox: Outbox, inbox: Inbox) -> None:
        self.outbox = outbox
        self.inbox = inbox
        self.state = MemoryState(CLOCK)

    def daemon(self, name: str, state: MemoryState | None = None) -> BudgetAlerts:
        return BudgetAlerts(self.outbox, state or self.state, CLOCK, instance=name, currency="EUR")

    async def told(self, *daemons: BudgetAlerts) -> list[tuple[str, BudgetAlert]]:
        """Every alert that the daemons have told."""
        for daemon in daemons:
            await daemon.stop()
        await self.outbox.flush(20)
        found = [(await self.inbox.next()).message for _ in range(self.outbox.confirmed)]
        return [(one.message_id, BUDGET_ALERT.decode(messages.decode(one.body).data)) for one in found]


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    broker = MemoryBroker(CLOCK)
    await broker.start()
    await broker.declare(topology.topology())
    outbox = Outbox(broker, FileSpool(tmp_path), Metrics("test", CLOCK))
    await outbox.start()
    yield Bench(outbox, await Inbox().open(broker, topology.BUDGET_ALERTS))
    await outbox.stop()
    await broker.close()


def alert(
    daemon: BudgetAlerts, campaign: str = "c", day: str = "2026-01-01", kind: AlertKind = AlertKind.ALERT
) -> None:
    daemon.raise_alert(campaign, day, kind, spent_nanos=9_500_000_000, limit_nanos=10_000_000_000)


async def test_an_alert_says_how_much_is_spent(bench: Bench) -> None:
    """9.50 of 10.00 euros are 95 %."""
    daemon = bench.daemon("one")
    alert(daemon)
    ((_, told),) = await bench.told(daemon)
    assert told == BudgetAlert(
        campaign_id="c",
        kind=AlertKind.ALERT,
        day="2026-01-01",
        share=0.95,
        spent=9.5,
        limit=10.0,
        currency="EUR",
        instance="one",
    )


async def test_it_is_told_once(bench: Bench) -> None:
    """However often it is raised, by however many daemons, and after a restart."""
    one, two, again = bench.daemon("one"), bench.daemon("two"), bench.daemon("one, restarted")
    for daemon in (one, one, two, again):
        alert(daemon)
    assert len(await bench.told(one, two, again)) == 1


async def test_each_campaign_day_and_kind_is_told(bench: Bench) -> None:
    """With an id of its own."""
    daemon = bench.daemon("one")
    for campaign in ("c", "d"):
        for day in ("2026-01-01", "2026-01-02"):
            for kind in AlertKind:
                alert(daemon, campaign, day, kind)
    told = await bench.told(daemon)
    assert len(told) == len({message_id for message_id, _ in told}) == 8


async def test_without_shared_state_it_is_told_by_each_with_one_id(bench: Bench) -> None:
    """So that a consumer can tell that it is the same."""
    one, two = bench.daemon("one", Amnesiac(CLOCK)), bench.daemon("two", Amnesiac(CLOCK))
    alert(one)
    alert(one)
    alert(two)
    told = await bench.told(one, two)
    assert len(told) == 2
    assert len({message_id for message_id, _ in told}) == 1
