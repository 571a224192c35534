"""The metrics of campaigns from several sources: fetched together, kept, merged, and honest about what is missing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog

from rtb.domain.money import Rates
from rtb.domain.source_metrics import (
    CampaignMetrics,
    Days,
    Figures,
    MergedMetrics,
    Reading,
    Standing,
    converted,
    merge,
)
from rtb.errors import RtbError
from rtb.ports import Clock
from rtb.ports.metric_source import BidResult, BidUpdate, MetricSource, SourceError, SourceFailure

NS = 1_000_000_000
_T = TypeVar("_T")
_Asked = tuple[str, Days, str]  # campaign, days, source
_log = structlog.get_logger(__name__)


class _Kept:
    """What is known of one campaign at one source: its last figures, and why there are no newer ones."""

    __slots__ = ("figures", "got_ns", "reason", "tried_ns")

    def __init__(self) -> None:
        self.figures: Figures | None = None
        self.got_ns = 0
        self.tried_ns = 0
        self.reason = ""


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
                the campaign.
            house: the source that knows campaigns by their ids here, and has a part in each (see OwnFigures).
            deadline_s: how long any answer is waited for.
            fresh_s: figures younger than this are not asked for again; older ones are stale, even if nothing failed.
            retry_s: the same after a failure.
            keep: how many campaigns and ranges of days are remembered.
        """
        self._house = house
        self._sources = {source.name: source for source in (*sources, *([house] if house is not None else []))}
        self._external_ids = external_ids
        self._rates = rates
        self._clock = clock
        self._deadline_s = deadline_s
        self._fresh_ns = round(fresh_s * NS)
        self._retry_ns = round(retry_s * NS)
        self._keep = keep
        self._kept: OrderedDict[tuple[str, Days], dict[str, _Kept]] = OrderedDict()
        self._flying: dict[_Asked, asyncio.Task[None]] = {}
        self._away: set[str] = set()

    async def get(self, campaign_ids: Collection[str], days: Days) -> dict[str, MergedMetrics]:
        """The metrics of each campaign, asking the sources for what is not fresh; within the deadline, never raises."""
        await self._settle(self._ask(campaign_ids, days))
        found = {campaign_id: self.known(campaign_id, days) for campaign_id in campaign_ids}
        self._forget()
        return found

    async def refresh(self, campaign_ids: Collection[str], days: Days) -> None:
        """Ask the sources again, fresh or not; within the deadline, never raises."""
        await self._settle(self._ask(campaign_ids, days, force=True))
        self._forget()

    def known(self, campaign_id: str, days: Days) -> MergedMetrics:
        """What is known now, without asking anybody."""
        kept = self._kept.get((campaign_id, days), {})
        here = self._ids(campaign_id)
        readings = [self._reading(name, kept.get(name)) for name in self._sources if name in here]
        return merge(campaign_id, days, self._rates.currency, readings)

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
        tasks = set(self._flying.values())
        for task in tasks:
            task.cancel()
        await self._settle(tasks)

    def _ask(self, campaign_ids: Collection[str], days: Days, *, force: bool = False) -> set[asyncio.Task[None]]:
        """Begin to fetch what is due; the tasks that end when everything asked for is there, those of others too."""
        tasks: set[asyncio.Task[None]] = set()
        external = {campaign_id: self._ids(campaign_id) for campaign_id in dict.fromkeys(campaign_ids)}
        for name, source in self._sources.items():
            wanted: list[tuple[str, str]] = []
            for campaign_id, ids in external.items():
                flying = self._flying.get((campaign_id, days, name))
                if flying is not None:
                    tasks.add(flying)
                elif name in ids and (force or self._is_due(campaign_id, days, name)):
                    wanted.append((campaign_id, ids[name]))
            for chunk in _chunks(wanted, source.batch):
                task = asyncio.create_task(self._fetch(source, chunk, days))
                self._flying.update(dict.fromkeys([(campaign_id, days, name) for campaign_id, _ in chunk], task))
                tasks.add(task)
        return tasks

    def _ids(self, campaign_id: str) -> Mapping[str, str]:
        ids = self._external_ids(campaign_id)
        return ids if self._house is None else {**ids, self._house.name: campaign_id}

    def _is_due(self, campaign_id: str, days: Days, name: str) -> bool:
        kept = self._kept.get((campaign_id, days), {}).get(name)
        if kept is None:
            return True
        patience_ns = self._retry_ns if kept.reason else self._fresh_ns
        return self._clock.monotonic_ns() - kept.tried_ns >= patience_ns

    @staticmethod
    async def _settle(tasks: Collection[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks)  # a caller who is cancelled does not take the others' answer with him

    async def _fetch(self, source: MetricSource, chunk: Sequence[tuple[str, str]], days: Days) -> None:
        found: Mapping[str, CampaignMetrics | SourceFailure] = {}
        missing = SourceFailure("the source told nothing of this campaign")
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await source.fetch([there for _, there in chunk], days)
        except Exception as error:  # whatever it is, the other sources' figures stand
            missing = SourceFailure(self._why(source.name, error))
            self._tell_away(source.name, missing.reason)
        else:
            self._tell_back(source.name)
        finally:
            for campaign_id, _ in chunk:
                self._flying.pop((campaign_id, days, source.name), None)
        for campaign_id, there in chunk:
            self._note((campaign_id, days, source.name), found.get(there, missing))

    def _note(self, asked: _Asked, outcome: CampaignMetrics | SourceFailure) -> None:
        campaign_id, days, name = asked
        of_campaign = self._kept.setdefault((campaign_id, days), {})
        self._kept.move_to_end((campaign_id, days))
        kept = of_campaign.setdefault(name, _Kept())
        kept.tried_ns = self._clock.monotonic_ns()
        if isinstance(outcome, SourceFailure):
            kept.reason = outcome.reason
        elif not self._rates.knows(outcome.currency):
            kept.reason = f"there is no exchange rate for {outcome.currency}"
        else:
            kept.figures, kept.got_ns, kept.reason = converted(outcome, self._rates), kept.tried_ns, ""

    def _reading(self, name: str, kept: _Kept | None) -> Reading:
        if kept is None:
            return Reading(name, Standing.UNKNOWN, reason="not fetched yet")
        if kept.figures is None:
            return Reading(name, Standing.UNKNOWN, reason=kept.reason)
        age_ns = self._clock.monotonic_ns() - kept.got_ns
        reason = kept.reason
        if not reason and age_ns > self._fresh_ns:
            reason = "not asked for again since"
        return Reading(name, Standing.STALE if reason else Standing.FRESH, kept.figures, age_ns / NS, reason)

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
            self._away.add(name)
            _log.warning("metric_source_away", source=name, reason=reason)

    def _tell_back(self, name: str) -> None:
        if name in self._away:
            self._away.remove(name)
            _log.info("metric_source_back", source=name)

    def _forget(self) -> None:
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)


class OwnFigures:
    """The house's own figures as one more source: what its ledger says of its campaigns, by their ids here."""

    def __init__(
        self,
        look_up: Callable[[Sequence[str], Days], Awaitable[Mapping[str, Figures]]],
        currency: str,
        *,
        name: str = "house",
        batch: int = 1_000,
    ) -> None:
        """Ask `look_up`, whose figures are in `currency`; a campaign that it leaves out is a failure, not a zero."""
        self._look_up = look_up
        self._currency = currency
        self.name = name
        self.batch = batch

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """What the ledger says."""
        found = await self._look_up(ids, days)
        return {campaign_id: CampaignMetrics(figures, self._currency) for campaign_id, figures in found.items()}

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Refuse: a house campaign's bid is changed in its definition."""
        return [BidResult(update, reason="a bid of the house is set by changing its campaign") for update in updates]


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _there(update: BidUpdate, campaign_id: str) -> BidUpdate:
    return BidUpdate(update.source, campaign_id, update.target_id, update.bid_nanos, update.currency)
