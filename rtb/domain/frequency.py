"""Frequency caps: how often one user may see one campaign.

Every cap of a campaign has a counter of its own, which the state store keeps a user: the single `frequency_cap` counts
under the campaign's id, each of `frequency_caps` under id and window. A window begins with the first impression in it
and ends by itself; then the counter begins again at 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from rtb.domain.campaign import Campaign


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
