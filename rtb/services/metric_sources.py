"""The metrics of campaigns from several sources: fetched together, kept, merged, and honest about what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog

from rtb.domain.money import Rates
from rtb.domain.source_metrics import CampaignMetrics, Days, MergedMetrics, Reading, Standing, Told, merge
from rtb.errors import ConfigError, RtbError
from rtb.ports import Clock
from rtb.ports.metric_source import BidResult, BidUpdate, MetricSource, SourceError, SourceFailure
from rtb.services.kept_metrics import KeptMetrics

NS = 1_000_000_000
ABREAST = 2
"""Calls of one source under way at once in a refresh."""
STEP = 10
"""Campaigns that a task works on before others of this process have a turn: about a tenth of a millisecond."""
_T = TypeVar("_T")
_Flights = dict[str, asyncio.Task[None]]
"""By campaign, the task that is fetching it."""
_log = structlog.get_logger(__name__)


class MetricSources:
    """Every source's view of every campaign, the house's own ledger included when it is given as a source.

    A campaign is asked for once at a time: whoever asks meanwhile waits for the same answer. The last figures of `keep`
    campaigns and ranges of days are kept; one that is forgotten is unknown until it is fetched again.
    """

    def __init__(
        self,
        sources: Sequence[MetricSource],
        external_ids: Callable[[str], Mapping[str, str]],
        rates: Rates,
        clock: Clock,
        *,
        house: MetricSource | None = None,
        deadline_s: float = 10.0,
        fresh_s: float = 300.0,
        retry_s: float = 15.0,
        keep: int = 10_000,
    ) -> None:
        """Ask `sources`, and merge in the currency of `rates`.

        Args:
            external_ids: a campaign's id at each source by the source's name; a source that is not named has no part in
                the campaign, a name that is no source's is unknown.
            house: the source that knows campaigns by their ids here, and has a part in each (see OwnFigures).
            deadline_s: how long any answer is waited for.
            fresh_s: figures younger than this are not asked for again; older ones are stale, even if nothing failed.
            retry_s: the same after a failure; a source that told nothing at all is left alone for so long.
            keep: how many campaigns and ranges of days are remembered.

        Raises:
            ConfigError: two sources have the same name.
        """
        self._house = house
        self._sources: dict[str, MetricSource] = {}
        for source in (*sources, *([house] if house is not None else [])):
            if source.name in self._sources:
                raise ConfigError(f"two metric sources are named {source.name!r}; give one another name")
            self._sources[source.name] = source
        self._external_ids = external_ids
        self._currency = rates.currency
        self._clock = clock
        self._deadline_s = deadline_s
        self._retry_ns = round(retry_s * NS)
        self._kept = KeptMetrics(rates, clock, fresh_s=fresh_s, retry_s=retry_s, keep=keep)
        self._flying: dict[tuple[str, Days], _Flights] = {}  # by source and days
        self.on_told: Callable[[Told], None] | None = None
        """Hears of what the sources tell, but not of what the house's ledger says; must not block."""
        self._away: dict[str, tuple[str, int]] = {}  # source -> why, and until when it is not asked

    async def get(self, campaign_ids: Collection[str], days: Days) -> dict[str, MergedMetrics]:
        """The metrics of each campaign, asking the sources for what is not fresh; within the deadline, never raises."""
        asked = list(dict.fromkeys(campaign_ids))
        flights = [await self._ask(source, asked, days) for source in self._sources.values()]
        await self._settle(set().union(*flights))
        found: dict[str, MergedMetrics] = {}
        for part in _chunks(asked, STEP):
            found.update({campaign_id: self.known(campaign_id, days) for campaign_id in part})
            await asyncio.sleep(0)
        self._kept.forget()
        return found

    async def refresh(self, campaign_ids: Collection[str], days: Days) -> None:
        """Ask the sources again, fresh or not, a few calls of each at a time, so that many campaigns overrun nobody.

        Each call has the deadline. A source that is away is asked no further; it holds up no other. Never raises.
        """
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                group.create_task(self._refresh(source, list(dict.fromkeys(campaign_ids)), days))
        self._kept.forget()

    def known(self, campaign_id: str, days: Days) -> MergedMetrics:
        """What is known now, without asking anybody."""
        readings = [self._reading(campaign_id, days, name) for name in self._ids(campaign_id)]
        return merge(campaign_id, days, self._currency, readings)

    def recall(self, told: Told) -> None:
        """Know what was told before this process began; a source that is no more is none of its business."""
        if told.source in self._sources:
            self._kept.recall(told)
            self._kept.forget()

    @property
    def away(self) -> Mapping[str, str]:
        """The sources that last told nothing at all, and why."""
        return {name: reason for name, (reason, _) in self._away.items()}

    async def update_bids(self, updates: Sequence[BidUpdate]) -> list[BidResult]:
        """Set bids at the sources; what became of each, in the same order. Never raises."""
        results: dict[int, BidResult] = {}
        due: dict[str, list[tuple[int, BidUpdate]]] = {}
        named: set[tuple[str, str]] = set()
        for at, update in enumerate(updates):
            there = self._ids(update.campaign_id).get(update.source)
            if update.source not in self._sources:
                results[at] = BidResult(update, reason=f"there is no source {update.source!r}")
            elif there is None:
                results[at] = BidResult(update, reason=f"campaign {update.campaign_id!r} has no id at {update.source}")
            elif (update.source, update.target_id) in named:
                results[at] = BidResult(update, reason="an earlier update of this call has the same target")
            else:
                named.add((update.source, update.target_id))
                due.setdefault(update.source, []).append((at, _there(update, there)))
        async with asyncio.TaskGroup() as group:
            for name, of_source in due.items():
                for chunk in _chunks(of_source, self._sources[name].batch):
                    group.create_task(self._send(self._sources[name], updates, chunk, results))
        return [results[at] for at in range(len(updates))]

    async def close(self) -> None:
        """Ask no more."""
        tasks = {task for flights in self._flying.values() for task in flights.values()}
        for task in tasks:
            task.cancel()
        await self._settle(tasks)
        self._flying.clear()  # of those that were cancelled before they began

    def _reading(self, campaign_id: str, days: Days, name: str) -> Reading:
        if name not in self._sources:
            return Reading(name, Standing.UNKNOWN, reason="no source of this name is set up")
        away, _ = self._away.get(name, ("", 0))
        return self._kept.reading(campaign_id, days, name, away)

    async def _refresh(self, source: MetricSource, campaign_ids: Sequence[str], days: Days) -> None:
        for part in _chunks(campaign_ids, source.batch * ABREAST):
            await self._settle(await self._ask(source, part, days, force=True))

    async def _ask(
        self, source: MetricSource, campaign_ids: Sequence[str], days: Days, *, force: bool = False
    ) -> set[asyncio.Task[None]]:
        """Begin to fetch what is due; the tasks that end when everything asked for is there, those of others too."""
        flights = self._flying.get((source.name, days), {})
        is_away = source.name in self._away and self._clock.monotonic_ns() < self._away[source.name][1]
        tasks: set[asyncio.Task[None]] = set()
        wanted: list[tuple[str, str]] = []
        for at, campaign_id in enumerate(campaign_ids):
            if at % (STEP * STEP) == STEP * STEP - 1:
                await asyncio.sleep(0)
            if campaign_id in flights:
                tasks.add(flights[campaign_id])
            elif not is_away and (force or self._kept.is_due(campaign_id, days, source.name)):
                there = self._ids(campaign_id).get(source.name)
                if there is not None:
                    wanted.append((campaign_id, there))
        for chunk in _chunks(wanted, source.batch):
            tasks |= self._launch(source, chunk, days)
        return tasks

    def _launch(self, source: MetricSource, chunk: Sequence[tuple[str, str]], days: Days) -> set[asyncio.Task[None]]:
        flights = self._flying.setdefault((source.name, days), {})
        tasks = {flights[campaign_id] for campaign_id, _ in chunk if campaign_id in flights}  # by others, meanwhile
        due = [(campaign_id, there) for campaign_id, there in chunk if campaign_id not in flights]
        if due:
            task = asyncio.create_task(self._fetch(source, due, days))
            flights.update(dict.fromkeys([campaign_id for campaign_id, _ in due], task))
            tasks.add(task)
        return tasks

    def _land(self, source: MetricSource, chunk: Sequence[tuple[str, str]], days: Days) -> None:
        flights = self._flying.get((source.name, days), {})
        for campaign_id, _ in chunk:
            flights.pop(campaign_id, None)
        if not flights:
            self._flying.pop((source.name, days), None)

    def _ids(self, campaign_id: str) -> Mapping[str, str]:
        ids = self._external_ids(campaign_id)
        return ids if self._house is None else {**ids, self._house.name: campaign_id}

    @staticmethod
    async def _settle(tasks: Collection[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks)  # a caller who is cancelled does not take the others' answer with him

    async def _fetch(self, source: MetricSource, chunk: Sequence[tuple[str, str]], days: Days) -> None:
        try:
            found, missing = await self._told(source, [there for _, there in chunk], days)
            for part in _chunks(chunk, STEP):
                for campaign_id, there in part:
                    outcome = found.get(there, missing)
                    self._kept.note(campaign_id, days, source.name, outcome)
                    if self.on_told is not None and source is not self._house and isinstance(outcome, CampaignMetrics):
                        self.on_told(Told(campaign_id, source.name, days, outcome, self._clock.time()))
                await asyncio.sleep(0)
        finally:
            self._land(source, chunk, days)

    async def _told(
        self, source: MetricSource, ids: Sequence[str], days: Days
    ) -> tuple[Mapping[str, CampaignMetrics | SourceFailure], SourceFailure]:
        """What a source tells of campaigns, and what is to be said of those it leaves out."""
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await source.fetch(ids, days)
        except Exception as error:  # whatever it is, the other sources' figures stand
            reason = self._why(source.name, error)
            self._tell_away(source.name, reason)
            return {}, SourceFailure(reason)
        self._tell_back(source.name)
        return found, SourceFailure("the source told nothing of this campaign")

    async def _send(
        self,
        source: MetricSource,
        asked: Sequence[BidUpdate],
        chunk: Sequence[tuple[int, BidUpdate]],
        results: dict[int, BidResult],
    ) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                told = await source.update_bids([update for _, update in chunk])
            for (at, _), result in zip(chunk, told, strict=True):
                results[at] = BidResult(asked[at], result.applied_nanos, result.reason)
        except Exception as error:  # the other chunks' results stand
            unsure = "" if isinstance(error, SourceError) else "; it may have been applied"
            for at, _ in chunk:
                results.setdefault(at, BidResult(asked[at], reason=self._why(source.name, error) + unsure))

    def _why(self, name: str, error: Exception) -> str:
        if isinstance(error, RtbError):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"no answer within {self._deadline_s:g} s"
        _log.error("metric_source_broken", source=name, error=type(error).__name__)  # its text may hold a token
        return f"the source failed with {type(error).__name__}"

    def _tell_away(self, name: str, reason: str) -> None:
        if name not in self._away:
            _log.warning("metric_source_away", source=name, reason=reason)
        self._away[name] = (reason, self._clock.monotonic_ns() + self._retry_ns)

    def _tell_back(self, name: str) -> None:
        if self._away.pop(name, None) is not None:
            _log.info("metric_source_back", source=name)


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _there(update: BidUpdate, campaign_id: str) -> BidUpdate:
    return BidUpdate(update.source, campaign_id, update.target_id, update.bid_nanos, update.currency)
