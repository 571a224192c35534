"""What a campaign bids in an auction."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain import pricing
from rtb.domain.campaign import Campaign, Creative, Optimise, Pricing, Targeting
from rtb.domain.facts import Context, context
from rtb.domain.profile import Profile
from rtb.openrtb import BidRequest, Site, User


def made(**fields: Any) -> Campaign:
    """A campaign that bids 2.00 CPM unless said otherwise."""
    minimal: dict[str, Any] = {"id": "c", "advertiser": "a", "creatives": (Creative(id="x"),), "bid": 2.0}
    return Campaign(**minimal | fields)


@pytest.mark.parametrize(
    ("prices", "most", "entering"),
    [
        ([], 4, 0),
        ([3, 2], 4, 2),
        ([5, 4, 3, 2, 1], 4, 4),
        ([5, 4, 4, 4, 4], 4, 4),  # who bids less than the best only prices it
        ([5, 5, 5, 4, 4], 4, 4),
        ([5, 5, 5, 5, 4], 4, 4),
        ([5, 5, 5, 5, 5, 4], 4, 5),
        ([5, 5, 4], 1, 2),
    ],
)
def test_how_many_enter(prices: list[int], most: int, entering: int) -> None:
    """Four, or all that tie for the win."""
    assert pricing.entering(prices, most) == entering


@pytest.mark.parametrize(
    ("model", "bid", "pctr", "pcvr", "micros"),
    [
        (Pricing.CPM, 2.5, 0.5, 0.5, 2_500_000),
        (Pricing.CPC, 0.40, 0.005, 0.5, 2_000_000),  # 1,000 impressions are 5 clicks
        (Pricing.CPA, 30.0, 0.005, 0.02, 3_000_000),  # 5 clicks are a tenth of a conversion
    ],
)
def test_price_is_what_a_thousand_impressions_are_worth(
    model: Pricing, bid: float, pctr: float, pcvr: float, micros: int
) -> None:
    """CPM as it is; a click times pCTR; a conversion times pCTR and pCVR. The bound of the index is never below."""
    campaign = made(pricing=model, bid=bid, pctr=pctr, pcvr=pcvr)
    assert pricing.price_micros(campaign, Context(), 0) == micros
    assert campaign.top_micros >= micros


@pytest.mark.parametrize(
    ("fields", "value", "score", "floor", "micros"),
    [
        ({}, 0.0, 0.0, 0, 2_000_000),  # an average user on any page
        ({}, 0.5, 0.0, 0, 3_000_000),  # 2.00 x 1.5
        ({}, 0.5, 0.5, 0, 4_500_000),  # 2.00 x 1.5 x 1.5
        ({}, 1.0, 1.0, 0, 8_000_000),  # the most there is
        ({}, -0.5, 0.0, 0, 1_000_000),
        ({}, -1.0, 1.0, 0, 0),  # worth nothing
        ({"max_bid": 4.0}, 0.5, 0.5, 0, 4_000_000),
        ({"margin": 0.25}, 0.5, 0.0, 0, 2_250_000),  # 3.00, of which a quarter stays with the house
        ({"margin": 0.25, "max_bid": 2.5}, 0.5, 0.0, 0, 1_875_000),  # 2.50 less a quarter
        ({"optimise": Optimise(value=0.5, context=0.0)}, 0.5, 0.5, 0, 2_500_000),  # half the value, no context
        ({}, -0.5, 0.0, 1_500_000, 1_500_000),  # 1.00, but willing to pay the floor
        ({}, -0.5, 0.0, 2_000_000, 2_000_000),
        ({}, -0.5, 0.0, 2_000_001, 1_000_000),  # the floor is above what it bids for an average user
        ({"margin": 0.25}, -0.5, 0.0, 1_500_001, 750_000),  # ... of which a quarter is not for media
    ],
)
def test_the_price_of_a_user_and_a_page(
    fields: dict[str, Any], value: float, score: float, floor: int, micros: int
) -> None:
    """Base bid x (1 + user value) x (1 + context score), within floor, maximum and margin; by hand."""
    campaign = made(**{"optimise": Optimise(), "targeting": Targeting(interests=("tea", "art"))} | fields)
    interests = ("tea", "art")[: round(score * 2)]
    assert pricing.price_micros(campaign, Context(user_value=value, interests=interests), floor) == micros


def test_a_campaign_that_does_not_optimise_bids_the_same_for_everybody() -> None:
    """Neither user nor page changes its price; the margin does."""
    best = Context(user_value=1.0, interests=("tea",))
    assert pricing.price_micros(made(targeting=Targeting(interests=("tea",))), best, 0) == 2_000_000
    assert pricing.price_micros(made(margin=0.25), best, 0) == 1_500_000


def test_the_value_of_a_user_comes_from_the_profile() -> None:
    """0 without one."""
    request = BidRequest(user=User(id="u"))
    assert pricing.user_value(context(request, Profile("u", value=0.75))) == 0.75
    assert pricing.user_value(context(request, Profile("u"))) == 0.0
    assert pricing.user_value(context(request)) == 0.0


def test_interests_of_profile_and_request_count_alike() -> None:
    """Tea by profile and art by request, of three that the campaign asks for."""
    campaign = made(targeting=Targeting(interests=("Tea", "art", "cars")))
    request = BidRequest(user=User(id="u", keywords="art,dogs"))
    facts = context(request, Profile("u", interests=("tea",)))
    assert pricing.interest_relevance(campaign, facts) == pytest.approx(2 / 3)
    assert pricing.interest_relevance(campaign, Context()) == 0.0
    assert pricing.interest_relevance(made(), facts) == 0.0


def test_segments_of_a_profile_count() -> None:
    """One of the two that the campaign asks for."""
    campaign = made(targeting=Targeting(segments=("s1", "s2")))
    facts = context(BidRequest(user=User(id="u")), Profile("u", segments=("s2", "s3")))
    assert pricing.segment_relevance(campaign, facts) == 0.5


@pytest.mark.parametrize(
    ("fields", "page", "relevance"),
    [
        ({"cat": ("IAB19-6",)}, ["IAB19-6"], 1.0),
        ({"cat": ("IAB19-6",)}, ["IAB19-18"], 0.5),  # both are IAB19
        ({"cat": ("IAB19",)}, ["IAB19-18"], 1.0),  # the page is about the whole of it
        ({"cat": ("IAB19-6",)}, ["IAB1"], 0.0),
        ({"targeting": Targeting(site_cat=("IAB1",))}, ["IAB1-2"], 1.0),
        ({}, ["IAB1"], 0.0),
    ],
)
def test_relevance_of_a_page(fields: dict[str, Any], page: list[str], relevance: float) -> None:
    """By the categories of the page and of the ad."""
    facts = context(BidRequest(site=Site(domain="x.example", cat=page)))
    assert pricing.category_relevance(made(**fields), facts) == relevance


def test_the_context_score_is_the_mean_of_what_the_campaign_says() -> None:
    """Half of the interests, all of the page; a campaign that says nothing of itself scores nothing anywhere."""
    campaign = made(cat=("IAB1",), targeting=Targeting(interests=("tea", "art")))
    facts = Context(interests=("tea",), site_cats=("IAB1",), segments=("s",))
    assert pricing.context_score(campaign, facts) == 0.75
    assert pricing.context_score(made(), facts) == 0.0


class Evening:
    """Knows that clicks are twice as likely with interest in tea."""

    def pctr(self, campaign: Campaign, context: Context) -> float:
        """0.002 or 0.001."""
        return 0.002 if "tea" in context.interests else 0.001


def test_a_model_predicts_clicks_in_place_of_the_constant() -> None:
    """0.50 a click is 1.00 CPM by a chance of 0.002; whoever pays by impression is not concerned."""
    campaign = made(pricing=Pricing.CPC, bid=0.5, pctr=0.001, optimise=Optimise())
    tea = Context(interests=("tea",))
    assert pricing.price_micros(campaign, tea, 0, Evening()) == 1_000_000
    assert pricing.price_micros(campaign, Context(), 0, Evening()) == 500_000
    assert pricing.price_micros(made(optimise=Optimise()), tea, 0, Evening()) == 2_000_000


def test_the_margin_is_charged_on_what_an_impression_cost() -> None:
    """0.75 of 1.00 buys media: bought for 750, charged 1,000; 1 nano of media is charged 2, never less than it cost."""
    campaign = made(margin=0.25)
    assert [pricing.charge_nanos(campaign, cost) for cost in (0, 1, 3, 750)] == [0, 2, 4, 1_000]
    assert pricing.charge_nanos(made(), 750) == 750


@given(
    bid=st.integers(1, 900_000_000).map(lambda micros: micros / 1e6),
    extra=st.none() | st.floats(1, 10),
    margin=st.floats(0, 0.95),
    weights=st.builds(Optimise, st.floats(0, 1), st.floats(0, 1)),
    value=st.floats(-1, 1),
    known=st.integers(0, 3),
    floor=st.integers(0, 10**10),
)
def test_the_price_is_within_its_bounds(
    bid: float, extra: float | None, margin: float, weights: Optimise, value: float, known: int, floor: int
) -> None:
    """An integer from 0 to the bound that the index ranks by, the same every time; what the most costs is covered by
    what the campaign says it pays at most; better users never cost less."""
    campaign = made(
        bid=bid,
        max_bid=None if extra is None else bid * extra,
        margin=margin,
        optimise=weights,
        targeting=Targeting(interests=("a", "b", "c")),
    )
    facts = Context(user_value=value, interests=("a", "b", "c")[:known])
    price = pricing.price_micros(campaign, facts, floor)
    assert isinstance(price, int)
    assert 0 <= price <= campaign.top_micros
    assert price == pricing.price_micros(campaign, facts, floor)
    assert price <= pricing.charge_nanos(campaign, price) <= campaign.most_micros
    better = Context(user_value=min(1.0, value + 0.1), interests=("a", "b", "c"))
    assert pricing.price_micros(campaign, better, floor) >= price
