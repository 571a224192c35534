"""Sharing of equal values between campaigns: a catalogue repeats the same few tuples and words endlessly."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from msgspec.structs import astuple, force_setattr

from rtb.domain.campaign import Campaign, Targeting

MAX_KEPT = 200_000

_TARGETING = Targeting.__struct_fields__
_CAMPAIGN = ("advertiser", "adomain", "cat", "timezone", "frequency_cap", "deals")
_CREATIVE = ("w", "h", "mime", "language", "attr")
_of_campaign = attrgetter(*_CAMPAIGN)
_of_creative = attrgetter(*_CREATIVE)


class Interner:
    """Replaces values inside of freshly decoded campaigns by equal ones seen before.

    Use one for the length of a load: it forgets everything now and then, so that unique values do not pile up.
    Only fields of str, int, tuples and structs of these are touched, so that equal means identical in type as well.
    """

    def __init__(self) -> None:
        """Start having seen nothing."""
        self._seen: dict[Any, Any] = {}

    def share(self, campaign: Campaign) -> Campaign:
        """The same campaign, in less memory. Call it before anybody else has a reference: it writes frozen structs."""
        seen = self._seen
        keep = seen.setdefault
        if len(seen) > MAX_KEPT:
            seen.clear()
        for name, value in zip(_CAMPAIGN, _of_campaign(campaign), strict=True):
            if value and (known := keep(value, value)) is not value:
                force_setattr(campaign, name, known)
        for creative in campaign.creatives:
            for name, value in zip(_CREATIVE, _of_creative(creative), strict=True):
                if value and (known := keep(value, value)) is not value:
                    force_setattr(creative, name, known)
        for name, values in zip(_TARGETING, astuple(campaign.targeting), strict=True):
            if values:
                known = seen.get(values)
                if known is None:
                    known = tuple([keep(value, value) for value in values])
                    seen[known] = known
                force_setattr(campaign.targeting, name, known)
        return campaign
