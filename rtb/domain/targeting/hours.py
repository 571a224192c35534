"""Hours of the week in a campaign's own time zone."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo


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

        That is the whole hour on the wall; in an hour in which the offset changes, one second.
        """
        known = self._zones.get(timezone)
        if known is None or not known[1] <= now < known[2]:
            known = self._zones[timezone] = self._look_up(timezone, now)
        return known

    @staticmethod
    def _look_up(timezone: str, now: float) -> tuple[int, float, float]:
        zone = ZoneInfo(timezone)
        second = math.floor(now)
        local = datetime.fromtimestamp(second, zone)
        since = second - local.minute * 60 - local.second
        until = since + 3600
        offsets = {datetime.fromtimestamp(at, zone).utcoffset() for at in (since, second, until - 1)}
        if len(offsets) > 1:
            since, until = second, second + 1
        return local.weekday() * 24 + local.hour, float(since), float(until)
