"""Budgets are rebuilt from the ledger: a campaign's book when it is missing, all of a process's at its start.

The epoch is raised first, so that nothing billed on the book that was lost is committed any more; then the ledger is
read; then the book is installed, for the very server that was there before. It opens when the daemons that may hold
leases have announced them; for those that do not in time, the most they may have is reserved. A book that never was is
opened at once.

Accounts in a process have no other daemons. What earlier ones won is in the ledger, and exactly that is reserved, until
it is billed or lapses. The hold of a win that has its impression is not taken up again, whatever the campaign pays for:
of a CPM win it was billed, and of the others it only smoothed the spending; their clicks and conversions are charged to
what is available. So are wins that stood in no ledger yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import count
from zoneinfo import ZoneInfo

import structlog
from msgspec import Struct
from msgspec.structs import replace

from rtb.domain.budget import (
    DAYS_KEPT,
    LIFE,
    NO_LIMIT,
    Limit,
    Opening,
    Reserve,
    Sync,
    SyncStatus,
    Timing,
    budget_day,
    day_before,
    limit,
)
from rtb.domain.campaign import Campaign
from rtb.errors import NotFound
from rtb.ports import Accounts, Clock, Instance, Ledger, LocalAccounts
from rtb.services.ledger_sums import reserves, sums
from rtb.services.purse import NS

FORGET_S = 86_400.0
"""An instance that the ledger has not heard of for a day holds nothing any more."""
HEARTBEAT_S = 30.0
DAYS_REMEMBERED = 100_000
UTC_ZONE = ZoneInfo("UTC")

_log = structlog.get_logger(__name__)
Find = Callable[[str], Awaitable[Campaign | None]]


class Share(Struct, frozen=True):
    """Of a limit, the most that one daemon leases, but at least `floor_nanos` of it."""

    share: float = 1.0
    floor_nanos: int = NS

    def of(self, nanos: int) -> Limit:
        """The limit with its cap."""
        return limit(nanos, share=self.share, floor_nanos=self.floor_nanos)


class Rebuild:
    """Rebuilds the books of shared accounts."""

    def __init__(
        self,
        accounts: Accounts,
        ledger: Ledger,
        find: Find,
        clock: Clock,
        *,
        timing: Timing,
        share: Share | None = None,
    ) -> None:
        """`find` knows every campaign, paused and ended ones too."""
        self._accounts = accounts
        self._ledger = ledger
        self._find = find
        self._clock = clock
        self._timing = timing
        self._share = share or Share()
        self.rebuilt = 0
        """Books that were not new."""

    async def restore(self, campaign_ids: Collection[str]) -> None:
        """Put the books of these campaigns back. Of two daemons that do it at once the later one's stay.

        Raises:
            NotFound: nobody knows one of the campaigns.
            StoreError: the ledger or the accounts are away.
        """
        campaigns = await _found(self._find, campaign_ids)
        ids = list(campaigns)
        identities = dict(zip(ids, await self._accounts.identity(ids), strict=True))
        epochs = await self._ledger.raise_epochs([self._accounts.fence(name) for name in ids])
        now = self._clock.time()
        spent = await sums(self._ledger, campaigns.values(), now)
        waiting = [instance.id for instance in await self._ledger.instances() if now - instance.seen_at < FORGET_S]
        openings = [
            self._opening(campaign, epochs[self._accounts.fence(name)], spent.get(name, {}), waiting, now)
            for name, campaign in campaigns.items()
        ]
        current = await self._ledger.epochs(list(epochs))
        mine = [opening for opening in openings if current[self._accounts.fence(opening.campaign_id)] == opening.epoch]
        await self._accounts.install(mine, [identities[opening.campaign_id] for opening in mine])
        old = [opening.campaign_id for opening in mine if not opening.is_new]
        if old:
            self.rebuilt += len(old)
            _log.warning("budgets_rebuilt", campaigns=len(old), first=old[0], waiting=len(waiting))

    def _opening(
        self, campaign: Campaign, epoch: int, spent: Mapping[str, int], waiting: Sequence[str], now: float
    ) -> Opening:
        is_new = epoch == 1 and not any(spent.values())
        return opening(
            campaign,
            epoch,
            spent,
            now,
            share=self._share,
            waiting=() if is_new else tuple(waiting),
            grace_ms=self._timing.grace_ms,
            is_new=is_new,
        )


class LocalRebuild:
    """Rebuilds the books of accounts in this process, which begin empty: the ledger is read once, at the start, and the
    book of a campaign is opened without I/O when it is first asked for. Nothing is billed before that.

    What was spent of a life is read for the campaigns that have a budget for it. One that is given it later has a book
    without that account, and waits until `restore` has counted.
    """

    def __init__(
        self,
        accounts: LocalAccounts,
        ledger: Ledger,
        find: Find,
        clock: Clock,
        *,
        instance: str,
        timing: Timing,
        share: Share | None = None,
    ) -> None:
        """For the accounts of `instance`."""
        self._accounts = accounts
        self._ledger = ledger
        self._find = find
        self._clock = clock
        self._instance = instance
        self._timing = timing
        self._share = share or Share()
        self._epoch = 1
        self._spent: Mapping[str, Mapping[str, int]] = {}
        self._reserved: Mapping[str, Mapping[str, Reserve]] = {}
        self._lives: set[str] = set()
        self._started = clock.time()
        self._turn = asyncio.Lock()

    async def start(self, campaigns: Collection[Campaign] = ()) -> None:
        """Read the ledger; `campaigns` are at least those with a lifetime budget. Instances whose leases are long over
        are deregistered: nobody else lives here. Raises StoreError."""
        fence = self._accounts.fence("")
        self._epoch = (await self._ledger.raise_epochs([fence]))[fence]
        self._started = now = self._clock.time()
        self._spent = await sums(self._ledger, campaigns, now, all_campaigns=True)
        self._lives = {campaign.id for campaign in campaigns if campaign.lifetime_budget is not None}
        self._reserved = await reserves(self._ledger, now, self._timing)
        over_s = self._timing.lease_ms / 1_000 + HEARTBEAT_S
        for instance in await self._ledger.instances():
            if instance.id != self._instance and now - instance.seen_at > over_s:
                await self._ledger.deregister(instance.id)

    def opening(self, campaign: Campaign) -> Opening:
        """The book of a campaign that none was opened for since the start; without a lifetime account where only the
        ledger knows what belongs there."""
        if campaign.lifetime_budget is not None and campaign.id not in self._lives:
            campaign = replace(campaign, lifetime_budget=None)
        now = self._clock.time()
        after_ms = (now - self._started) * 1_000
        return opening(
            campaign,
            self._epoch,
            self._spent.get(campaign.id, {}),
            now,
            share=self._share,
            reserved=self._reserved.get(campaign.id, {}),
            is_new=after_ms > self._timing.window_ms + self._timing.settle_ms,
        )

    async def restore(self, campaign_ids: Collection[str]) -> None:
        """Open the books of these campaigns, and the lifetime accounts that they lack. Raises NotFound, StoreError."""
        campaigns = await _found(self._find, campaign_ids)
        for campaign in campaigns.values():
            self._accounts.install_now(self.opening(campaign))
        async with self._turn:
            for campaign in campaigns.values():
                if campaign.lifetime_budget_nanos is not None and self._accounts.lacks_life_now(campaign.id):
                    await self._begin_life(campaign, campaign.lifetime_budget_nanos)

    async def _begin_life(self, campaign: Campaign, budget_nanos: int) -> None:
        """Every charge counts once: those that are on their way into the ledger as they are here, the others there."""
        with self._accounts.life_counted(campaign.id) as uncommitted:
            charged = await self._ledger.spent([campaign.id], without=uncommitted)
            spent = sum(nanos for (_, day), nanos in charged.items() if day) + sum(uncommitted.values())
            limit, version = self._share.of(budget_nanos), campaign.version
            self._accounts.begin_life_now(campaign.id, limit, version, spent, self._instance)


class Days:
    """Opens the accounts of days on which a campaign may not have won: its clicks and conversions are billed on the day
    on which they arrive."""

    def __init__(self, accounts: Accounts, find: Find, *, instance: str, share: Share | None = None) -> None:
        """`share` as for the rebuild; `instance` is this process's."""
        self._accounts = accounts
        self._find = find
        self._instance = f"{instance}:days"
        self._share = share or Share()
        self._seqs = count(1)
        self._opened: dict[tuple[str, str], None] = {}

    async def open(self, days: Collection[tuple[str, str]]) -> set[str]:
        """See that each (campaign id, day) has its account. Returns the campaigns whose books are missing, or lack the
        account of a life. Raises StoreError."""
        syncs: dict[tuple[str, str], Sync] = {}
        for campaign_id, day in days:
            key = (campaign_id, day)
            if key not in self._opened and key not in syncs:
                campaign = await self._find(campaign_id)
                if campaign is not None:
                    syncs[key] = self._sync(campaign, day)
        if not syncs:
            return set()
        missing: set[str] = set()
        for key, reply in zip(syncs, await self._accounts.sync(list(syncs.values())), strict=True):
            if reply.status is not SyncStatus.MISSING:
                self._opened[key] = None
            else:
                missing.add(key[0])
        while len(self._opened) > DAYS_REMEMBERED:
            del self._opened[next(iter(self._opened))]
        return missing

    def _sync(self, campaign: Campaign, day: str) -> Sync:
        """Of one who holds nothing and wants nothing."""
        daily, life = campaign.daily_budget_nanos, campaign.lifetime_budget_nanos
        limits = {} if life is None else {LIFE: self._share.of(life)}
        if day != LIFE and (daily is not None or life is None):
            limits[day] = NO_LIMIT if daily is None else self._share.of(daily)
        return Sync(
            campaign_id=campaign.id,
            instance=self._instance,
            seq=next(self._seqs),
            epoch=0,
            version=campaign.version,
            limits=limits,
            moves={},
        )


