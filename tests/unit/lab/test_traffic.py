"""Generated traffic: deterministic, valid, and mixed as promised."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import orjson
import pytest

from rtb.domain.facts import context, placement
from rtb.domain.money import Rates
from rtb.lab.traffic import CITIES, COUNTRIES, SIZES, Traffic
from rtb.openrtb import decode_request


def test_same_seed_same_traffic() -> None:
    """Two generators of one seed give the same requests in the same order, in every format."""
    one, two = Traffic(7), Traffic(7)
    for _ in range(50):
        assert one.request() == two.request()
        assert one.body(3500) == two.body(3500)
        assert one.house() == two.house()


def test_other_seed_other_traffic() -> None:
    """Another seed gives other requests."""
    assert Traffic(1).body() != Traffic(2).body()


@pytest.mark.parametrize("target_bytes", [None, 1000, 3500])
def test_every_request_is_valid(target_bytes: int | None) -> None:
    """Every body passes the exchange's own validation and gives facts to target on."""
    traffic = Traffic(3)
    rates = Rates()
    for _ in range(1000):
        request = decode_request(traffic.body(target_bytes))
        facts = context(request)
        assert facts.user_id
        assert facts.interests
        assert facts.domains
        assert facts.site_cats
        assert facts.country in {country.code for country in COUNTRIES}
        for imp in request.imp or []:
            assert placement(imp, rates).offers


def test_bodies_are_filled_to_the_size_asked_for() -> None:
    """A 3.5 KB body is at most 3,500 bytes and short of them by less than one data segment."""
    traffic = Traffic(4)
    for _ in range(300):
        assert 3500 - 60 <= len(traffic.body(3500)) <= 3500


def test_a_request_longer_than_the_target_stays_whole() -> None:
    """Filling never takes away."""
    plain, filled = Traffic(5), Traffic(5)
    assert orjson.loads(filled.body(10)) == plain.request()


def test_users_follow_zipf() -> None:
    """With exponent 1 the first of 1,000 users has 1 / H(1000) = 1 / 7.4855 of the traffic, the second half as much."""
    counts = Counter(r["user"]["id"] for r in islice(Traffic(6, users=1000).requests(), 20_000))
    assert counts["u-000000"] / 20_000 == pytest.approx(1 / 7.4855, rel=0.1)
    assert counts["u-000001"] / 20_000 == pytest.approx(0.5 / 7.4855, rel=0.1)


def test_a_user_stays_the_same() -> None:
    """A user has one city, device and set of interests, near the city's centre."""
    traffic = Traffic(8)
    user = traffic.user(12)
    traffic.request()
    assert traffic.user(12) == user
    assert user.id == "u-000012"
    assert abs(user.lat - user.city.lat) < 0.3


def test_the_mix_is_that_of_a_real_exchange() -> None:
    """Mostly second price, mostly one imp, mostly banners in known sizes, with every medium and country present."""
    requests = list(islice(Traffic(9).requests(), 4000))
    imps = [imp for request in requests for imp in request["imp"]]
    media = Counter(kind for imp in imps for kind in ("banner", "video", "audio", "native") if kind in imp)
    assert media["banner"] > 0.7 * len(imps)
    assert set(media) == {"banner", "video", "audio", "native"}
    assert {(f["w"], f["h"]) for imp in imps if "banner" in imp for f in imp["banner"]["format"]} == {
        s for s, _ in SIZES
    }
    assert {request["device"]["geo"]["country"] for request in requests} == {country.code for country in COUNTRIES}
    assert {request["device"]["geo"]["city"] for request in requests} == {city.name for city in CITIES}
    assert sum(request["at"] == 2 for request in requests) > 0.85 * len(requests)
    assert 0 < sum(len(request["imp"]) > 1 for request in requests) < 0.25 * len(requests)
    assert 0 < sum("pmp" in imp for imp in imps) < 0.05 * len(imps)
    assert 0 < sum("bcat" in request for request in requests) < 0.5 * len(requests)
    assert 0 < sum("badv" in request for request in requests) < 0.2 * len(requests)


def test_house_requests_have_the_house_fields() -> None:
    """A house request carries the house format's own names."""
    request = Traffic(10).house()
    assert {"request_id", "user_id", "device_type", "location", "interests", "floor_price", "timeout_ms"} <= set(
        request
    )
    assert set(request["location"]) == {"lat", "lng"}
    assert request["timeout_ms"] == 120


def test_traffic_needs_users() -> None:
    """An empty population is refused."""
    with pytest.raises(ValueError, match="users"):
        Traffic(1, users=0)
