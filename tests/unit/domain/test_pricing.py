"""What a campaign bids in an auction."""

from __future__ import annotations

import pytest

from rtb.domain import pricing
from rtb.domain.campaign import Campaign, Creative, Pricing
from rtb.domain.facts import Context


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
    campaign = Campaign(
        id="c", advertiser="a", creatives=(Creative(id="x"),), pricing=model, bid=bid, pctr=pctr, pcvr=pcvr
    )
    assert pricing.price_micros(campaign, Context(), 0) == micros
    assert campaign.top_micros >= micros
