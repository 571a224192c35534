"""What a house campaign bids in an auction, in CPM micros (1.00 CPM = 1_000_000)."""

from __future__ import annotations

from rtb.domain.campaign import Campaign
from rtb.domain.facts import Context


def bound(campaign: Campaign) -> int:
    """The most that the campaign bids in any auction: what the index ranks it by."""
    return campaign.bid_micros


def price(campaign: Campaign, context: Context) -> int:
    """What it bids in this auction, never above its bound.

    Today the two are equal: pctr and pcvr belong to the campaign and do not depend on the request, so that the index
    keeps the bound of every campaign and takes it for the price.
    """
    return campaign.bid_micros
