"""Recording what happens to campaigns: soon, without holding anybody up, and again until the database takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from rtb.domain.campaign import Campaign, Status
from rtb.errors import StoreError
from rtb.ports import Clock
from rtb.ports.history import Action, History, HistoryEvent
from rtb.services.announcements import message_id

MAX_WAITING = 100_000
BATCH = 500
AGAIN_FIRST_S, AGAIN_MOST_S = 0.1, 5.0
_LONG = frozenset({"creatives", "targeting"})
"""Fields that a change only names: what they were would fill pages."""
_STATUS = {Status.ACTIVE: Action.RESUMED, Status.PAUSED: Action.PAUSED, Status.ENDED: Action.ENDED}

_log = structlog.get_logger(__name__)


class Recorder:
    """Writes events to the history, many at once. What waits when the process is killed is lost with it; automatic
    actions are then noticed, and recorded, again."""

    def __init__(self, history: History, clock: Clock) -> None:
        """Write to `history`, which is open."""
        self.history = history
        self._clock = clock
        self._waiting: deque[HistoryEvent] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.dropped = 0
        """Events that were never written: too many waited while the database was away."""

    def record(
        self,
        campaign_id: str,
        action: Action,
        *,
        key: Sequence[str],
        actor: str,
        cause: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an action soon. With the campaign, `key` makes its id: the same for whoever else notices it."""
        event = HistoryEvent(
            id=message_id(campaign_id, action.value, *key),
            campaign_id=campaign_id,
            at=self._clock.time(),
            actor=actor,
            action=action,
            cause=cause,
            details=details or {},
        )
        if len(self._waiting) >= MAX_WAITING:
            if not self.dropped:
                _log.warning("history_dropped", note="too much waits for the database; further ones are only counted")
            self.dropped += 1
            return
        self._waiting.append(event)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    def changed(self, old: Campaign | None, new: Campaign, actor: str, cause: str = "") -> None:
        """Record a change of the catalogue: one event a version."""
        details = {} if old is None else differences(old, new)
        if old is None:
            action = Action.CREATED
        elif details.keys() == {"status"}:
            action = _STATUS[new.status]
        else:
            action = Action.CHANGED
        self.record(new.id, action, key=("version", str(new.version)), actor=actor, cause=cause, details=details)

    async def stop(self) -> None:
        """Write what waits; a database that is away is tried once more."""
        self._closing.set()
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        again_s = AGAIN_FIRST_S
        try:
            while self._waiting:
                batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
                last = self._closing.is_set()
                try:
                    await self.history.append(batch)
                except StoreError as error:
                    if again_s == AGAIN_FIRST_S or last:
                        _log.warning("history_not_written", waiting=len(self._waiting), reason=str(error))
                    if last:
                        return
                else:
                    for _ in batch:
                        self._waiting.popleft()
                    again_s = AGAIN_FIRST_S
                    continue
                try:
                    await asyncio.wait_for(self._closing.wait(), again_s)
                except TimeoutError:
                    again_s = min(2 * again_s, AGAIN_MOST_S)
        finally:
            self._writing = None


def differences(old: Campaign, new: Campaign) -> dict[str, Any]:
    """The fields that differ, each as [before, after]; long ones as ["...", "..."]. The version is none of them."""
    found: dict[str, Any] = {}
    for field in Campaign.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after and field != "version":
            found[field] = ["...", "..."] if field in _LONG else msgspec.to_builtins([before, after])
    return found
