"""How many of a campaign's bids win: counted in one auction in several, too seldom to be felt.

Bids and wins are those of the same auctions, so that their ratio is right although neither is a total. Which auctions
are counted is drawn by lot: traffic with a rhythm does not fool it. With `n` bids in the sample a rate of `p` has a
standard error of sqrt(p (1 - p) / n). Counts are kept in memory for some dates, and begin anew with a process; other
instances hear of them by performance updates.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from random import Random
from zoneinfo import ZoneInfo

from msgspec import UNSET
from msgspec.structs import replace

from rtb import messages
from rtb.domain.budget import budget_day
from rtb.domain.performance import NOTHING, Counters, Performed, total
from rtb.domain.targeting.block import Candidate
from rtb.messages import MessageType, PerformanceUpdate
from rtb.ports import Clock, Message
from rtb.services import topology
from rtb.services.announcements import message_id
from rtb.services.exchange import Auction, Outcome
from rtb.services.waiting import ended

EVERY = 16
"""One auction in so many is counted, on average."""
DATES = 3
"""Dates of a campaign in memory."""
TOLD_AT_ONCE = 1_000
"""Campaigns told to others at a time; those that have waited longest first."""
IN_A_STEP = 100
"""Campaigns that are filed in one loop step, or told in one message."""

Post = Callable[[str, str, Message], None]
_Counts = dict[tuple[str, str], Counters]


class BidSample:
    """``exchange.listen(sample.auction_closed)`` and ``CampaignListener(on_performance=...)`` with `sample.hear`."""

    def __init__(
        self,
        clock: Clock,
        *,
        instance: str,
        zone: Callable[[str], ZoneInfo],
        post: Post | None = None,
        every: int = EVERY,
        tell_s: float = 10.0,
        campaigns: int = 20_000,
        dice: Random | None = None,
    ) -> None:
        """Count one auction in `every` (1: each) of this `instance`, on dates in a campaign's `zone`; tell others by
        `post` (exchange, routing key, message; None: nobody) every `tell_s`. `campaigns` are kept in memory."""
        self._clock = clock
        self._instance = instance
        self._zone = zone
        self._post = post
        self._widest = 2 * every - 1
        self._tell_s = tell_s
        self._most = campaigns
        self._dice = dice or Random()
        self._left = self._dice.randint(1, self._widest)
        self._fresh: dict[str, list[int]] = {}
        self._known: OrderedDict[str, _Counts] = OrderedDict()
        self._untold: dict[tuple[str, str], Counters] = {}
        self._told = 0
        self._task: asyncio.Task[None] | None = None
        self.auctions = 0
        """Those that were counted."""

    def auction_closed(self, auction: Auction, outcome: Outcome) -> None:
        """Count the house's bids in an auction, if it is its turn; rehearsals and tests never."""
        self._left -= 1
        if self._left > 0 or auction.rehearsal:
            return
        self._left = self._dice.randint(1, self._widest)
        self.auctions += 1
        fresh = self._fresh
        for result in outcome.results:
            winner = result.winner
            lost = (*result.outbid, *[lost.bid for lost in result.refused])
            for bid in lost if winner is None else (winner, *lost):
                if isinstance(bid, Candidate):
                    counts = fresh.get(bid.campaign.id)
                    if counts is None:
                        counts = fresh[bid.campaign.id] = [0, 0]
                    counts[0] += 1
                    counts[1] += bid is winner

    def hear(self, update: PerformanceUpdate) -> bool:
        """Count what another instance tells; whether that is all there is in an update."""
        if not update.sampled_bids:
            return False
        if update.instance != self._instance:
            counters = Counters(sampled_bids=update.sampled_bids, sampled_wins=update.sampled_wins)
            date = update.day or self._date(update.campaign_id)
            self._add(update.campaign_id, date, update.instance, counters)
        return not (update.wins or update.impressions or update.clicks or update.conversions)

    def performed(self, campaign_id: str, since: str = "", until: str = "") -> Sequence[Performed]:
        """The sample of a campaign on dates from `since` to `until`, both included: an element a date and instance."""
        self._file(campaign_id, self._date(campaign_id))
        counts = self._known.get(campaign_id, {})
        return [
            Performed(campaign_id, date, instance, counters)
            for (date, instance), counters in sorted(counts.items())
            if since <= date and (not until or date <= until)
        ]

    def current(self, campaign_id: str, date: str = "") -> Counters:
        """The sample of a date, by default the last one on which the campaign bid, of all instances."""
        parts = self.performed(campaign_id)
        if not parts:
            return NOTHING
        date = date or parts[-1].date
        return total([part.counters for part in parts if part.date == date])

    async def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.create_task(self._tell_often())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            await ended(self._task)
            self._task = None

    async def tell(self) -> None:
        """Post what others have not heard yet, of some campaigns; auctions go on meanwhile."""
        dates: dict[ZoneInfo, str] = {}
        for number, campaign_id in enumerate(list(self._fresh), 1):
            zone = self._zone(campaign_id)
            if zone not in dates:
                dates[zone] = budget_day(self._clock.time(), zone)
            self._file(campaign_id, dates[zone])
            if not number % IN_A_STEP:
                await asyncio.sleep(0)
        if self._post is None:
            return
        waiting = list(self._untold)[:TOLD_AT_ONCE]
        for first in range(0, len(waiting), IN_A_STEP):
            self._tell(self._post, waiting[first : first + IN_A_STEP])
            await asyncio.sleep(0)

    def _tell(self, post: Post, keys: Sequence[tuple[str, str]]) -> None:
        """One message."""
        kind, now = MessageType.PERFORMANCE_UPDATE, self._clock.time()
        exchange, routing_key = topology.ROUTES[kind]
        first, *more = [self._update(*key, self._untold.pop(key)) for key in keys]
        self._told += 1
        name = message_id("bid-sample", self._instance, str(self._told))
        body = messages.encode(kind, replace(first, more=tuple(more) or UNSET), message_id=name, timestamp=now)
        post(exchange, routing_key, Message(body=body, message_id=name, timestamp=now, persistent=False))

    def _update(self, campaign_id: str, date: str, counters: Counters) -> PerformanceUpdate:
        return PerformanceUpdate(
            campaign_id=campaign_id,
            day=date,
            instance=self._instance,
            sampled_bids=counters.sampled_bids,
            sampled_wins=counters.sampled_wins,
        )

    def _file(self, campaign_id: str, date: str) -> None:
        """What was counted of a campaign since the last time, under a date."""
        counts = self._fresh.pop(campaign_id, None)
        if counts is None:
            return
        counters = Counters(sampled_bids=counts[0], sampled_wins=counts[1])
        self._add(campaign_id, date, self._instance, counters)
        if self._post is not None:
            key = (campaign_id, date)
            self._untold[key] = self._untold.get(key, NOTHING) + counters

    def _add(self, campaign_id: str, date: str, instance: str, counters: Counters) -> None:
        counts = self._known.get(campaign_id)
        if counts is None:
            counts = self._known[campaign_id] = {}
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(campaign_id)
        key = (date, instance)
        if key not in counts:
            dates = sorted({date, *(known for known, _ in counts)})[-DATES:]
            for old in [known for known in counts if known[0] not in dates]:
                del counts[old]
            if date not in dates:
                return
        counts[key] = counts.get(key, NOTHING) + counters

    def _date(self, campaign_id: str) -> str:
        return budget_day(self._clock.time(), self._zone(campaign_id))

    async def _tell_often(self) -> None:
        while True:
            await asyncio.sleep(self._tell_s)
            await self.tell()
