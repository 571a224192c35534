"""Sharing of equal values between campaigns: a catalogue repeats the same few tuples and words endlessly."""

from __future__ import annotations

from typing import Any

from msgspec.structs import astuple, force_setattr

from rtb.domain.campaign import Campaign, Creative, Targeting

MAX_KEPT = 200_000

_TARGETING = Targeting.__struct_fields__


class Interner:
    """Replaces values inside of freshly decoded campaigns by equal ones seen before.

    Use one for the length of a load: it forgets everything now and then, so that unique values do not pile up.
    Floats have a memory of their own, because 1 == 1.0; times are left alone, because equal ones may differ in offset.
    """

    def __init__(self) -> None:
        """Start having seen nothing."""
        self._seen: dict[Any, Any] = {}
        self._floats: dict[float, float] = {}

    def share(self, campaign: Campaign) -> Campaign:
        """The same campaign, in less memory. Call it before anybody else has a reference: it writes frozen structs.

        Written out field by field, because it runs a million times while a daemon starts: a loop takes twice as long.
        """
        if len(self._seen) + len(self._floats) > MAX_KEPT:
            self._seen.clear()
            self._floats.clear()
        keep = self._seen.setdefault
        force_setattr(campaign, "advertiser", keep(campaign.advertiser, campaign.advertiser))
        force_setattr(campaign, "timezone", keep(campaign.timezone, campaign.timezone))
        if adomain := campaign.adomain:
            force_setattr(campaign, "adomain", keep(adomain, adomain))
        if cat := campaign.cat:
            force_setattr(campaign, "cat", keep(cat, cat))
        if cap := campaign.frequency_cap:
            force_setattr(campaign, "frequency_cap", keep(cap, cap))
        if deals := campaign.deals:
            force_setattr(campaign, "deals", keep(deals, deals))
        keep_float = self._floats.setdefault
        force_setattr(campaign, "pctr", keep_float(campaign.pctr, campaign.pctr))
        force_setattr(campaign, "pcvr", keep_float(campaign.pcvr, campaign.pcvr))
        if daily_budget := campaign.daily_budget:
            force_setattr(campaign, "daily_budget", keep_float(daily_budget, daily_budget))
        for creative in campaign.creatives:
            self._share_creative(creative)
        self._share_targeting(campaign.targeting)
        return campaign

    def _share_creative(self, creative: Creative) -> None:
        keep = self._seen.setdefault
        if w := creative.w:
            force_setattr(creative, "w", keep(w, w))
        if h := creative.h:
            force_setattr(creative, "h", keep(h, h))
        if mime := creative.mime:
            force_setattr(creative, "mime", keep(mime, mime))
        if attr := creative.attr:
            force_setattr(creative, "attr", keep(attr, attr))

    def _share_targeting(self, targeting: Targeting) -> None:
        seen = self._seen
        for name, values in zip(_TARGETING, astuple(targeting), strict=False):
            if values:
                known = seen.get(values)
                if known is None:
                    known = tuple([seen.setdefault(value, value) for value in values])
                    seen[known] = known
                force_setattr(targeting, name, known)
