"""Contract of ports.alerts.Alerts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb.adapters.memory_alerts import MemoryAlerts
from rtb.adapters.sql_alerts import SqlAlerts
from rtb.domain.alert import AlertRule, AlertState, Condition, Phase, Severity
from rtb.ports.alerts import Alerts
from tests.contract.support import patient

Open = Callable[[], Awaitable[Alerts]]
RULE = AlertRule(
    id="slow",
    name="늦음 \N{WARNING SIGN}",
    metric="latency_p99_ms",
    condition=Condition.GREATER_THAN,
    threshold=80.5,
    for_s=30,
    severity=Severity.CRITICAL,
    recover_at=60,
    channels=("ops",),
)
STATE = AlertState(
    rule_id="slow",
    phase=Phase.FIRING,
    since=5.25,
    good_since=6.0,
    value=91.0,
    incident=2,
    began=5.25,
    acknowledged_by="mina",
    acknowledged_at=7.0,
    told="2:firing",
    delivered=("ops", "broker"),
    version=1,
)


@asynccontextmanager
async def memory_alerts(_request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Alerts shared in the process."""
    alerts = MemoryAlerts()

    async def connect() -> Alerts:
        return alerts

    yield connect


@asynccontextmanager
async def sqlite_alerts(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Alerts in one SQLite file."""
    async with _sql_alerts(str(request.getfixturevalue("tmp_path") / "rtb.db")) as connect:
        yield connect


@asynccontextmanager
async def postgresql_alerts(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Alerts in one database of a PostgreSQL server."""
    async with _sql_alerts(await request.getfixturevalue("postgres_databases").migrated()) as connect:
        yield connect


@asynccontextmanager
async def _sql_alerts(database: str) -> AsyncIterator[Open]:
    opened: list[SqlAlerts] = []

    async def connect() -> Alerts:
        alerts = SqlAlerts(patient(database))
        opened.append(alerts)
        await alerts.start()
        return alerts

    yield connect
    for alerts in opened:
        await alerts.close()


STORES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Open]]] = {
    "memory": memory_alerts,
    "sqlite": sqlite_alerts,
    "postgresql": postgresql_alerts,
}


@pytest_asyncio.fixture(params=STORES)
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens connections to one store."""
    async with STORES[request.param](request) as connect:
        yield connect


async def test_rules_come_back_as_they_were(connect: Open) -> None:
    """Every field, in whatever letters, and in the order of their ids."""
    here, there = await connect(), await connect()
    assert await here.rules() == []
    plain = AlertRule(id="Fast", metric="bid_rate", condition=Condition.EQUALS, threshold=0.0)
    assert await here.put_rule(RULE)
    assert await here.put_rule(plain)
    assert await there.rules() == [plain, RULE]


async def test_a_rule_is_written_only_over_the_version_before(connect: Open) -> None:
    """Who has not seen the last change does not undo it."""
    alerts = await connect()
    assert not await alerts.put_rule(replace(RULE, version=2))
    assert await alerts.put_rule(RULE)
    assert not await alerts.put_rule(replace(RULE, threshold=1.0))
    assert await alerts.put_rule(replace(RULE, threshold=2.0, version=2))
    assert not await alerts.put_rule(replace(RULE, threshold=3.0, version=2))
    assert [rule.threshold for rule in await alerts.rules()] == [2.0]


async def test_of_several_writers_one_wins(connect: Open) -> None:
    """Two daemons that go on from the same state: one of them has written."""
    here, there = await connect(), await connect()
    await here.put_rule(RULE)
    for version in range(1, 6):
        states = [replace(STATE, version=version, since=since) for since in (1.0, 2.0)]
        wrote = await asyncio.gather(*(a.put_state(s) for a, s in zip((here, there), states, strict=True)))
        assert sorted(wrote) == [False, True]
        assert await there.states() == {"slow": states[wrote.index(True)]}


async def test_states_come_back_as_they_were(connect: Open) -> None:
    """With all that is needed to go on after a restart."""
    here, there = await connect(), await connect()
    await here.put_rule(RULE)
    assert await here.put_state(STATE)
    assert await there.states() == {"slow": STATE}
    assert not await there.put_state(replace(STATE, version=3))


async def test_a_deleted_rule_leaves_nothing(connect: Open) -> None:
    """Its state goes with it and cannot come back; an id may be used again."""
    alerts = await connect()
    await alerts.put_rule(RULE)
    await alerts.put_state(STATE)
    assert await alerts.delete_rule("slow")
    assert not await alerts.delete_rule("slow")
    assert not await alerts.put_state(replace(STATE, version=2))
    assert not await alerts.put_state(STATE)
    assert (await alerts.rules(), await alerts.states()) == ([], {})
    assert await alerts.put_rule(RULE)
    assert await alerts.states() == {}
