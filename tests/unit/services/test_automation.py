"""What happens to campaigns by itself, and the record of it and of all other changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb.adapters.memory_history import MemoryHistory
from rtb.domain.campaign import Status
from rtb.domain.campaign_change import Change
from rtb.errors import StoreError
from rtb.messages import AlertKind
from rtb.ports import Repository
from rtb.ports.history import Action, HistoryEvent
from rtb.services.automation import Automation
from rtb.services.campaigns import Campaigns
from rtb.services.history import Recorder
from tests.unit.parts import Build, World, bid_request, campaign

NEW_YEAR = 1_767_225_600.0  # 2026-01-01 00:00 UTC
HOUR_S = 3_600.0
SEOUL_S = 9 * HOUR_S


def at(hours: float) -> datetime:
    """So many hours after the new year."""
    return datetime.fromtimestamp(NEW_YEAR + hours * HOUR_S, UTC)


class Away(MemoryHistory):
    """A history that can be away."""

    away = False

    async def append(self, events: Sequence[HistoryEvent]) -> int:
        """Unless it is away."""
        if self.away:
            raise StoreError("away")
        return await super().append(events)


class Daemon:
    """The parts of one daemon around a shared history."""

    def __init__(self, world: World, history: Away, repository: Repository | None = None) -> None:
        self.world = world
        self.told: list[tuple[str, AlertKind]] = []
        self.catalogue = Campaigns(repository or world.repository, world.house)
        self.recorder = Recorder(history, world.clock)
        self.catalogue.record = self.recorder.changed
        budgets = world.house.budgets
        self.automation = Automation(self.catalogue, self.recorder, world.clock, alert=self.tell, funded=budgets.funded)
        self.catalogue.watchers.append(self.automation.watch)
        budgets.on_exhausted = self.automation.alert

    def tell(self, campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        """An alert went out."""
        self.told.append((campaign_id, kind))

    async def pass_time(self, hours: float) -> None:
        """Then what is done every second, and whatever that begins."""
        self.world.clock.advance(hours * HOUR_S)
        self.world.house.refresh()
        self.automation.refresh()
        await self.automation.stop()
        await self.recorder.stop()

    async def events(self, campaign_id: str = "c") -> list[tuple[str, Action, str]]:
        """Who did what and why, the oldest first."""
        await self.recorder.stop()
        found = await self.recorder.history.of(campaign_id)
        return [(event.actor, event.action, event.cause) for event in reversed(found)]


@pytest.fixture
def history() -> Away:
    return Away()


@pytest_asyncio.fixture
async def daemon(build: Build, history: Away) -> AsyncIterator[Daemon]:
    made = build()
    await made.repository.start()
    yield Daemon(made, history)


async def test_changes_say_who_made_them_and_what_they_changed(daemon: Daemon, history: Away) -> None:
    """By command and from the queue; a status alone has an event of its own kind."""
    catalogue = daemon.catalogue
    steps = [
        catalogue.put([campaign("c", 1.0)]),
        catalogue.set_bid("c", 2.0),
        catalogue.set_status("c", Status.PAUSED),
        catalogue.set_status("c", Status.ACTIVE),
        catalogue.update(Change("c", {"daily_budget": 5.0, "name": "new"}, whole=False)),
    ]
    for step in steps:
        await step
        daemon.world.clock.advance(1)
    assert await daemon.events() == [
        ("admin", Action.CREATED, ""),
        ("admin", Action.CHANGED, ""),
        ("admin", Action.PAUSED, ""),
        ("admin", Action.RESUMED, ""),
        ("queue", Action.CHANGED, ""),
    ]
    newest, *_, oldest = await history.of("c")
    assert newest.details == {"name": ["", "new"], "daily_budget": [None, 5.0]}
    assert (await history.of("c"))[3].details == {"bid": [1.0, 2.0]}
    assert oldest.details == {}


async def test_an_import_records_what_it_changes(daemon: Daemon) -> None:
    """A thousand new campaigns are not worth a line each; the one that was there before is."""
    await daemon.catalogue.put([campaign("c", 1.0)])
    daemon.world.clock.advance(1)
    await daemon.catalogue.put([campaign("c", 3.0), *(campaign(f"n{i}") for i in range(100))])
    assert [action for _, action, _ in await daemon.events()] == [Action.CREATED, Action.CHANGED]
    assert await daemon.events("n7") == []


async def test_a_budget_pauses_a_campaign_until_the_new_day_of_its_zone(daemon: Daemon) -> None:
    """Spent to 80 % in Seoul, it pauses with its cause and goes on at 15:00 UTC; an alert goes out whenever it is told,
    the event is recorded once."""
    await daemon.catalogue.put([campaign("c", 2.0, daily_budget=0.01, pause_at=0.8, timezone="Asia/Seoul")])
    assert [daemon.world.house.budgets.debit("c", 2_000_000) for _ in range(5)] == [True] * 4 + [False]
    daemon.world.clock.advance(1)
    day = "2026-01-01"
    daemon.automation.alert("c", day, AlertKind.PAUSE, spent_nanos=8_000_000, limit_nanos=10_000_000)
    daemon.automation.alert("c", day, AlertKind.PAUSE, spent_nanos=8_000_000, limit_nanos=10_000_000)
    assert daemon.told == [("c", AlertKind.PAUSE)] * 2
    await daemon.pass_time(14.9)
    assert not daemon.world.house.is_funded("c")
    assert [action for _, action, _ in await daemon.events()] == [Action.CREATED, Action.BUDGET_PAUSED]
    await daemon.pass_time(0.2)
    assert daemon.world.house.is_funded("c")
    assert (await daemon.events())[1:] == [
        ("automation", Action.BUDGET_PAUSED, "80% of the budget of 2026-01-01 spent"),
        ("automation", Action.BUDGET_RESUMED, "new budget day 2026-01-02, after 2026-01-01"),
    ]
    assert daemon.catalogue.get("c").status is Status.ACTIVE  # a pause by budget is no change of the campaign


async def test_a_budget_that_is_raised_resumes_a_campaign(daemon: Daemon) -> None:
    """On the same day; when that is spent as well, it pauses again, and that is another event."""
    await daemon.catalogue.put([campaign("c", 2.0, daily_budget=0.01)])
    daemon.world.house.budgets.debit("c", 10_000_000)
    for limit_nanos in (10_000_000, 20_000_000):
        daemon.world.clock.advance(1)
        daemon.automation.alert("c", "2026-01-01", AlertKind.PAUSE, spent_nanos=limit_nanos, limit_nanos=limit_nanos)
        daemon.world.clock.advance(1)
        await daemon.catalogue.update(Change("c", {"daily_budget": 0.02}, whole=False))
    assert [(action, cause) for _, action, cause in await daemon.events() if action is not Action.CHANGED] == [
        (Action.CREATED, ""),
        (Action.BUDGET_PAUSED, "100% of the budget of 2026-01-01 spent"),
        (Action.BUDGET_RESUMED, "its budget was changed (version 2)"),
        (Action.BUDGET_PAUSED, "100% of the budget of 2026-01-01 spent"),
    ]


async def test_a_change_of_something_else_does_not_resume(daemon: Daemon) -> None:
    """A name does not pay for impressions."""
    await daemon.catalogue.put([campaign("c", daily_budget=1.0)])
    daemon.automation.alert("c", "2026-01-01", AlertKind.PAUSE, spent_nanos=10**9, limit_nanos=10**9)
    await daemon.catalogue.update(Change("c", {"name": "new"}, whole=False))
    assert Action.BUDGET_RESUMED not in [action for _, action, _ in await daemon.events()]


async def test_alerts_are_recorded(daemon: Daemon) -> None:
    """With what was spent, of what."""
    daemon.automation.alert("c", "2026-01-01", AlertKind.ALERT, spent_nanos=9 * 10**9, limit_nanos=10**10)
    [(actor, action, cause)] = await daemon.events()
    assert (actor, action, cause) == ("automation", Action.BUDGET_ALERT, "90% of the budget of 2026-01-01 spent")
    [event] = await daemon.recorder.history.of("c")
    assert (event.details["spent"], event.details["limit"]) == (9.0, 10.0)


async def test_what_billing_asks_of_a_campaign(daemon: Daemon) -> None:
    """Its own shares; nothing particular of one that says nothing, or that nobody knows."""
    await daemon.catalogue.put([campaign("c", daily_budget=1.0, alert_at=0.5, pause_at=0.8), campaign("d")])
    assert [daemon.automation.shares(name) for name in "cdx"] == [(0.5, 0.8), (None, 1.0), (None, 1.0)]


async def test_a_flight_begins_and_ends(daemon: Daemon) -> None:
    """Its begin is recorded; its end is stored, so that it never bids again, and says why."""
    await daemon.catalogue.put([campaign("c", start=at(1), end=at(2))])
    await daemon.pass_time(0.5)
    assert daemon.catalogue.get("c").status is Status.ACTIVE
    await daemon.pass_time(1)
    await daemon.pass_time(1)
    assert daemon.catalogue.get("c").status is Status.ENDED
    stored = await daemon.world.repository.campaign("c")
    assert stored is not None
    assert (stored.status, stored.version) == (Status.ENDED, 2)
    assert await daemon.events() == [
        ("admin", Action.CREATED, ""),
        ("automation", Action.STARTED, "flight began: 2026-01-01T01:00:00+00:00"),
        ("automation", Action.ENDED, "flight ended: 2026-01-01T02:00:00+00:00"),
    ]
    await daemon.pass_time(1)
    assert len(await daemon.events()) == 3


async def test_a_flight_that_is_prolonged_does_not_end(daemon: Daemon) -> None:
    """Until its new end."""
    await daemon.catalogue.put([campaign("c", end=at(2))])
    await daemon.catalogue.put([campaign("c", end=at(5))])
    await daemon.pass_time(3)
    assert daemon.catalogue.get("c").status is Status.ACTIVE
    await daemon.pass_time(2)
    assert daemon.catalogue.get("c").status is Status.ENDED


async def test_a_flight_that_was_over_when_the_daemon_started_is_ended(daemon: Daemon) -> None:
    """Nobody was there to end it."""
    await daemon.world.repository.put_campaigns([campaign("c", end=at(-1))])
    await daemon.catalogue.load()
    await daemon.pass_time(0)
    assert daemon.catalogue.get("c").status is Status.ENDED


async def test_a_flight_ends_later_when_the_repository_is_away(daemon: Daemon) -> None:
    """It is tried again until it is stored; no request sees the campaign meanwhile, its flight is over."""
    await daemon.catalogue.put([campaign("c", end=at(1))])
    await daemon.world.repository.close()
    await daemon.pass_time(1)
    assert daemon.catalogue.get("c").status is Status.ACTIVE
    assert (await daemon.world.run(bid_request())).nbr is not None
    await daemon.world.repository.start()
    await daemon.pass_time(0.01)
    assert daemon.catalogue.get("c").status is Status.ENDED


async def test_daemons_that_notice_the_same_record_it_once(daemon: Daemon, build: Build, history: Away) -> None:
    """Both see the flight end and the budget spent; one version, one event each."""
    other = Daemon(build(clock=daemon.world.clock), history, daemon.world.repository)
    await daemon.catalogue.put([campaign("c", end=at(1), daily_budget=1.0)])
    await other.catalogue.load()
    for one in (daemon, other):
        one.automation.alert("c", "2026-01-01", AlertKind.PAUSE, spent_nanos=10**9, limit_nanos=10**9)
    await daemon.pass_time(1)
    await other.pass_time(0)
    actions = [action for _, action, _ in await daemon.events()]
    assert sorted(actions) == sorted([Action.CREATED, Action.BUDGET_PAUSED, Action.ENDED])
    assert other.catalogue.get("c").version == 2
    assert other.catalogue.get("c").status is Status.ENDED


async def test_a_pause_from_before_a_restart_ends_with_its_day(daemon: Daemon, build: Build, history: Away) -> None:
    """The daemon that paused it is gone; the next one reads of it, and records the new day, and no second pause."""
    await daemon.catalogue.put([campaign("c", daily_budget=1.0)])
    daemon.world.clock.advance(1)
    daemon.automation.alert("c", "2026-01-01", AlertKind.PAUSE, spent_nanos=10**9, limit_nanos=10**9)
    await daemon.recorder.stop()
    after = Daemon(build(clock=daemon.world.clock), history, daemon.world.repository)
    await after.catalogue.load()
    await after.automation.start()
    after.automation.alert("c", "2026-01-01", AlertKind.PAUSE, spent_nanos=10**9, limit_nanos=10**9)
    await after.pass_time(25)
    actions = [action for _, action, _ in await after.events()]
    assert actions == [Action.CREATED, Action.BUDGET_PAUSED, Action.BUDGET_RESUMED]


async def test_what_waits_for_the_database_is_written_when_it_is_back(daemon: Daemon, history: Away) -> None:
    """Nothing is lost, nor out of order, while it is away."""
    history.away = True
    await daemon.catalogue.put([campaign("c", 1.0)])
    daemon.world.clock.advance(1)
    await daemon.catalogue.set_bid("c", 2.0)
    assert await history.of("c") == []
    history.away = False
    assert [action for _, action, _ in await daemon.events()] == [Action.CREATED, Action.CHANGED]


async def test_closing_while_the_database_is_away_ends(daemon: Daemon, history: Away) -> None:
    """It is tried once more, and then given up."""
    history.away = True
    await daemon.catalogue.put([campaign("c", 1.0)])
    await daemon.recorder.stop()
    assert await history.of("c") == []


async def test_a_long_field_is_only_named(daemon: Daemon, history: Away) -> None:
    """What the creatives were would fill pages."""
    first = campaign("c")
    await daemon.catalogue.put([first])
    await daemon.catalogue.put([replace(first, creatives=(replace(first.creatives[0], w=1),))])
    await daemon.recorder.stop()
    changed = [event for event in await history.of("c") if event.action is Action.CHANGED]
    assert [event.details for event in changed] == [{"creatives": ["...", "..."]}]
