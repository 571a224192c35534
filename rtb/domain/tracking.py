"""What a tracking URL knows: the ticket of a win."""

from __future__ import annotations

from msgspec import Struct

from rtb.domain.campaign import Pricing


class Ticket(Struct, frozen=True, gc=False):
    """A win of a house campaign, as its tracking URLs carry it.

    `day` is the budget day that pays ("" without a budget), `instance` the daemon that holds the money. `price_nanos`
    is what the billing event costs: the clearing price of the impression (CPM), the bid per click (CPC) or conversion
    (CPA); `held_nanos` was set aside at the win. `won_at` and `expires_at`, until when an impression is in time, are
    Unix seconds. `user` is a keyed digest of the user's id ("" without one), `destination` one of the landing page.
    """

    auction_id: str
    impid: str
    campaign_id: str
    creative_id: str
    day: str
    instance: str
    pricing: Pricing
    price_nanos: int
    held_nanos: int
    won_at: float
    expires_at: float
    user: str = ""
    destination: str = ""
