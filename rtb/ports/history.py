"""What happened to campaigns: a durable record of every change and every automatic action, with its cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct


class Action(StrEnum):
    """What was done. A pause and a resumption by budget change no stored status; all the others are of a version."""

    CREATED = "created"
    CHANGED = "changed"
    PAUSED = "paused"
    RESUMED = "resumed"
    ENDED = "ended"
    STARTED = "started"
    BUDGET_ALERT = "budget alert"
    BUDGET_PAUSED = "paused by budget"
    BUDGET_RESUMED = "resumed by budget"


class HistoryEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One action. `id` is made of what happened, so that daemons who notice the same record it once. `at` is Unix
    seconds, `actor` who did it (admin, queue, automation), `cause` why, in words; `details` is plain JSON: for a change
    the fields that differ, each as [before, after]."""

    id: str
    campaign_id: str
    at: float
    actor: str
    action: Action
    cause: str = ""
    details: Mapping[str, Any] = {}


class History(Protocol):
    """The record. Every method raises StoreError when the database is away or refuses."""

    async def start(self) -> None:
        """Open it."""
        ...

    async def append(self, events: Sequence[HistoryEvent]) -> int:
        """Record the events in one transaction, those whose id is known left out; how many were written."""
        ...

    async def of(self, campaign_id: str, limit: int = 50) -> Sequence[HistoryEvent]:
        """The last events of a campaign, the newest first."""
        ...

    async def since(self, at: float, actions: Collection[Action]) -> Sequence[HistoryEvent]:
        """Events of these kinds from `at` (Unix seconds) on, the oldest first."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close."""
        ...
