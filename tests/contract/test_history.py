"""Contract of ports.History."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from rtb.adapters.memory_history import MemoryHistory
from rtb.adapters.sql_history import SqlHistory
from rtb.ports.history import Action, History, HistoryEvent
from tests.contract.support import patient

Open = Callable[[], Awaitable[History]]


@asynccontextmanager
async def memory_histories(_request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """One history, shared in the process."""
    history = MemoryHistory()

    async def connect() -> History:
        return history

    yield connect


@asynccontextmanager
async def sqlite_histories(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Histories on one SQLite file."""
    async with _sql_histories(str(request.getfixturevalue("tmp_path") / "rtb.db")) as connect:
        yield connect


@asynccontextmanager
async def postgresql_histories(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Histories on one database of a PostgreSQL server."""
    async with _sql_histories(await request.getfixturevalue("postgres_databases").migrated()) as connect:
        yield connect


@asynccontextmanager
async def _sql_histories(database: str) -> AsyncIterator[Open]:
    opened: list[SqlHistory] = []

    async def connect() -> History:
        history = SqlHistory(patient(database))
        opened.append(history)
        await history.start()
        return history

    yield connect
    for history in opened:
        await history.close()


HISTORIES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Open]]] = {
    "memory": memory_histories,
    "sqlite": sqlite_histories,
    "postgresql": postgresql_histories,
}


@pytest_asyncio.fixture(params=HISTORIES)
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens connections to one history."""
    async with HISTORIES[request.param](request) as connect:
        yield connect


def event(key: str, at: float = 1.0, **fields: Any) -> HistoryEvent:
    """Something that happened to campaign c."""
    return HistoryEvent(
        **{"id": key, "campaign_id": "c", "at": at, "actor": "admin", "action": Action.CHANGED, **fields}
    )


async def test_an_event_comes_back_as_it_was(connect: Open) -> None:
    """With its cause and its details, whatever letters they are in."""
    history = await connect()
    given = event(
        "e", 1.25, cause="왜냐하면", details={"bid": [1.0, 2.5], "daily_budget": [None, 3.0], "s": ["a", "b"]}
    )
    assert await history.append([given]) == 1
    assert await history.of("c") == [given]
    assert await history.of("d") == []


async def test_what_is_recorded_twice_stands_once(connect: Open) -> None:
    """Within a call and over calls, and two daemons that noticed the same: the first to write counts."""
    here, there = await connect(), await connect()
    assert await here.append([event("e", actor="here"), event("f")]) == 2
    assert await there.append([event("e", actor="there"), event("g")]) == 1
    assert await here.append([]) == 0
    written = await asyncio.gather(*[h.append([event(f"x{n}") for n in range(50)]) for h in (here, there)])
    assert sum(written) == 50
    assert {e.actor for e in await there.of("c", 100) if e.id == "e"} == {"here"}


async def test_the_newest_come_first_and_no_more_than_asked_for(connect: Open) -> None:
    """By time; other campaigns' events are not among them."""
    history = await connect()
    await history.append([event(f"e{n}", float(n)) for n in (3, 1, 2)] + [event("other", 9.0, campaign_id="d")])
    assert [e.id for e in await history.of("c")] == ["e3", "e2", "e1"]
    assert [e.id for e in await history.of("c", 2)] == ["e3", "e2"]


async def test_events_of_some_kinds_since_a_moment(connect: Open) -> None:
    """Of every campaign, the oldest first; the moment itself is in."""
    history = await connect()
    paused, resumed = Action.BUDGET_PAUSED, Action.BUDGET_RESUMED
    await history.append(
        [
            event("late", 5.0, action=resumed, campaign_id="d"),
            event("early", 1.9, action=paused),
            event("at", 2.0, action=paused),
            event("another kind", 3.0),
        ]
    )
    assert [e.id for e in await history.since(2.0, {paused, resumed})] == ["at", "late"]


async def test_more_events_than_one_statement_takes(connect: Open) -> None:
    """All are written, in one transaction."""
    history = await connect()
    assert await history.append([event(f"e{n}", float(n)) for n in range(2_500)]) == 2_500
    assert len(await history.of("c", 10_000)) == 2_500
