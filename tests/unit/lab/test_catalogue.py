"""Generated campaigns."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import msgspec
import pytest

from rtb.domain import campaign, facts
from rtb.domain.money import Rates
from rtb.domain.targeting import Index
from rtb.lab.catalogue import EPOCH, campaigns
from rtb.lab.traffic import Traffic
from rtb.openrtb import BidRequest


def test_the_same_seed_gives_the_same_campaigns() -> None:
    """Reproducible; another seed gives others."""
    assert list(campaigns(200, seed=3)) == list(campaigns(200, seed=3))
    assert list(campaigns(200, seed=3)) != list(campaigns(200, seed=4))


def test_campaigns_are_valid_and_survive_their_json() -> None:
    """What is generated is what `rtb campaigns import` accepts."""
    for generated in campaigns(500):
        assert campaign.decode(campaign.encode(campaign.validated(generated))) == generated


def test_advertisers_have_five_campaigns_on_average() -> None:
    """And ids are unique."""
    catalogue = list(campaigns(2_000))
    assert len({c.id for c in catalogue}) == 2_000
    assert 350 <= len(Counter(c.advertiser for c in catalogue)) <= 400


def test_lab_traffic_finds_lab_campaigns() -> None:
    """Nine of ten lab requests find somebody among 2,000, and few find everybody: they share their words."""
    index, traffic, rates = Index(campaigns(2_000)), Traffic(5, users=1_000), Rates()
    now = (EPOCH + timedelta(days=90)).timestamp()
    found = []
    for _ in range(300):
        request = msgspec.convert(traffic.request(), BidRequest)
        context = facts.context(request, now=now)
        found += [len(index.match(context, facts.placement(imp, rates), limit=1000)) for imp in request.imp or ()]
    assert sum(1 for count in found if count) > 0.9 * len(found)
    assert max(found) < 400


def test_a_negative_count_is_refused() -> None:
    """An error when asked, not when iterated."""
    with pytest.raises(ValueError, match="-1"):
        campaigns(-1)
