"""What targeting reads of a request, normalised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtb.domain import facts
from rtb.domain.campaign import Media
from rtb.domain.facts import MOST_SIZES, NEVER, Context, Offer, Placement
from rtb.domain.money import Rates
from rtb.domain.profile import Profile
from rtb.errors import BadRequest
from rtb.openrtb import BidRequest, Imp, decode_request

DATA = Path(__file__).parents[4] / "shared" / "data" / "openrtb-requests.jsonl"


def context(profile: Profile | None = None, **fields: Any) -> Context:
    """The facts of a request in wire form."""
    return facts.context(msgspec.convert({"id": "1", **fields}, BidRequest), profile, now=5.0)


def placement(rates: Rates | None = None, **fields: Any) -> Placement:
    """The facts of an imp in wire form."""
    return facts.placement(msgspec.convert({"id": "7", **fields}, Imp), rates or Rates())


def test_an_empty_request_has_no_facts_but_the_time() -> None:
    """Nothing is known: every default."""
    assert context() == Context(now=5.0)


def test_user_device_and_place() -> None:
    """Names in lower case, country in upper, languages by their first two letters."""
    found = context(
        device={
            "devicetype": 4, "os": "iOS", "language": "ko-KR",
            "geo": {"country": "kor", "region": "KR-11", "city": "Seoul", "lat": 37.5, "lon": 127.0},
        },
        user={
            "id": "u1", "keywords": "Sports, golf ,sports", "kwarray": ["K-Pop"],
            "data": [{"segment": [{"id": "s1"}, {"name": "no id"}]}, {"segment": [{"id": "s1"}, {"id": "S2"}]}],
        },
    )  # fmt: skip
    assert (found.devicetype, found.os, found.language) == (4, "ios", "ko")
    assert (found.country, found.region, found.city, found.lat, found.lon) == ("KOR", "kr-11", "seoul", 37.5, 127.0)
    assert found.user_id == "u1"
    assert found.interests == ("sports", "golf", "k-pop")
    assert found.segments == ("s1", "S2")


def test_profile_adds_interests_and_segments() -> None:
    """What the request says comes first."""
    profile = Profile(user_id="u", interests=("Golf",), segments=("s9",))
    found = context(profile, user={"keywords": "tea", "data": [{"segment": [{"id": "s1"}]}]})
    assert (found.interests, found.segments) == (("tea", "golf"), ("s1", "s9"))


def test_place_of_the_user_where_the_device_has_none() -> None:
    """user.geo stands in for device.geo; half a position, or one off the globe, is none."""
    assert context(user={"geo": {"country": "USA"}}, device={}).country == "USA"
    assert context(device={"geo": {"lat": 1.0}}).lat is None
    assert context(device={"geo": {"lat": 91.0, "lon": 0.0}}).lat is None


@pytest.mark.parametrize(
    ("venue", "domains", "cats"),
    [
        (
            {"site": {"domain": "News.example", "cat": ["IAB12"], "sectioncat": ["IAB3-1"], "pagecat": ["IAB3-1"]}},
            ("news.example",),
            ("IAB12", "IAB3-1", "IAB3"),
        ),
        (
            {"app": {"domain": "a.example", "bundle": "com.Example.A", "cat": ["IAB9-30"], "content": {"cat": ["X"]}}},
            ("a.example", "com.example.a"),
            ("IAB9-30", "X", "IAB9"),
        ),
        ({"dooh": {"domain": "screens.example", "content": {"cat": ["IAB1"]}}}, ("screens.example",), ("IAB1",)),
        ({"site": {}}, (), ()),
    ],
)
def test_where_the_ad_would_stand(venue: dict[str, Any], domains: tuple[str, ...], cats: tuple[str, ...]) -> None:
    """Domains and bundle in lower case; categories of site, section, page and content, then their parents."""
    found = context(**venue)
    assert (found.domains, found.site_cats) == (domains, cats)


def test_lists_of_the_publisher() -> None:
    """Block and allow lists; an empty allow list restricts nothing."""
    found = context(
        bcat=["IAB25"], acat=["IAB1"], cattax=2, badv=["Ford.example"], wseat=["s1"], bseat=["s2"], wlang=["EN-us"]
    )
    assert (found.cat_blocked, found.cat_allowed, found.cattax) == (("IAB25",), ("IAB1",), 2)
    assert found.adv_blocked == ("ford.example",)
    assert (found.seat_allowed, found.seat_blocked, found.language_allowed) == (("s1",), ("s2",), ("en",))
    assert context(acat=[], wseat=[], wlang=[]) == Context(now=5.0)


@pytest.mark.parametrize(
    ("banner", "sizes"),
    [
        ({"format": [{"w": 300, "h": 250}, {"w": 728, "h": 90}], "w": 1, "h": 1}, ((300, 250), (728, 90))),
        ({"w": 320, "h": 50}, ((320, 50),)),
        ({"format": [{"w": 300, "h": 250}, {"wratio": 4, "hratio": 1, "wmin": 200}]}, ()),
        ({"format": [{"w": 300}]}, ()),
        ({}, ()),
    ],
)
def test_sizes_of_a_banner(banner: dict[str, Any], sizes: tuple[tuple[int, int], ...]) -> None:
    """`format` before w x h; a flex format, or none at all, takes any size [3.2.6, 3.2.10]."""
    assert placement(banner=banner).offers == (Offer(media=Media.BANNER, sizes=sizes),)


def test_an_interstitial_takes_any_size() -> None:
    """The size of an interstitial is a maximum, not a choice."""
    assert placement(banner={"w": 320, "h": 480}, instl=1).offers == (Offer(media=Media.BANNER),)


def test_a_banner_of_thousands_of_sizes_costs_no_more_than_some() -> None:
    """What no page offers is not read to the end."""
    many = [{"w": n + 1, "h": n + 1} for n in range(5_000)]
    assert len(placement(banner={"format": many}).offers[0].sizes) == MOST_SIZES


def test_offers_stand_in_a_fixed_order_with_their_limits() -> None:
    """Banner, video, audio, native; maxduration holds for each ad of a pod too, poddur for their sum [3.2.8]."""
    found = placement(
        native={"request": "{}", "battr": [4]},
        audio={"mimes": ["audio/mpeg"], "maxduration": 30, "poddur": 60},
        video={"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "protocols": [2], "api": [], "battr": [1]},
        banner={"battr": [2], "btype": [3], "api": [5], "mimes": ["image/png"]},
        secure=1,
    )
    assert found.secure
    assert found.offers == (
        Offer(media=Media.BANNER, attr_blocked=(2,), type_blocked=(3,), api=(5,), mimes=("image/png",)),
        Offer(
            media=Media.VIDEO,
            attr_blocked=(1,),
            mimes=("video/mp4",),
            protocols=(2,),
            api=(),
            mindur=5,
            maxdur=30,
        ),
        Offer(media=Media.AUDIO, mimes=("audio/mpeg",), maxdur=30),
        Offer(media=Media.NATIVE, attr_blocked=(4,)),
    )


def test_floor_in_the_exchange_currency() -> None:
    """2.00 EUR at 1.25 is 2.50 USD; nobody reaches a floor in a currency without a rate."""
    found = placement(Rates("USD", {"EUR": 1.25}), banner={}, bidfloor=2.0, bidfloorcur="EUR")
    assert (found.floor_micros, found.lowest_micros, found.terms) == (2_500_000, 2_500_000, None)
    unsold = placement(banner={}, bidfloor=2.0, bidfloorcur="XXX")
    assert (unsold.sold, unsold.lowest_micros) == (False, NEVER)


def test_lowest_floor_with_deals_and_streams() -> None:
    """The least that any bid may have to reach: a deal's own floor, or whatever a stream's duration gives."""
    deals = [{"id": "d1", "bidfloor": 3.0}, {"id": "d2", "bidfloor": 0.5}, {"id": "d3"}]
    found = placement(banner={}, bidfloor=1.0, pmp={"private_auction": 1, "deals": deals})
    assert (found.floor_micros, found.lowest_micros) == (1_000_000, 500_000)
    assert (found.private, found.deals) == (True, ("d1", "d2", "d3"))
    assert placement(banner={}, bidfloor=1.0, pmp={"deals": [{"id": "d"}]}).lowest_micros == 1_000_000
    assert placement(video={"mimes": ["x"], "mincpmpersec": 0.1}, bidfloor=1.0).lowest_micros == 0


@pytest.mark.skipif(not DATA.exists(), reason="the peers' requests are not beside the repository")
def test_every_valid_request_of_peers_has_facts() -> None:
    """Requests of Prebid adapters: whatever decodes has facts; a floor may be in a currency that has no rate here."""
    read = 0
    for line in DATA.read_bytes().splitlines():
        try:
            request = decode_request(json.dumps(json.loads(line)["body"]).encode())
        except BadRequest:
            continue
        assert facts.context(request).now == 0.0
        for imp in request.imp or ():
            currencies = {imp.bidfloorcur} | {deal.bidfloorcur for deal in (imp.pmp and imp.pmp.deals) or ()}
            rates = Rates("USD", {code: 1.0 for code in currencies if code})
            assert facts.placement(imp, rates).offers
            read += 1
    assert read > 1_000
