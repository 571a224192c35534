"""rtb.adapters.interning: less memory, the same values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.adapters import interning
from rtb.adapters.interning import Interner
from rtb.domain import campaign as campaigns
from rtb.domain.campaign import Campaign, Circle, Creative, FrequencyCap, Targeting

WORDS = st.lists(st.sampled_from(["tea", "IAB1", "KOR", "en", "x"]), max_size=3).map(tuple)
NUMBERS = st.lists(st.integers(0, 5), max_size=3).map(tuple)

TARGETINGS = st.builds(
    Targeting,
    interests=WORDS,
    country=WORDS,
    site_cat=WORDS,
    devicetype=NUMBERS,
    hours=NUMBERS,
    geo=st.lists(st.builds(Circle, lat=st.just(1.0), lon=st.sampled_from([1.0, 2.0])), max_size=2).map(tuple),
)
CAMPAIGNS = st.builds(
    Campaign,
    id=st.text(min_size=1, max_size=5),
    advertiser=st.sampled_from(["acme", "tea"]),
    creatives=st.tuples(st.builds(Creative, id=st.just("c"), w=st.integers(0, 3), attr=NUMBERS)),
    cat=WORDS,
    adomain=st.lists(st.sampled_from(["tea.example", "x.example"]), max_size=2).map(tuple),  # decoding lowers case
    bid=st.just(1.0),
    pctr=st.sampled_from([1.0, 0.001]),
    daily_budget=st.none() | st.sampled_from([0.0, 1.0, 2.0, 300.0]),
    frequency_cap=st.none() | st.builds(FrequencyCap, st.integers(1, 2)),
    deals=WORDS,
    targeting=TARGETINGS,
)


def copy(campaign: Campaign) -> Campaign:
    """An equal campaign that shares nothing."""
    return campaigns.decode(campaigns.encode(campaign))


@given(st.lists(CAMPAIGNS, max_size=10))
def test_sharing_changes_no_value(originals: list[Campaign]) -> None:
    """Every campaign still equals itself, down to the JSON and so to the types of its numbers."""
    interner = Interner()
    shared = [interner.share(copy(campaign)) for campaign in originals]
    assert shared == originals
    assert [campaigns.encode(campaign) for campaign in shared] == [campaigns.encode(campaign) for campaign in originals]


def test_equal_values_become_one() -> None:
    """Two campaigns that are equal but for their ids have tuples, words and structs in common."""
    made = [
        Campaign(
            id=id_,
            advertiser="acme incorporated",
            creatives=(Creative(id="c", w=1_000),),
            bid=1.0,
            cat=("IAB3-1",),
            frequency_cap=FrequencyCap(3),
            targeting=Targeting(interests=("tea", "travel"), country=("KOR",)),
        )
        for id_ in ("a", "b")
    ]
    interner = Interner()
    a, b = (interner.share(copy(campaign)) for campaign in made)
    assert a.advertiser is b.advertiser
    assert a.cat is b.cat
    assert a.frequency_cap is b.frequency_cap
    assert a.targeting.interests is b.targeting.interests
    assert a.targeting.country is b.targeting.country
    assert a.creatives[0].w is b.creatives[0].w
    c = interner.share(copy(Campaign("c", "x", (Creative("c"),), bid=1.0, targeting=Targeting(interests=("travel",)))))
    assert c.targeting.interests[0] is a.targeting.interests[1]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of unique values does not fill the memory twice."""
    monkeypatch.setattr(interning, "MAX_KEPT", 10)
    interner = Interner()
    for n in range(100):
        interner.share(
            copy(Campaign(id=f"{n}", advertiser=f"a{n}", creatives=(Creative("c"),), bid=1.0, cat=(f"k{n}",)))
        )
    assert len(interner._seen) <= 10 + 3  # one more campaign's values than the bound
