"""What campaigns did in the last hour, a point every ten seconds, so that a page opened now has a chart to show.

Of the campaigns that were active last, which are few; a point is four numbers of 8 bytes, so that all trails together
take MOST * KEPT * 32 bytes, 11.5 MB, however many campaigns there are.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct

from rtb.domain.snapshot import Snapshot
from rtb.services.frame_source import KEPT_S, MetricsSource

EVERY_S = 10
KEPT = KEPT_S // EVERY_S
MOST = 1_000
"""Campaigns with a trail."""
_FIELDS = 4
_SLICE, _STEP_S = 32, 0.01
"""Campaigns looked at in one step of the loop, and the pause before the next: auctions are run between them."""
_EARLY_S = 0.5


class CampaignPoint(Struct, frozen=True, array_like=True):
    """A moment of a campaign, as an array: Unix seconds, its figures of the day until then, and what should have been
    spent (null: it was not paced)."""

    time: float
    spent_today: float
    target: float | None
    wins: int


Look = Callable[[str], tuple[float, float | None, int] | None]
"""What a campaign has spent and won today, and its target; None when it is gone."""


class Trails:
    """Looks at campaigns between `start` and what that returns."""

    def __init__(self, recent: Callable[[int], Sequence[str]], look: Look, *, most: int = MOST) -> None:
        """`recent` are the ids of the campaigns that were active last (`Performance.recent`)."""
        self._recent = recent
        self._look = look
        self._most = most
        self._trails: OrderedDict[str, _Trail] = OrderedDict()
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, source: MetricsSource) -> Callable[[], None]:
        """Follow the seconds of `source`; the result ends that."""
        silence = source.subscribe(self._second)

        def end() -> None:
            silence()
            if self._timer is not None:
                self._timer.cancel()

        return end

    def of(self, campaign_id: str, since: float, until: float = math.inf) -> list[CampaignPoint]:
        """Its points between two moments, the oldest first."""
        trail = self._trails.get(campaign_id)
        return [] if trail is None else [point for point in trail.points() if since < point.time < until]

    def _second(self, snapshot: Snapshot) -> None:
        if snapshot.time < self._next:
            return
        self._next = snapshot.time + EVERY_S - _EARLY_S
        if self._timer is not None:
            self._timer.cancel()
        self._go_on(snapshot.time, list(self._recent(self._most)))

    def _go_on(self, time: float, names: Sequence[str]) -> None:
        self._timer = None
        for name in names[:_SLICE]:
            self._add(name, time)
        if len(names) > _SLICE:
            self._timer = asyncio.get_running_loop().call_later(_STEP_S, self._go_on, time, names[_SLICE:])
        else:
            self._forget(time - KEPT_S)

    def _add(self, name: str, time: float) -> None:
        seen = self._look(name)
        if seen is None:
            self._trails.pop(name, None)
            return
        trail = self._trails.get(name)
        if trail is None:
            trail = self._trails[name] = _Trail()
        trail.add(time, *seen)
        self._trails.move_to_end(name)
        if len(self._trails) > self._most:
            self._trails.popitem(last=False)  # the one not looked at for longest

    def _forget(self, before: float) -> None:
        while self._trails and next(iter(self._trails.values())).newest < before:
            self._trails.popitem(last=False)


class _Trail:
    """The last KEPT points in a ring of plain numbers."""

    __slots__ = ("_at", "_numbers", "newest")

    def __init__(self) -> None:
        self._numbers = array("d")
        self._at = 0
        self.newest = 0.0

    def add(self, time: float, spent: float, target: float | None, wins: int) -> None:
        """The newest point."""
        self.newest = time
        numbers = array("d", (time, spent, math.nan if target is None else target, wins))
        if len(self._numbers) < KEPT * _FIELDS:
            self._numbers.extend(numbers)
            return
        self._numbers[self._at : self._at + _FIELDS] = numbers
        self._at = (self._at + _FIELDS) % len(self._numbers)

    def points(self) -> list[CampaignPoint]:
        """All of them, the oldest first."""
        numbers = self._numbers[self._at :] + self._numbers[: self._at]
        return [
            CampaignPoint(time, spent, None if math.isnan(target) else target, int(wins))
            for time, spent, target, wins in zip(*(numbers[i::_FIELDS] for i in range(_FIELDS)), strict=True)
        ]
