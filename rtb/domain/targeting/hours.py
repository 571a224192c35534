"""Hours of the week in a campaign's own time zone."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

_QUARTER_S = 900


def hour_of_week(timezone: str, now: float) -> int:
    """The hour of the week on a wall there: 0 = Monday 00:00 to 167; `now` in Unix seconds."""
    local = datetime.fromtimestamp(math.floor(now), ZoneInfo(timezone))  # it would round up to the next second
    return local.weekday() * 24 + local.hour


class Hours:
    """`hour_of_week`, remembered for as long as it holds: for the index, which asks for every block it looks at."""

    def __init__(self) -> None:
        self._zones: dict[str, tuple[int, float, float]] = {}

    def at(self, timezone: str, now: float) -> tuple[int, float, float]:
        """The hour of the week, and from when until when (Unix seconds, end excluded) it is sure to be that.

        That is a quarter of an hour, since all offsets in use are multiples of it; a second where an offset is odd
        (before 1972) or changes within the quarter.
        """
        known = self._zones.get(timezone)
        if known is None or not known[1] <= now < known[2]:
            known = self._zones[timezone] = self._look_up(timezone, now)
        return known

    @staticmethod
    def _look_up(timezone: str, now: float) -> tuple[int, float, float]:
        zone = ZoneInfo(timezone)
        quarter = math.floor(now / _QUARTER_S) * _QUARTER_S
        first = datetime.fromtimestamp(quarter, zone).utcoffset()
        last = datetime.fromtimestamp(quarter + _QUARTER_S - 1, zone).utcoffset()
        assert first is not None
        if first == last and first.total_seconds() % _QUARTER_S == 0:
            since, until = float(quarter), float(quarter + _QUARTER_S)
        else:
            since = float(math.floor(now))
            until = since + 1.0
        return hour_of_week(timezone, now), since, until
