"""What sources told, over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from structlog.testing import capture_logs

from rtb.adapters.clock import ManualClock
from rtb.adapters.sql_told_figures import SqlToldFigures
from rtb.domain.money import Rates
from rtb.domain.source_metrics import CampaignMetrics, Figures, Reading, Standing, Told
from rtb.errors import StoreError
from rtb.services.figure_memory import FigureMemory
from rtb.services.metric_sources import MetricSources
from rtb.services.own_figures import OwnFigures
from tests.unit.metric_parts import TODAY, Platform

STARTED = 1_767_225_600.0


class Daemon:
    """Sources, and what remembers their figures, of one process; 300 s are fresh."""

    def __init__(self, path: Path, time: float, *platforms: Platform, store: SqlToldFigures | None = None) -> None:
        self.clock = ManualClock(time)
        self.house = OwnFigures(self._house, "USD")
        self.sources = MetricSources(
            platforms,
            lambda campaign_id: {platform.name: campaign_id for platform in platforms},
            Rates("USD", {"EUR": 2.0}),
            self.clock,
            house=self.house,
        )
        self.store = store or SqlToldFigures(str(path / "rtb.db"))
        self.memory = FigureMemory(self.store, self.sources, self.clock, keep=100)

    async def __aenter__(self) -> Self:
        """Begin."""
        await self.store.start()
        await self.memory.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        await self.memory.stop()
        await self.store.close()

    async def _house(self, ids: Sequence[str], days: object) -> Mapping[str, Figures]:
        return dict.fromkeys(ids, Figures(7))

    def reading(self, campaign_id: str, source: str = "facebook") -> Reading:
        """What is known without asking."""
        found = self.sources.known(campaign_id, TODAY).readings
        return next(reading for reading in found if reading.source == source)


async def test_after_a_restart_figures_are_stale_with_their_age(tmp_path: Path) -> None:
    """Told in euro 400 s before the next process begins; the house's own are not kept, for the ledger has them."""
    facebook = Platform("facebook")
    facebook.told = {"a": CampaignMetrics(Figures(10, spend_nanos=3), "EUR")}
    async with Daemon(tmp_path, STARTED, facebook) as before:
        await before.sources.get(["a"], TODAY)
    async with Daemon(tmp_path, STARTED + 400, Platform("facebook")) as after:
        known = after.reading("a")
        assert (known.standing, known.figures, known.age_s) == (Standing.STALE, Figures(10, spend_nanos=6), 400.0)
        assert after.reading("a", "house").standing is Standing.UNKNOWN


async def test_what_is_not_old_yet_is_fresh_and_not_asked_for_again(tmp_path: Path) -> None:
    """A restart costs the platforms nothing; a source that is no more is forgotten."""
    facebook, google = Platform("facebook"), Platform("google")
    facebook.told = google.told = {"a": CampaignMetrics(Figures(10), "USD")}
    async with Daemon(tmp_path, STARTED, facebook, google) as before:
        await before.sources.get(["a"], TODAY)
    again = Platform("facebook")
    async with Daemon(tmp_path, STARTED + 100, again) as after:
        assert after.reading("a").standing is Standing.FRESH
        found = await after.sources.get(["a"], TODAY)
        assert (again.asked, found["a"].totals) == ([], Figures(17))


async def test_the_last_figures_are_those_that_are_kept(tmp_path: Path) -> None:
    """They are written as they are told, not only at the end: what is there is read while the first process runs."""
    facebook = Platform("facebook")
    written = Counting(str(tmp_path / "rtb.db"))
    async with Daemon(tmp_path, STARTED, facebook, store=written) as before:
        for count in (1, 2):
            facebook.told = {"a": CampaignMetrics(Figures(count), "USD")}
            await before.sources.refresh(["a"], TODAY)
            before.clock.advance(60)
        await written.reached("a", Figures(2))
        async with Daemon(tmp_path, STARTED + 120, Platform("facebook")) as after:
            assert after.reading("a").figures == Figures(2)


async def test_a_database_that_is_away_costs_the_memory_alone(tmp_path: Path) -> None:
    """Figures are shown as before; it is told once, and what was told meanwhile is written when it is back."""
    facebook = Platform("facebook")
    facebook.told = {"a": CampaignMetrics(Figures(1), "USD"), "b": CampaignMetrics(Figures(2), "USD")}
    store = Counting(str(tmp_path / "rtb.db"))
    store.away = True
    with capture_logs() as told:
        async with Daemon(tmp_path, STARTED, facebook, store=store) as before:
            found = await before.sources.get(["a"], TODAY)
            await store.tried()
            store.away = False
            await before.sources.get(["b"], TODAY)
            await store.reached("b", Figures(2))
    assert found["a"].totals == Figures(8)
    assert [line["event"] for line in told] == ["source_figures_not_kept"]
    async with Daemon(tmp_path, STARTED + 400, Platform("facebook")) as after:
        assert [after.reading(name).figures for name in "ab"] == [Figures(1), Figures(2)]


class Counting(SqlToldFigures):
    """Says when it has written, or could not."""

    def __init__(self, database: str) -> None:
        super().__init__(database)
        self.away = False
        self.events: list[Told | None] = []
        self._changed = asyncio.Condition()

    async def put(self, told: Sequence[Told]) -> None:
        """Write, unless it is away."""
        away = self.away
        async with self._changed:
            if away:
                self.events.append(None)
            else:
                await super().put(told)
                self.events += told
            self._changed.notify_all()
        if away:
            raise StoreError("away")

    async def tried(self) -> None:
        """Return once a write has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: None in self.events)

    async def reached(self, campaign_id: str, figures: Figures) -> None:
        """Return once these figures are written."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: any(
                    one and (one.campaign_id, one.metrics.figures) == (campaign_id, figures) for one in self.events
                )
            )
