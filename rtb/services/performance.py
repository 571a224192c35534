"""What each campaign's ads did: figures in memory for dashboards and decisions, and the ledger's truth on demand.

In memory are the last dates of the campaigns that were active last. What this daemon writes to the ledger counts at
once; what others write is told by their performance updates, about once a second. Updates may be lost and some may
count twice; what was active is read again from the ledger every now and then, so that the figures come out right.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from itertools import islice

import structlog
from msgspec.structs import replace

from rtb import messages
from rtb.domain.budget import budget_day, day_before
from rtb.domain.money import NANOS
from rtb.domain.performance import NOTHING, Counters, Performed
from rtb.errors import StoreError
from rtb.messages import MessageType, PerformanceUpdate
from rtb.ports import Clock, Ledger, LedgerKind, LedgerRow, Message
from rtb.services import topology
from rtb.services.announcements import message_id
from rtb.services.rebuild import UTC_ZONE
from rtb.services.waiting import ended

DATES = 3
"""Dates of a campaign in memory: yesterday, today, and tomorrow in zones that are ahead."""
REMEMBERED = 20_000
CHUNK = 500
"""Campaigns read at once."""
TOLD = 100
"""Updates told in one message."""
OVERLAP_S = 60.0
"""An event may be in the ledger so long after its receipt and still be noticed by time; later ones by their update."""
REST = 20.0
"""A refresh that took a second is followed by so many seconds without one."""

_PLACE = {kind: Counters.__struct_fields__.index(f"{kind.value}s") for kind in LedgerKind}
_COST, _REVENUE = (Counters.__struct_fields__.index(name) for name in ("cost_nanos", "revenue_nanos"))

_log = structlog.get_logger(__name__)
Post = Callable[[str, str, Message], None]


class Performance:
    """``billing.on_written = performance.note`` and ``CampaignListener(on_performance=performance.hear)``."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        instance: str,
        post: Post | None = None,
        campaigns: int = 20_000,
        tell_s: float = 1.0,
        refresh_s: float = 30.0,
    ) -> None:
        """Keep `campaigns` in memory; tell others by `post` (exchange, routing key, message) every `tell_s` what this
        `instance` wrote; read what was active from the ledger every `refresh_s`, at most."""
        self._ledger = ledger
        self._clock = clock
        self._instance = instance
        self._post = post
        self._most = campaigns
        self._tell_s = tell_s
        self._refresh_s = refresh_s
        self._known: OrderedDict[str, dict[str, Counters]] = OrderedDict()
        self._untold: dict[tuple[str, str], Counters] = {}
        self._changed: set[str] = set()
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._refreshed_at = 0.0
        self._told = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.repeated = 0
        """Updates that had been heard before."""

    async def start(self) -> None:
        """Read what was done since yesterday, and begin. Raises StoreError."""
        self._refreshed_at = self._clock.time() - 2 * 86_400
        await self.refresh()
        self._tasks = [asyncio.create_task(self._tell_often()), asyncio.create_task(self._refresh_often())]

    async def stop(self) -> None:
        """Tell what is untold, and end."""
        await ended(*self._tasks)
        self._tasks = []
        await self.tell()

    def note(self, rows: Sequence[LedgerRow]) -> None:
        """Count rows that this daemon has just brought into the ledger."""
        sums: dict[tuple[str, str], list[int]] = {}
        for row in rows:
            key = (row.campaign_id, row.date)
            numbers = sums.get(key)
            if numbers is None:
                numbers = sums[key] = [0] * len(Counters.__struct_fields__)
            numbers[_PLACE[row.kind]] += 1
            numbers[_COST] += row.charged_nanos
            numbers[_REVENUE] += row.value_nanos
        for key, numbers in sums.items():
            counters = Counters(*numbers)
            self._add(*key, counters)
            self._untold[key] = self._untold.get(key, NOTHING) + counters

    def hear(self, update: PerformanceUpdate, message_id: str = "") -> None:
        """Count what another daemon tells; of its own updates and of repeated ones nothing."""
        if update.instance == self._instance:
            return
        if message_id:
            if message_id in self._heard:
                self.repeated += 1
                return
            self._heard[message_id] = None
            if len(self._heard) > REMEMBERED:
                self._heard.popitem(last=False)
        date = update.day or budget_day(self._clock.time(), UTC_ZONE)
        counters = Counters(
            update.wins,
            update.impressions,
            update.clicks,
            update.conversions,
            round(update.spend * NANOS),
            round(update.revenue * NANOS),
        )
        self._add(update.campaign_id, date, counters)

    def current(self, campaign_id: str, date: str = "") -> Counters:
        """A campaign's figures of a date, by default the last one on which it did anything, without I/O."""
        dates = self._known.get(campaign_id)
        if not dates:
            return NOTHING
        return dates.get(date or max(dates), NOTHING)

    def recent(self, count: int) -> list[str]:
        """The campaigns in memory that were active last, the last one first."""
        return list(islice(reversed(self._known), count))

    def top(self, count: int, day_of: Callable[[str], str]) -> list[tuple[str, Counters]]:
        """The campaigns that cost most on the date that `day_of` gives for each, the dearest first; of those that cost
        the same, those that won most."""
        active = (
            (campaign_id, dates[day])
            for campaign_id, dates in self._known.items()
            if (day := day_of(campaign_id)) in dates
        )
        return heapq.nsmallest(count, active, key=lambda known: (-known[1].cost_nanos, -known[1].wins, known[0]))

    async def stats(self, campaign_id: str, since: str = "", until: str = "") -> Sequence[Performed]:
        """What the ledger says of a campaign's dates from `since` to `until`, both included: an element a date and
        instance. Raises StoreError."""
        return await self._ledger.performance([campaign_id], since=since, until=until)

    async def refresh(self, campaign_ids: Collection[str] | None = None) -> None:
        """Read these campaigns (None: those in memory that changed, and those that were active) from the ledger.

        Raises:
            StoreError: it is away; what was read so far counts.
        """
        now = self._clock.time()
        if campaign_ids is None:
            self._changed.update(await self._ledger.active(self._refreshed_at - OVERLAP_S))
            campaign_ids, self._changed = self._changed, set()
        names = list(campaign_ids)
        since = day_before(budget_day(now, UTC_ZONE), 2)
        for first in range(0, len(names), CHUNK):
            part = names[first : first + CHUNK]
            try:
                found = await self._ledger.performance(part, since=since)
            except StoreError:
                self._changed.update(names[first:])
                raise
            self._replace(part, found)
        self._refreshed_at = now

    async def tell(self) -> None:
        """Post what was written since the last time: an update a campaign and date, TOLD of them in a message."""
        untold, self._untold = self._untold, {}
        if self._post is None:
            return
        kind, now = MessageType.PERFORMANCE_UPDATE, self._clock.time()
        exchange, routing_key = topology.ROUTES[kind]
        known = iter(untold.items())
        while some := [_update(*of, self._instance, counters) for of, counters in islice(known, TOLD)]:
            update = replace(some[0], more=tuple(some[1:])) if len(some) > 1 else some[0]
            self._told += 1
            name = message_id("performance", self._instance, str(self._told))
            body = messages.encode(kind, update, message_id=name, timestamp=now)
            self._post(exchange, routing_key, Message(body=body, message_id=name, timestamp=now, persistent=False))
            if len(some) == TOLD:
                await asyncio.sleep(0)  # auctions go on meanwhile

    def _add(self, campaign_id: str, date: str, counters: Counters) -> None:
        self._changed.add(campaign_id)
        dates = self._known.get(campaign_id)
        if dates is None:
            dates = self._known[campaign_id] = {}
            self._forget()
        else:
            self._known.move_to_end(campaign_id)
        dates[date] = dates.get(date, NOTHING) + counters
        if len(dates) > DATES:
            del dates[min(dates)]

    def _replace(self, campaign_ids: Sequence[str], found: Sequence[Performed]) -> None:
        truth: dict[str, dict[str, Counters]] = {campaign_id: {} for campaign_id in campaign_ids}
        for one in found:
            dates = truth[one.campaign_id]
            dates[one.date] = dates.get(one.date, NOTHING) + one.counters
        for campaign_id, dates in truth.items():
            newest = sorted(dates)[-DATES:]
            if newest:
                self._known[campaign_id] = {date: dates[date] for date in newest}
            else:
                self._known.pop(campaign_id, None)
        self._forget()

    def _forget(self) -> None:
        while len(self._known) > self._most:
            self._changed.discard(self._known.popitem(last=False)[0])

    async def _tell_often(self) -> None:
        while True:
            await asyncio.sleep(self._tell_s)
            await self.tell()

    async def _refresh_often(self) -> None:
        took_s = 0.0
        while True:
            await asyncio.sleep(max(self._refresh_s, REST * took_s))
            began_ns = self._clock.monotonic_ns()
            try:
                await self.refresh()
            except StoreError as error:
                _log.info("performance_not_refreshed", reason=str(error))
            except Exception:
                _log.exception("performance_not_refreshed")
            took_s = (self._clock.monotonic_ns() - began_ns) / 1e9


def _update(campaign_id: str, date: str, instance: str, counters: Counters) -> PerformanceUpdate:
    return PerformanceUpdate(
        campaign_id=campaign_id,
        impressions=counters.impressions,
        clicks=counters.clicks,
        conversions=counters.conversions,
        spend=counters.cost_nanos / NANOS,
        revenue=counters.revenue_nanos / NANOS,
        wins=counters.wins,
        day=date,
        instance=instance,
    )
