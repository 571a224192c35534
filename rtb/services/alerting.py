"""Who is told that a budget runs out."""

from __future__ import annotations

from typing import Protocol

from rtb.messages import AlertKind


class Alert(Protocol):
    """Tells that a budget is nearly or wholly spent; it may be called often, and tells once."""

    def __call__(self, campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        """Without waiting."""
