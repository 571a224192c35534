"""Budget alerts: told once per campaign, budget day and kind, to ``ad.alerts`` / ``alert.budget`` and the log.

Every daemon may notice at the same moment, and notices again after a restart. The first to claim the alert in the
shared state tells it. Should that state be away, or have lost its memory, it may be told once more by each: always with
the same message id, made of campaign, day and kind, so that a consumer knows it.
"""

from __future__ import annotations

import asyncio

import structlog

from rtb import messages
from rtb.domain.money import NANOS
from rtb.errors import StoreError
from rtb.messages import AlertKind, BudgetAlert, MessageType
from rtb.ports import Clock, Message, StateStore
from rtb.services import topology
from rtb.services.announcements import message_id
from rtb.services.outbox import Outbox

REMEMBERED_S = 2 * 86_400
"""Longer than any budget day, wherever it begins."""
MAX_TOLD = 100_000

_log = structlog.get_logger(__name__)


class BudgetAlerts:
    """Tells what `raise_alert` is called with, the first time."""

    def __init__(self, outbox: Outbox, state: StateStore, clock: Clock, *, instance: str, currency: str) -> None:
        """Speak for `instance`; amounts are in `currency`."""
        self._outbox = outbox
        self._state = state
        self._clock = clock
        self._instance = instance
        self._currency = currency
        self._told: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def raise_alert(self, campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        """Spending came near the limit of a budget day, or to it. Without waiting; call it as often as you like."""
        key = message_id(campaign_id, day, kind.value)
        if key in self._told:
            return
        self._told[key] = None
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        alert = BudgetAlert(
            campaign_id=campaign_id,
            kind=kind,
            day=day,
            share=spent_nanos / limit_nanos if limit_nanos else 1.0,
            spent=spent_nanos / NANOS,
            limit=limit_nanos / NANOS,
            currency=self._currency,
            instance=self._instance,
        )
        task = asyncio.get_running_loop().create_task(self._tell(key, alert))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Finish; call it before the outbox is flushed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _tell(self, key: str, alert: BudgetAlert) -> None:
        try:
            if (await self._state.seen([(f"alert:{key}", self._instance)], REMEMBERED_S))[0]:
                return
        except StoreError as error:
            _log.info("alert_not_claimed", campaign_id=alert.campaign_id, reason=str(error))
        _log.warning(
            "budget_alert",
            campaign_id=alert.campaign_id,
            kind=alert.kind.value,
            day=alert.day,
            share=round(alert.share, 4),
            spent=alert.spent,
            limit=alert.limit,
        )
        kind, now = MessageType.BUDGET_ALERT, self._clock.time()
        body = messages.encode(kind, alert, message_id=key, timestamp=now)
        self._outbox.post(*topology.ROUTES[kind], Message(body=body, message_id=key, timestamp=now))
