"""Frequency caps: how often one user may see one campaign.

Every cap of a campaign has a counter of its own, which the state store keeps a user: the single `frequency_cap` counts
under the campaign's id, each of `frequency_caps` under id and window. A window begins with the first impression in it
and ends by itself; then the counter begins again at 0.

How well caps hold across daemons: what a daemon shows it counts itself at once; what others show it hears when it looks
the user up again, after `profiles.fresh_s` at most. So in one daemon a cap is exact, and a user whose requests go to n
of them within that time may see a campaign up to n times as often as its cap allows in one window, and no more often
after it. Where counters are not known in time (the state store is away or late) a policy decides, `OnUnknown`, and
every decision made so is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from rtb.domain.campaign import Campaign


class OnUnknown(StrEnum):
    """What becomes of a campaign with a cap when the user's counters are not known in time."""

    BID = "bid"
    SKIP = "skip"


class Unknown(Mapping[str, int]):
    """Counters that are not known: to one who bids anyway they seem to be empty, to one who skips all caps reached."""

    def __init__(self, policy: OnUnknown = OnUnknown.BID) -> None:
        """Decide by `policy`."""
        self._skips = policy is OnUnknown.SKIP
        self.asked = 0
        """How often a capped campaign was decided on so."""

    def __contains__(self, counter: object) -> bool:
        """Asked by who would then look the count up; "" is asked for campaigns without a cap."""
        if not counter:
            return False
        self.asked += not self._skips
        return self._skips

    def __getitem__(self, counter: str) -> int:
        if not self._skips:
            raise KeyError(counter)
        self.asked += 1
        return sys.maxsize

    def get(self, counter: str, default: int = 0) -> int:  # type: ignore[override]
        """More than any cap, or `default`."""
        self.asked += 1
        return sys.maxsize if self._skips else default

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        """True: there is something to ask."""
        return True


class Cap(Struct, frozen=True, gc=False):
    """At most `count` impressions in `window_s` seconds, counted under `counter`."""

    counter: str
    count: int
    window_s: int


def caps(campaign: Campaign) -> Sequence[Cap]:
    """All caps of a campaign, each with its counter."""
    single, several = campaign.frequency_cap, campaign.frequency_caps
    if single is None and not several:
        return ()
    found = [] if single is None else [Cap(campaign.id, single.count, single.window_s)]
    return found + [Cap(f"{campaign.id}/{cap.window_s}", cap.count, cap.window_s) for cap in several]


def capped(campaign: Campaign, counts: Mapping[str, int]) -> Cap | None:
    """The first cap that the user has reached, None when the campaign may be shown once more.

    Args:
        campaign: any.
        counts: the user's impressions, a counter each.
    """
    return reached(caps(campaign), counts)


def reached(caps: Sequence[Cap], counts: Mapping[str, int]) -> Cap | None:
    """The first of these caps that the user has reached, if any."""
    for cap in caps:
        if counts.get(cap.counter, 0) >= cap.count:
            return cap
    return None


def objection(campaign: Campaign, counts: Mapping[str, int]) -> str:
    """Why the user may not see the campaign now, in words; "" when nothing forbids it."""
    cap = capped(campaign, counts)
    if cap is None:
        return ""
    seen = "unknown how many" if isinstance(counts, Unknown) else str(counts[cap.counter])
    return f"{seen} shown, at most {cap.count} in {cap.window_s} s"
