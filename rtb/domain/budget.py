"""A campaign's budget of one day: spending that cannot pass its limit."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct


class Account(Struct, gc=False):
    """What may still be spent on one budget day, in nanos. `day_ends` is Unix seconds; a limit of None is none."""

    limit_nanos: int | None
    day_ends: float
    spent_nanos: int = 0

    def spendable(self, cost_nanos: int) -> bool:
        """Whether the cost still fits."""
        return self.limit_nanos is None or self.spent_nanos + cost_nanos <= self.limit_nanos

    def debit(self, cost_nanos: int) -> bool:
        """Spend the cost, or nothing when it does not fit; whether it was spent.

        Raises:
            ValueError: a negative cost.
        """
        if cost_nanos < 0:
            raise ValueError("cost_nanos must not be negative")
        if not self.spendable(cost_nanos):
            return False
        self.spent_nanos += cost_nanos
        return True

    def roll(self, now: float, zone: ZoneInfo) -> bool:
        """Begin a new day when the old one is over; whether it did."""
        if now < self.day_ends:
            return False
        self.spent_nanos = 0
        self.day_ends = day_end(now, zone)
        return True


def day_end(now: float, zone: ZoneInfo) -> float:
    """Unix seconds of the next midnight in the zone; days of 23 and 25 hours come out right."""
    today = datetime.fromtimestamp(now, zone).date()
    return datetime.combine(today + timedelta(days=1), datetime.min.time(), zone).timestamp()
