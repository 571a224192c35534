"""Deals and floors of an imp, as they meet a campaign."""

from __future__ import annotations

from rtb.domain import auction
from rtb.domain import terms as rules
from rtb.domain.campaign import Campaign, Creative
from rtb.domain.facts import Placement
from rtb.domain.markup import MARKUP_TYPE
from rtb.domain.terms import DealTerms


def admitted(campaign: Campaign, placement: Placement) -> list[str]:
    """Ids of the imp's deals, in its order, that the campaign holds and whose wseat and wadomain let it in."""
    terms = placement.terms
    if terms is None or terms.deals is None or not campaign.deals:
        return []
    return [name for name, deal in terms.deals.items() if name in campaign.deals and _lets_in(deal, campaign)]


def settle(campaign: Campaign, creative: Creative, price_micros: int, placement: Placement) -> tuple[str | None, int]:
    """The deal to bid under, None for an open bid, and the floor that this bid then has to reach.

    That is the first deal let in whose floor the price reaches; when there is none, an open bid, unless the auction is
    private. The price may still be below the floor that is returned.
    """
    deals = admitted(campaign, placement)
    for name in deals:
        floor = floor_micros(campaign, creative, placement, name)
        if price_micros >= floor:
            return name, floor
    if placement.private and deals:
        return deals[0], floor_micros(campaign, creative, placement, deals[0])
    return None, floor_micros(campaign, creative, placement, None)


def floor_micros(campaign: Campaign, creative: Creative, placement: Placement, dealid: str | None) -> int:
    """The floor of one bid, as `rtb.domain.terms` has it."""
    if placement.terms is None:
        return placement.floor_micros
    bid = auction.Bid(
        impid=placement.impid,
        seat=campaign.advertiser,
        price_micros=0,
        dealid=dealid,
        mtype=MARKUP_TYPE[creative.media],
        dur=creative.dur,
    )
    return rules.floor_micros(bid, placement.terms)


def _lets_in(deal: DealTerms, campaign: Campaign) -> bool:
    if deal.wseat is not None and campaign.advertiser not in deal.wseat:
        return False
    return deal.wadomain is None or rules.allows(deal.wadomain, campaign.adomain)
