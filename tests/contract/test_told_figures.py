"""ports.told_figures on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import pytest
import pytest_asyncio

from rtb.adapters.sql_told_figures import SqlToldFigures
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, Told

DAY = date(2026, 1, 1)
ALL = Figures(1, 2, 3_000_000, 4_000_000_000, 5_000_000_000)


def told(
    campaign_id: str, told_at: float, figures: Figures = ALL, *, source: str = "facebook", last: date = DAY
) -> Told:
    return Told(campaign_id, source, Days(DAY, last), CampaignMetrics(figures, "EUR"), told_at)


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[SqlToldFigures]:
    """One, on a database of its own."""
    if request.param == "sqlite":
        database = str(request.getfixturevalue("tmp_path") / "rtb.db")
    else:
        database = await request.getfixturevalue("postgres_databases").migrated()
    store = SqlToldFigures(database)
    await store.start()
    yield store
    await store.close()


async def test_figures_come_back_as_they_were_told_the_latest_first(store: SqlToldFigures) -> None:
    """Of each campaign, source and range of days; since a moment, and so many at most."""
    rows = [
        told("é", 1.5),
        told("a", 2.5, source="google"),
        told("a", 3.25),
        told("a", 4.0, Figures(9), last=date(2026, 1, 31)),
    ]
    await store.put(rows)
    assert await store.recent(0.0, 10) == rows[::-1]
    assert await store.recent(2.5, 10) == rows[:0:-1]
    assert await store.recent(0.0, 1) == rows[3:]


async def test_what_was_told_last_is_kept(store: SqlToldFigures) -> None:
    """Whoever writes first."""
    await store.put([told("a", 5.0, Figures(5)), told("b", 5.0)])
    await store.put([told("a", 4.0, Figures(4)), told("b", 6.0, Figures(6))])
    assert await store.recent(0.0, 10) == [told("b", 6.0, Figures(6)), told("a", 5.0, Figures(5))]


async def test_what_is_old_is_forgotten(store: SqlToldFigures) -> None:
    """Before a moment; how many is told."""
    await store.put([told("a", 1.0), told("b", 2.0), told("c", 3.0)])
    assert await store.forget(2.0) == 1
    assert [row.campaign_id for row in await store.recent(0.0, 10)] == ["c", "b"]


async def test_many_at_once(store: SqlToldFigures) -> None:
    """More than one statement takes; none is nothing."""
    await store.put([])
    await store.put([told(f"c{n:04}", float(n)) for n in range(1_201)])
    assert len(await store.recent(0.0, 2_000)) == 1_201
