"""Campaigns: what a definition may say, and how a wrong one is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtb.domain import campaign as campaigns
from rtb.domain.campaign import Campaign, Media, Pricing, Status
from rtb.errors import InvalidCampaign

MINIMAL: dict[str, Any] = {"id": "c", "advertiser": "acme", "creatives": [{"id": "k"}], "bid": 2.5}


def made(**fields: Any) -> Campaign:
    """A minimal campaign with these fields, by way of JSON."""
    return campaigns.decode(json.dumps({**MINIMAL, **fields}).encode())


def reasons(**fields: Any) -> set[str]:
    """Why it is refused, as JSON and as an object."""
    with pytest.raises(InvalidCampaign) as decoded:
        made(**fields)
    with pytest.raises(InvalidCampaign) as converted:
        campaigns.convert({**MINIMAL, **fields})
    return {str(decoded.value), str(converted.value)}


def test_a_minimal_campaign_targets_everyone() -> None:
    """Only an id, an advertiser, a creative and a bid are needed."""
    campaign = made()
    assert (campaign.status, campaign.pricing, campaign.creatives[0].media) == (
        Status.ACTIVE,
        Pricing.CPM,
        Media.BANNER,
    )
    assert (campaign.bid_micros, campaign.daily_budget_nanos, str(campaign.zone)) == (2_500_000, None, "UTC")
    assert campaign.targeting == campaigns.Targeting()


@pytest.mark.parametrize(
    ("fields", "micros"),
    [
        ({"bid": 2.5}, 2_500_000),
        ({"pricing": "cpc", "bid": 0.5, "pctr": 0.002}, 1_000_000),  # 0.50 x 0.002 x 1000 = 1.00 CPM
        ({"pricing": "cpa", "bid": 20.0, "pctr": 0.01, "pcvr": 0.05}, 10_000_000),  # 20 x 0.01 x 0.05 x 1000 = 10.00
    ],
)
def test_the_auction_price(fields: dict[str, Any], micros: int) -> None:
    """What a thousand impressions are worth to it, by its pricing model; by hand."""
    assert made(**fields).bid_micros == micros


def test_a_budget_in_nanos() -> None:
    """50.00 units are 50 x 10^9 nanos; 0 is a budget, not the absence of one."""
    assert made(daily_budget=50.0).daily_budget_nanos == 50_000_000_000
    assert made(daily_budget=0).daily_budget_nanos == 0


def test_what_it_bids_at_most() -> None:
    """2.50 alone; four times as much for the best user on the best page; never above max_bid; less the margin."""
    assert made().top_micros == 2_500_000
    assert made(optimise={}).top_micros == 10_000_000
    assert made(optimise={"value": 0.5, "context": 0}).top_micros == 3_750_000
    assert made(optimise={}, max_bid=3.0).top_micros == 3_000_000
    assert made(max_bid=3.0).top_micros == 2_500_000
    best = made(optimise={}, max_bid=3.0, margin=0.2)
    assert (best.top_micros, best.most_micros, best.optimises) == (2_400_000, 3_000_000, True)
    assert made(pricing="cpc", bid=0.5, pctr=0.002, margin=0.1).top_micros == 900_000


def test_what_it_pauses_at() -> None:
    """A share of the daily budget; all of it, unless said otherwise; without a budget there is nothing to share."""
    assert made(daily_budget=50.0, pause_at=0.8).pause_nanos == 40_000_000_000
    assert made(daily_budget=50.0).pause_nanos == 50_000_000_000
    assert made().pause_nanos is None


@pytest.mark.parametrize(
    ("cap", "seconds"),
    [
        ({"count": 1}, 86_400),
        ({"count": 1, "seconds": 7}, 7),
        ({"count": 1, "per": "minute"}, 60),
        ({"count": 1, "per": "hour"}, 3_600),
        ({"count": 1, "per": "day"}, 86_400),
        ({"count": 1, "per": "lifetime"}, 400 * 86_400),
        ({"count": 1, "per": "hour", "seconds": 3_600}, 3_600),
    ],
)
def test_the_window_of_a_cap(cap: dict[str, Any], seconds: int) -> None:
    """By its name or in seconds; a day when it says neither."""
    assert made(frequency_caps=[cap]).frequency_caps[0].window_s == seconds


def test_what_metric_sources_call_it() -> None:
    """By source; nothing for a source that it does not name."""
    campaign = made(external_ids={"facebook": "238"})
    assert (campaign.external_id("facebook"), campaign.external_id("google"), made().external_id("x")) == (
        "238",
        "",
        "",
    )


def test_a_campaign_survives_its_json() -> None:
    """Encoded and decoded it is the same; defaults are left out."""
    campaign = made(
        name="한글",
        adomain=["acme.example"],
        pricing="cpc",
        bid=0.4,
        daily_budget=12.5,
        start="2026-12-01T00:00:00+09:00",
        end="2026-12-31T00:00:00Z",
        timezone="Asia/Seoul",
        frequency_cap={"count": 3},
        targeting={"geo": [{"lat": 37.5, "lon": 127.0}], "hours": [0, 167], "country": ["KOR"]},
        pacing="learned",
        pause_at=0.95,
        alert_at=0.5,
        max_bid=0.6,
        margin=0.15,
        optimise={"value": 0.5},
        frequency_caps=[{"count": 2, "per": "hour"}, {"count": 9, "per": "lifetime"}],
        external_ids={"facebook": "238"},
        click_window_s=86_400,
        view_window_s=0,
    )
    assert campaigns.decode(campaigns.encode(campaign)) == campaign
    assert json.loads(campaigns.encode(made())) == MINIMAL


def test_advertiser_domains_are_kept_in_lower_case() -> None:
    """Domains are compared, and a name has no case: FORD.com and ford.com are one advertiser."""
    assert made(adomain=["FORD.com", "x.example"]).adomain == ("ford.com", "x.example")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"advertiser": 7}, "advertiser"),
        ({"bid": -1}, "bid"),
        ({"bid": "2"}, "bid"),
        ({"bid": 0}, "bid"),
        ({"bid": 1_000_001.0}, "bid"),
        ({"pricing": "cpc", "bid": 0.5, "pctr": 0.0}, "bid"),
        ({"pricing": "cpm2"}, "pricing"),
        ({"pctr": 1.1}, "pctr"),
        ({"daily_budget": 9_000_001.0}, "daily_budget"),
        ({"daily_budget": -1}, "daily_budget"),
        ({"creatives": []}, "creatives"),
        ({"creatives": [{"id": "k"}, {"id": "k"}]}, "creatives"),
        ({"creatives": [{"id": "k", "w": -1}]}, "creatives[0].w"),
        ({"timezone": ""}, "timezone"),
        ({"timezone": "America"}, "timezone"),
        ({"timezone": "No/Where"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"timezone": "/etc/passwd"}, "timezone"),
        ({"timezone": "UTC\x00"}, "timezone"),
        ({"timezone": "x" * 5000}, "timezone"),
        ({"start": "2026-01-01T00:00:00"}, "start, end"),
        ({"start": "soon"}, "start"),
        ({"start": "2026-01-02T00:00:00Z", "end": "2026-01-02T00:00:00Z"}, "end"),
        ({"frequency_cap": {"count": 0}}, "frequency_cap.count"),
        ({"targeting": {"hours": [168]}}, "targeting.hours[0]"),
        ({"targeting": {"geo": [{"lat": 91, "lon": 0}]}}, "targeting.geo[0].lat"),
        ({"targeting": {"geo": [{"lat": 0, "lon": 0, "radius": 0}]}}, "targeting.geo[0].radius"),
        ({"version": 0}, "version"),
        ({"pacing": "fast"}, "pacing"),
        ({"pacing": "even"}, "pacing"),  # of what, without a daily budget?
        ({"pause_at": 0, "daily_budget": 5}, "pause_at"),
        ({"pause_at": 1.01, "daily_budget": 5}, "pause_at"),
        ({"pause_at": 0.5}, "pause_at"),
        ({"alert_at": 1.5}, "alert_at"),
        ({"max_bid": 2.4}, "max_bid"),  # below bid
        ({"max_bid": -1}, "max_bid"),
        ({"margin": 0.96}, "margin"),
        ({"bid": 0.000001, "margin": 0.5}, "bid"),  # half a micro: nothing is left to bid with
        ({"bid": 300_000, "optimise": {}}, "bid"),  # four times as much is beyond all prices
        ({"optimise": {"value": 2}}, "optimise.value"),
        ({"optimise": {"ctr": 1}}, "optimise"),
        ({"frequency_caps": [{"count": 1, "per": "week"}]}, "frequency_caps[0].per"),
        ({"frequency_caps": [{"count": 1}, {"count": 2, "per": "day"}]}, "frequency_caps"),
        ({"frequency_caps": [{"count": 1, "per": "hour", "seconds": 60}]}, "frequency_caps[0]"),
        ({"frequency_cap": {"count": 1, "per": "hour", "seconds": 60}}, "frequency_cap"),
        ({"external_ids": {"facebook": ""}}, "external_ids[...]"),
        ({"external_ids": {"facebook": 7}}, "external_ids[...]"),
        ({"click_window_s": 0}, "click_window_s"),
        ({"view_window_s": -1}, "view_window_s"),
    ],
)
def test_a_wrong_campaign_names_the_field(fields: dict[str, Any], field: str) -> None:
    """One short line with the field in it, whichever way the campaign came in."""
    for said in reasons(**fields):
        assert f"{field}: " in said
        assert len(said.splitlines()) == 1
        assert len(said) < 600


def test_an_unknown_field_is_an_error() -> None:
    """A typing mistake would else target everyone."""
    for said in reasons(targetting={}):
        assert "targetting" in said


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b"[" * 100_000, b'{"id": "\xff"}'])
def test_what_is_no_campaign(data: bytes) -> None:
    """Anything else is refused as well, never another exception."""
    with pytest.raises(InvalidCampaign):
        campaigns.decode(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(number: float) -> None:
    """NaN and the infinities are no bid and no budget."""
    for field in ("bid", "daily_budget"):
        with pytest.raises(InvalidCampaign):
            campaigns.convert({**MINIMAL, field: number})
