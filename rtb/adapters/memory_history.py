"""The history of campaigns in process memory: for tests, and for a daemon whose history need not outlive it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rtb.ports.history import Action, HistoryEvent


class MemoryHistory:
    """Implements ports.History. Never raises StoreError."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self._events: dict[str, HistoryEvent] = {}

    async def start(self) -> None:
        """Nothing to open."""

    async def append(self, events: Sequence[HistoryEvent]) -> int:
        """Record those whose id is new."""
        before = len(self._events)
        for event in events:
            self._events.setdefault(event.id, event)
        return len(self._events) - before

    async def of(self, campaign_id: str, limit: int = 50) -> Sequence[HistoryEvent]:
        """The last events of a campaign, the newest first."""
        found = [event for event in self._events.values() if event.campaign_id == campaign_id]
        return sorted(found, key=_order, reverse=True)[:limit]

    async def since(self, at: float, actions: Collection[Action]) -> Sequence[HistoryEvent]:
        """Events of these kinds from a moment on, the oldest first."""
        found = [event for event in self._events.values() if event.at >= at and event.action in actions]
        return sorted(found, key=_order)

    async def close(self) -> None:
        """What is recorded stays."""


def _order(event: HistoryEvent) -> tuple[float, str]:
    return event.at, event.id
