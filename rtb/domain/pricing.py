"""What a house campaign bids in an auction, in CPM micros (1.00 CPM = 1_000_000).

A campaign that optimises bids

    base bid x (1 + user value) x (1 + context score) x (1 - margin)

where the base bid is what a thousand impressions are worth to it by `bid`, pctr and pcvr; the user value (-1 to 1)
comes from the user's profile, and the context score (0 to 1) says how well user and page fit. Both are weighed by
`Campaign.optimise`. The result is bounded:

    from above   by `max_bid`, and by the most the formula can give (`Campaign.top_micros`);
    from below   by the floor, as far as the base bid reaches: a low score saves money above the floor, and it never
                 makes a campaign lose that was willing to pay the floor. No score lifts a bid to a floor above that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rtb.domain.campaign import MILLION, Campaign, Pricing
from rtb.domain.facts import Context, with_parents


def entering(prices: Sequence[int], most: int) -> int:
    """How many bids enter an auction that takes `most`, of some from the highest price down: where the price of the
    highest reaches so far, all that bid it, for the auction draws lots among these."""
    if len(prices) <= most or prices[most - 1] != prices[0]:
        return min(len(prices), most)
    return prices.count(prices[0])


class CtrModel(Protocol):
    """Predicts clicks. A model is asked in the auction, once a campaign that optimises: it answers from memory."""

    def pctr(self, campaign: Campaign, context: Context) -> float:
        """The chance that an impression is clicked, 0 to 1."""
        ...


class ConstantCtr:
    """Every campaign's own constant."""

    def pctr(self, campaign: Campaign, context: Context) -> float:
        """`Campaign.pctr`."""
        return campaign.pctr


CONSTANT = ConstantCtr()


def price_micros(campaign: Campaign, context: Context, floor_micros: int, ctr: CtrModel = CONSTANT) -> int:
    """What it bids in this auction, 0 to `campaign.top_micros`; one that does not optimise always bids that.

    Args:
        campaign: any.
        context: the facts of the request.
        floor_micros: of the imp.
        ctr: predicts clicks, for campaigns that pay by click or conversion.
    """
    weights = campaign.optimise
    top = campaign.top_micros
    if weights is None:
        return top
    base = campaign.bid_micros * campaign.media_ppm // MILLION
    value = float(base)
    if campaign.pricing is not Pricing.CPM and ctr is not CONSTANT:
        value *= ctr.pctr(campaign, context) / campaign.pctr
    value *= 1 + weights.value * user_value(context)
    if weights.context:
        value *= 1 + weights.context * context_score(campaign, context)
    if value < floor_micros <= base:
        return floor_micros
    return min(int(value), top)


def charge_nanos(campaign: Campaign, cost_nanos: int) -> int:
    """What an impression that was bought for `cost_nanos` is charged to an advertiser who pays by impression: with the
    margin on it, rounded up. What costs at most `campaign.top_micros` is charged at most `campaign.most_micros`."""
    return -(-cost_nanos * MILLION // campaign.media_ppm) if campaign.margin else cost_nanos


def user_value(context: Context) -> float:
    """What the user is worth beside the average one, -1 to 1, from the profile; 0 for a user without one."""
    return context.user_value


def context_score(campaign: Campaign, context: Context) -> float:
    """How well user and page fit the campaign, 0 to 1: the mean of the relevances that its definition allows."""
    scores = []
    if campaign.targeting.interests:
        scores.append(interest_relevance(campaign, context))
    if campaign.cat or campaign.targeting.site_cat:
        scores.append(category_relevance(campaign, context))
    if campaign.targeting.segments:
        scores.append(segment_relevance(campaign, context))
    return sum(scores) / len(scores) if scores else 0.0


def interest_relevance(campaign: Campaign, context: Context) -> float:
    """The share of the campaign's interests that the user has, by profile or request: 0 to 1."""
    wanted = {name.lower() for name in campaign.targeting.interests}
    return len(wanted.intersection(context.interests)) / len(wanted) if wanted else 0.0


def segment_relevance(campaign: Campaign, context: Context) -> float:
    """The share of the campaign's segments that the user is in: 0 to 1."""
    wanted = set(campaign.targeting.segments)
    return len(wanted.intersection(context.segments)) / len(wanted) if wanted else 0.0


def category_relevance(campaign: Campaign, context: Context) -> float:
    """Whether the page is about what the campaign advertises or asks for: 1 for a category of its own, 0.5 where only
    the tier-1 parents agree (IAB19-6 and IAB19-18), else 0."""
    wanted = {*campaign.cat, *campaign.targeting.site_cat}
    if not wanted.isdisjoint(context.site_cats):
        return 1.0
    return 0.5 if not set(with_parents([*wanted])).isdisjoint(context.site_cats) else 0.0
