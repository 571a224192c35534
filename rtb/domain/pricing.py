"""What a house campaign bids in an auction, in CPM micros (1.00 CPM = 1_000_000)."""

from __future__ import annotations

from rtb.domain.campaign import Campaign
from rtb.domain.facts import Context


def price_micros(campaign: Campaign, context: Context, floor_micros: int) -> int:
    """What it bids in this auction, never above `campaign.top_micros`; one that does not optimise always bids that.

    Args:
        campaign: any.
        context: the facts of the request.
        floor_micros: of the imp.
    """
    return campaign.top_micros
