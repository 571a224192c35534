"""What happens to campaigns by itself: alerts and pauses by budget, new budget days, the begin and end of flights.

Every automatic action is an event in the history, with its cause. A pause by budget changes no stored status: the index
does not ask the campaign while its budget cannot pay (`Budgets`), and does again on the new day of its time zone; the
history says so. The end of a flight is stored: the status becomes `ended`. Hours of the week, like flight dates, are
checked against the time of every request; they leave no events, because nothing is done.

Any number of daemons notice the same thing: an event's id is made of what happened, and a status is changed once.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import datetime

import structlog
from msgspec import Struct

from rtb.domain.budget import budget_day, day_end
from rtb.domain.campaign import Campaign, Status
from rtb.domain.money import NANOS
from rtb.errors import NotFound, StoreError
from rtb.messages import AlertKind
from rtb.ports import Clock
from rtb.ports.history import Action, HistoryEvent
from rtb.services.alerting import Alert
from rtb.services.campaigns import Campaigns
from rtb.services.history import Recorder

ACTOR = "automation"
AGAIN_S = 5.0
"""How soon the end of a flight is tried again when the repository is away."""
LOOK_BACK_S = 2 * 86_400.0
"""Longer than any budget day: a pause from before does not last."""
MAX_TOLD = 100_000

_log = structlog.get_logger(__name__)


class _Pause(Struct, frozen=True, gc=False):
    """A campaign that its budget paused: on which budget day, when that ends, and with what means."""

    day: str
    ends: float
    means: tuple[object, ...]


class Automation:
    """Notices, acts, and records. Call `refresh` every second, `watch` with every campaign that is new or changed."""

    def __init__(
        self,
        catalogue: Campaigns,
        recorder: Recorder,
        clock: Clock,
        *,
        alert: Alert,
        funded: Callable[[str], bool],
    ) -> None:
        """Tell `alert` of budgets; `funded` knows whether a campaign's budget can pay (`Budgets.funded`)."""
        self._catalogue = catalogue
        self._recorder = recorder
        self._clock = clock
        self._alert = alert
        self._funded = funded
        self._flights: list[tuple[float, str, Action]] = []
        self._awaited: dict[tuple[str, Action], float] = {}  # what of the flights still holds
        self._paused: dict[str, _Pause] = {}
        self._told: dict[tuple[str, str, int], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Learn from the history who is paused since before, so that the end of it is recorded. Raises StoreError."""
        since = self._clock.time() - LOOK_BACK_S
        kinds = {Action.BUDGET_PAUSED, Action.BUDGET_RESUMED}
        for event in await self._recorder.history.since(since, kinds):
            self._replay(event)

    async def stop(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def watch(self, campaign: Campaign) -> None:
        """Wait for the begin and the end of its flight; a campaign that can pay again goes on."""
        now = self._clock.time()
        if campaign.start is not None and campaign.start.timestamp() > now:
            self._await(campaign.start.timestamp(), campaign.id, Action.STARTED)
        if campaign.end is not None and campaign.status is not Status.ENDED:
            self._await(campaign.end.timestamp(), campaign.id, Action.ENDED)
        paused = self._paused.get(campaign.id)
        if paused is not None and _means(campaign) != paused.means and self._funded(campaign.id):
            day = self._paused.pop(campaign.id).day
            cause = f"its budget was changed (version {campaign.version})"
            self._resumed(campaign.id, f"{day}/{campaign.version}", cause)

    def alert(self, campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        """Spending came near the limit of a budget day, or it pauses the campaign: `rtb.services.alerting.Alert`."""
        self._alert(campaign_id, day, kind, spent_nanos=spent_nanos, limit_nanos=limit_nanos)
        campaign = self._known(campaign_id)
        version = campaign.version if campaign is not None else 0
        key = (campaign_id, f"{day}/{kind.value}", version)
        if key in self._told:
            return
        self._told[key] = None
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        share = spent_nanos / limit_nanos if limit_nanos else 1.0
        is_pause = kind is AlertKind.PAUSE
        if is_pause and campaign is not None and campaign.daily_budget is not None and day[:1].isdigit():
            self._paused[campaign_id] = _Pause(day, _end_of(day, campaign), _means(campaign))
        self._recorder.record(
            campaign_id,
            Action.BUDGET_PAUSED if is_pause else Action.BUDGET_ALERT,
            key=(day, str(version)),
            actor=ACTOR,
            cause=f"{share:.0%} of the budget of {day} spent",
            details={"day": day, "spent": spent_nanos / NANOS, "limit": limit_nanos / NANOS, "version": version},
        )

    def shares(self, campaign_id: str) -> tuple[float | None, float]:
        """At which shares of its daily budget a campaign's alert goes out (None: as usual) and it pauses:
        `Billing.shares`."""
        campaign = self._known(campaign_id)
        return (None, 1.0) if campaign is None else (campaign.alert_at, campaign.pause_at)

    def refresh(self) -> None:
        """Do what is due."""
        now = self._clock.time()
        while self._flights and self._flights[0][0] <= now:
            at, campaign_id, action = heapq.heappop(self._flights)
            if self._awaited.get((campaign_id, action)) != at:
                continue  # it was moved
            del self._awaited[campaign_id, action]
            if action is Action.STARTED:
                self._started(campaign_id, at)
            else:
                task = asyncio.get_running_loop().create_task(self._end(campaign_id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        for campaign_id, paused in [*self._paused.items()]:
            if now >= paused.ends:
                del self._paused[campaign_id]
                campaign = self._known(campaign_id)
                if campaign is not None:
                    today = budget_day(now, campaign.zone)
                    self._resumed(campaign_id, today, f"new budget day {today}, after {paused.day}")

    def _await(self, at: float, campaign_id: str, action: Action) -> None:
        if self._awaited.get((campaign_id, action)) != at:
            self._awaited[campaign_id, action] = at
            heapq.heappush(self._flights, (at, campaign_id, action))

    def _known(self, campaign_id: str) -> Campaign | None:
        try:
            return self._catalogue.get(campaign_id)
        except NotFound:
            return None

    def _started(self, campaign_id: str, at: float) -> None:
        campaign = self._known(campaign_id)
        if campaign is None or campaign.start is None or campaign.start.timestamp() != at:
            return  # it was moved
        start = campaign.start.isoformat()
        self._recorder.record(campaign_id, Action.STARTED, key=(start,), actor=ACTOR, cause=f"flight began: {start}")

    async def _end(self, campaign_id: str) -> None:
        try:
            await self._catalogue.end(campaign_id, self._clock.time(), actor=ACTOR)
        except NotFound:
            pass
        except StoreError as error:
            _log.warning("flight_not_ended", campaign_id=campaign_id, reason=str(error))
            self._await(self._clock.time() + AGAIN_S, campaign_id, Action.ENDED)

    def _resumed(self, campaign_id: str, key: str, cause: str) -> None:
        self._recorder.record(campaign_id, Action.BUDGET_RESUMED, key=(key,), actor=ACTOR, cause=cause)

    def _replay(self, event: HistoryEvent) -> None:
        if event.action is Action.BUDGET_RESUMED:
            self._paused.pop(event.campaign_id, None)
            return
        campaign = self._known(event.campaign_id)
        day = str(event.details.get("day", ""))
        if campaign is not None and day[:1].isdigit():
            self._paused[event.campaign_id] = _Pause(day, _end_of(day, campaign), _means(campaign))
            self._told[event.campaign_id, f"{day}/{AlertKind.PAUSE.value}", campaign.version] = None


def _end_of(day: str, campaign: Campaign) -> float:
    return day_end(datetime.fromisoformat(day).replace(hour=12, tzinfo=campaign.zone).timestamp(), campaign.zone)


def _means(campaign: Campaign) -> tuple[object, ...]:
    """What decides whether a budget pays: a change of these alone can resume a campaign that it paused."""
    return campaign.pause_nanos, campaign.lifetime_budget, campaign.most_micros
