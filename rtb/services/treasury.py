"""The life of a daemon's budgets: registered before the first lease, kept while it runs, given back when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from rtb.domain.campaign import Campaign
from rtb.errors import NotFound, StoreError
from rtb.services.budgets import Budgets
from rtb.services.leases import Leases
from rtb.services.rebuild import HEARTBEAT_S, LocalRebuild, Registration
from rtb.services.waiting import ended

PAUSE_S = 0.05
"""Between two looks into the ledger for lifetime budgets that are new."""

_log = structlog.get_logger(__name__)


class Treasury:
    """Starts and stops what budgets need."""

    def __init__(
        self,
        budgets: Budgets,
        registration: Registration,
        *,
        local: LocalRebuild | None = None,
        leases: Leases | None = None,
        interval_s: float = HEARTBEAT_S,
    ) -> None:
        """Keep `budgets` in step with their accounts: those in this process (`local`), or shared ones (`leases`); say
        every `interval_s` that the instance lives."""
        self._interval_s = interval_s
        self._budgets = budgets
        self._registration = registration
        self._local = local
        self._leases = leases
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, campaigns: Collection[Campaign]) -> None:
        """Register, and rebuild the accounts of this process; `campaigns` is the catalogue. Raises StoreError."""
        await self._registration.beat()
        if self._local is not None:
            await self._local.start([campaign for campaign in campaigns if campaign.lifetime_budget is not None])
            self._tasks.append(asyncio.create_task(self._restore(self._local)))
        if self._leases is not None:
            await self._leases.start()
        self._tasks.append(asyncio.create_task(self._beat()))

    async def stop(self) -> None:
        """Give back what is free, and leave unless something is held: that is billed within minutes, or lapses."""
        await ended(*self._tasks)
        self._tasks = []
        if self._leases is not None:
            is_free = await self._leases.stop()
        else:
            self._budgets.look()
            is_free = not self._budgets.held
        try:
            if is_free:
                await self._registration.leave()
            else:
                await self._registration.beat()
        except StoreError as error:
            _log.warning("instance_not_deregistered", reason=str(error))

    async def _restore(self, local: LocalRebuild) -> None:
        """Put into the accounts of this process what campaigns miss there: a lifetime budget that is new."""
        budgets = self._budgets
        is_away = False
        while True:
            await budgets.wake.wait()
            budgets.wake.clear()
            urgent, budgets.urgent = budgets.urgent, {}
            try:
                await local.restore(urgent)
            except (StoreError, NotFound) as error:
                if not is_away:
                    _log.warning("lifetime_budgets_not_counted", reason=str(error), campaigns=len(urgent))
                is_away = True  # and they ask again: a campaign that ran dry does, now and then
            except Exception:
                _log.exception("lifetime_budgets_not_counted")
            else:
                is_away = False
                budgets.restored(urgent)
            await asyncio.sleep(PAUSE_S)

    async def _beat(self) -> None:
        is_away = False
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._registration.beat()
            except Exception as error:  # whatever it is: an instance nobody hears of for a day is forgotten
                if not is_away:
                    unexpected = None if isinstance(error, StoreError) else error
                    _log.warning("instance_not_registered", reason=str(error), exc_info=unexpected)
                is_away = True
            else:
                is_away = False
