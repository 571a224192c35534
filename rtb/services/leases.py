"""Keeps the leases of shared accounts: asks ahead of the spending, renews, and gives back what is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from rtb.domain.budget import SyncStatus
from rtb.errors import NotFound, StoreError
from rtb.ports import Accounts, Clock
from rtb.services.budgets import Budgets
from rtb.services.purse import NS, Purse
from rtb.services.waiting import ended, within

BATCH = 500
"""Syncs that travel together."""
PROBE = "-"
"""No campaign: what is asked about only to see whether the accounts answer."""
FIRST_PAUSE_S = 0.001
PAUSE_S = 0.05
"""Between syncs of a campaign whose book is closed or missing, and after a failure; the first ones are shorter."""

_log = structlog.get_logger(__name__)


class Leases:
    """Syncs the purses of `budgets` with the accounts."""

    def __init__(
        self,
        budgets: Budgets,
        accounts: Accounts,
        restore: Callable[[Collection[str]], Awaitable[None]],
        clock: Clock,
        *,
        interval_s: float = 1.0,
    ) -> None:
        """Every `interval_s`, and at once for a campaign that needs money. `restore` puts missing books back."""
        self._budgets = budgets
        self._accounts = accounts
        self._restore = restore
        self._clock = clock
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self._is_away: bool | None = None  # None: nobody has asked yet
        self.synced = 0
        self.failed = 0

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> bool:
        """Give back what is free; whether nothing is held any more, so that the instance can leave."""
        if self._task is not None:
            await ended(self._task)
            self._task = None
        try:
            await self.sync(list(self._budgets.active.values()), lease=False)
        except StoreError as error:
            _log.warning("leases_not_returned", reason=str(error))
            return False
        return not self._budgets.held

    async def sync_due(self, *, periodic: bool = True) -> bool:
        """Sync what is urgent, and when `periodic` whatever is due; whether some of it must be tried again soon."""
        budgets = self._budgets
        now, now_ns = self._clock.time(), self._clock.monotonic_ns()
        due, budgets.urgent = budgets.urgent, {}
        if periodic:
            ttl_ns = budgets.timing.ttl_ms * 1_000_000
            for campaign_id, purse in [item for item in budgets.active.items() if item[1].rests_until_ns <= now_ns]:
                budgets.roll(purse, now)
                if purse.is_due(now_ns, ttl_ns):
                    due[campaign_id] = purse
                else:
                    purse.rest(now, now_ns, ttl_ns)
                budgets.forget_idle(purse)
        return await self.sync([purse for purse in due.values() if purse.balance is not None])

    async def sync(self, purses: Sequence[Purse], *, lease: bool = True) -> bool:
        """Sync these; whether some must be tried again soon. Raises StoreError."""
        again = False
        for first in range(0, len(purses), BATCH):
            again |= await self._sync(purses[first : first + BATCH], lease)
        return again

    async def _sync(self, purses: Sequence[Purse], lease: bool) -> bool:
        budgets = self._budgets
        sent_ns = self._clock.monotonic_ns()
        flying = [purse for purse in purses if not purse.flying]
        syncs = [budgets.request(purse, sent_ns, lease=lease) for purse in flying]
        for purse in flying:
            purse.flying = True
        try:
            replies = await self._accounts.sync(syncs)
        except StoreError:
            self.failed += len(flying)
            if lease:
                self._repeat(flying)
            raise
        finally:
            for purse in flying:
                purse.flying = False
        self.synced += len(flying)
        missing: list[str] = []
        unfinished: list[Purse] = []
        for purse, sync, reply in zip(flying, syncs, replies, strict=True):
            budgets.apply(purse, sync, reply, sent_ns)
            if reply.status is SyncStatus.MISSING:
                missing.append(sync.campaign_id)
            if reply.status is not SyncStatus.OK or sync.announce:
                unfinished.append(purse)
        if lease:
            self._repeat(unfinished)
            if missing:
                await self._rebuild(missing)
        return bool(unfinished)

    def _repeat(self, purses: Sequence[Purse]) -> None:
        for purse in purses:
            purse.asks = True
            self._budgets.urgent[purse.campaign.id] = purse

    async def _rebuild(self, campaign_ids: Sequence[str]) -> None:
        try:
            await self._restore(campaign_ids)
        except NotFound as error:
            _log.warning("budget_not_rebuilt", reason=str(error))

    async def _run(self) -> None:
        next_ns, pause_s = 0, FIRST_PAUSE_S
        while True:
            now_ns = self._clock.monotonic_ns()
            periodic = now_ns >= next_ns
            if periodic:
                next_ns = now_ns + int(self._interval_s * NS)
            self._budgets.wake.clear()
            if await self._attempt(periodic):
                await asyncio.sleep(pause_s)
                pause_s = min(4 * pause_s, PAUSE_S)
                continue
            pause_s = FIRST_PAUSE_S
            await within(self._budgets.wake.wait(), (next_ns - self._clock.monotonic_ns()) / NS)

    async def _attempt(self, periodic: bool) -> bool:
        """Sync what is due; whether some of it must be tried again soon. Says once that the accounts are away."""
        try:
            if self._is_away is not False:  # perhaps nothing is due, and a sync of nothing proves nothing
                await self._accounts.identity([PROBE])
            again = await self.sync_due(periodic=periodic)
        except StoreError as error:
            if not self._is_away:
                self._is_away = self._budgets.is_away = True
                _log.warning("leases_not_synced", reason=str(error), remedy="start it, or set state.url")
            return True
        except Exception:
            _log.exception("leases_failed")
            return True
        if self._is_away:
            _log.info("leases_resumed")
        self._is_away = self._budgets.is_away = False
        return again
