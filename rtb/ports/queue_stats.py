"""What a broker's management tells about its queues, beyond what a passive declare does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct


class QueueFigures(Struct, frozen=True, gc=False):
    """One queue: messages ready, delivered and unacknowledged, consumers, and messages a second in and out.

    None where it is not told, as of a new queue.
    """

    name: str
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    publish_per_s: float | None = None
    deliver_per_s: float | None = None


class QueueStats(Protocol):
    """Figures of all queues at once."""

    async def figures(self) -> Mapping[str, QueueFigures]:
        """By queue name. Raises BrokerError when it cannot be asked."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