class Registration:
    """This instance in the ledger, as one that may hold leases, from before its first lease on."""

    def __init__(self, ledger: Ledger, clock: Clock, instance: str) -> None:
        """For one process; the id is new at every start."""
        self._ledger = ledger
        self._clock = clock
        self._instance = instance

    async def beat(self) -> None:
        """Register, or say that it still lives; every HEARTBEAT_S. Raises StoreError."""
        await self._ledger.register(Instance(self._instance, self._clock.time()))

    async def leave(self) -> None:
        """It holds no lease any more and never will. Raises StoreError."""
        await self._ledger.deregister(self._instance)


def opening(
    campaign: Campaign,
    epoch: int,
    spent: Mapping[str, int],
    now: float,
    *,
    share: Share,
    waiting: tuple[str, ...] = (),
    grace_ms: int = 0,
    is_new: bool = False,
    reserved: Mapping[str, Reserve] | None = None,
) -> Opening:
    """The book of a campaign, as of now.

    Yesterday, today and tomorrow are there, because daemons may have leases of them, and older days that were billed.
    """
    today = budget_day(now, campaign.zone)
    day, life = campaign.daily_budget_nanos, campaign.lifetime_budget_nanos
    limits: dict[str, Limit] = {}
    if day is not None or life is None:
        days = {today}
        if not is_new:
            oldest = day_before(today, DAYS_KEPT - 2)
            days |= {day_before(today), day_before(today, -1)} | {d for d in spent if oldest <= d < LIFE}
        limits = dict.fromkeys(sorted(days), NO_LIMIT if day is None else share.of(day))
    if life is not None:
        limits[LIFE] = share.of(life)
    return Opening(
        campaign_id=campaign.id,
        epoch=epoch,
        version=campaign.version,
        floor="" if is_new else day_before(today, 2),
        limits=limits,
        spent={day: spent.get(day, 0) for day in limits},
        waiting=waiting,
        grace_ms=grace_ms,
        is_new=is_new,
        reserved=reserved or {},
    )


async def _found(find: Find, campaign_ids: Collection[str]) -> dict[str, Campaign]:
    found: dict[str, Campaign] = {}
    for campaign_id in dict.fromkeys(campaign_ids):
        campaign = await find(campaign_id)
        if campaign is None:
            raise NotFound(f"campaign {campaign_id!r} is unknown: its budget cannot be rebuilt")
        found[campaign_id] = campaign
    return found
