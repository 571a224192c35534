"""The index against brute force: every campaign checked, in rank, until there are enough advertisers."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtb.domain import facts, pricing
from rtb.domain.campaign import (
    Campaign,
    Circle,
    Creative,
    FrequencyCap,
    Media,
    Optimise,
    Pacing,
    Per,
    Status,
    Targeting,
)
from rtb.domain.facts import Context, Placement
from rtb.domain.money import Rates
from rtb.domain.targeting import Candidate, Fit, Index, block, candidate, check
from rtb.lab.catalogue import campaigns as campaign_catalogue
from rtb.lab.traffic import Traffic
from rtb.openrtb import Audio, Banner, BidRequest, Deal, DurFloors, Format, Imp, Native, Pmp, Video

T0 = datetime(2026, 3, 8, tzinfo=UTC)
NOW = T0.timestamp()


def mostly(usual: Any, *others: Any, odds: int = 6) -> st.SearchStrategy[Any]:
    """Mostly the usual value: a campaign with twenty unusual ones fits nothing."""
    return st.sampled_from([*[usual] * odds, *others])


def few(*values: Any) -> st.SearchStrategy[Any]:
    """Mostly none, or one or two of the values."""
    return st.integers(0, 3).flatmap(
        lambda n: st.just(()) if n else st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)
    )


STARTS = mostly(None, *(T0 + timedelta(hours=hours) for hours in (-30, -1, 0, 1, 5)))
ENDS = mostly(None, *(T0 + timedelta(hours=hours) for hours in (0, 1, 5, 30)))
ZONES = st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "Asia/Seoul", "Australia/Lord_Howe"])
CIRCLES = st.builds(
    Circle,
    lat=st.sampled_from([37.5, 40.7, -33.9, 89.9]),
    lon=st.sampled_from([127.0, -74.0, 179.99, -180.0]),
    radius=st.sampled_from([1.0, 10.0, 60.0, 400.0, 15_000.0]),
)
TARGETING = st.builds(
    Targeting,
    interests=few("Sports", "golf", "tea"),
    segments=few("s1", "s2", "s3"),
    geo=st.one_of(st.just(()), st.just(()), st.lists(CIRCLES, min_size=1, max_size=2).map(tuple)),
    country=few("KOR", "usa"),
    region=few("CA", "kr-11"),
    city=few("Seoul", "Busan"),
    devicetype=few(2, 4),
    os=few("iOS", "Android"),
    language=few("ko", "en-US"),
    domain=few("a.example", "B.example"),
    domain_exclude=few("a.example", "c.example"),
    site_cat=few("IAB1", "IAB2-3"),
    site_cat_exclude=few("IAB2", "IAB3"),
    hours=st.one_of(
        st.just(()), st.just(()), st.lists(st.integers(0, 167), min_size=100, max_size=160, unique=True).map(tuple)
    ),
)
CREATIVE = st.builds(
    Creative,
    id=st.just("c"),
    media=st.sampled_from([Media.BANNER, Media.BANNER, *Media]),
    w=mostly(0, 300, 320, 728, odds=2),
    h=mostly(0, 250, 50, 90, odds=2),
    dur=st.sampled_from([0, 6, 15, 45]),
    mime=mostly("", "video/mp4", "image/png"),
    protocol=mostly(0, 2, odds=2),
    api=mostly(0, 7),
    attr=few(1, 9),
    btype=mostly(0, 3),
    language=mostly("", "ko", "EN"),
    secure=mostly(True, False),
)


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    """A campaign out of a small world, so that ids, prices and advertisers meet."""
    creatives = draw(st.lists(CREATIVE, min_size=1, max_size=2))
    targeting = draw(st.one_of(st.just(Targeting()), TARGETING))
    return Campaign(
        id=f"c{draw(st.integers(0, 25))}",
        advertiser=f"adv{draw(st.integers(0, 8))}",
        creatives=tuple(msgspec.structs.replace(c, id=f"cr{i}") for i, c in enumerate(creatives)),
        adomain=draw(st.sampled_from([(), ("Shoes.example",), ("www.cars.example",), ("tea.example", "x.example")])),
        cat=draw(few("IAB7-39", "IAB7", "IAB25", "IAB1-2")),
        cattax=draw(st.sampled_from([1, 1, 1, 7])),
        status=draw(st.sampled_from([*[Status.ACTIVE] * 8, Status.PAUSED])),
        bid=draw(st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.25])),
        start=draw(STARTS),
        end=draw(ENDS),
        timezone=draw(ZONES),
        frequency_cap=draw(mostly(None, FrequencyCap(count=2), odds=2)),
        deals=draw(few("d1", "d2")),
        targeting=targeting,
        pacing=draw(st.sampled_from([Pacing.ASAP, Pacing.EVEN])),
        optimise=draw(mostly(None, Optimise(), Optimise(value=0.5, context=0.0), odds=3)),
        max_bid=draw(st.sampled_from([None, 1.5, 2.5])),
        margin=draw(mostly(0.0, 0.25)),
        frequency_caps=draw(mostly((), (FrequencyCap(count=3, per=Per.HOUR),))),
    )


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    """Facts of a request from the same small world."""
    here = draw(st.booleans())
    return Context(
        now=NOW + draw(mostly(1, -90_000, -1, 0, 3600, 17_999, 25_200, 86_400)) + draw(st.integers(0, 3600)),
        country=draw(st.sampled_from(["", "KOR", "USA"])),
        region=draw(st.sampled_from(["", "ca"])),
        city=draw(st.sampled_from(["", "seoul"])),
        lat=draw(st.sampled_from([37.5, 37.55, 40.7, -33.9, 90.0, -90.0])) if here else None,
        lon=draw(st.sampled_from([127.0, 127.1, -74.0, 180.0, -179.98])) if here else None,
        devicetype=draw(st.sampled_from([0, 2, 4])),
        os=draw(st.sampled_from(["", "ios"])),
        language=draw(st.sampled_from(["", "ko", "en"])),
        domains=draw(few("a.example", "b.example")),
        site_cats=draw(st.sampled_from([(), ("IAB1",), ("IAB2-3", "IAB2")])),
        interests=draw(few("sports", "golf", "unknown")),
        segments=draw(few("s1", "s2")),
        frequency=draw(st.dictionaries(st.sampled_from(["c1", "c2", "c3", "c2/3600"]), st.integers(1, 3))),
        user_value=draw(st.sampled_from([0.0, -0.5, 0.3, 1.0])),
        cat_blocked=draw(few("IAB7", "IAB7-39", "IAB25")),
        cat_allowed=draw(mostly(None, ("IAB7", "IAB1"), ("IAB25",))),
        cattax=draw(st.sampled_from([1, 1, 7])),
        adv_blocked=draw(few("shoes.example", "cars.example")),
        seat_allowed=draw(mostly(None, ("adv1", "adv2"))),
        seat_blocked=draw(few("adv2", "adv3")),
        language_allowed=draw(mostly(None, ("ko",))),
    )


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """An imp from the same small world, through the real translation."""
    banner = Banner(
        format=draw(st.sampled_from([None, [Format(w=300, h=250)], [Format(w=728, h=90), Format(w=320, h=50)]])),
        battr=draw(st.sampled_from([None, [1]])),
        btype=draw(st.sampled_from([None, [3]])),
        api=draw(st.sampled_from([None, [], [7]])),
    )
    video = Video(
        mimes=["video/mp4"],
        minduration=draw(st.sampled_from([None, 10])),
        maxduration=draw(st.sampled_from([None, 30])),
        rqddurs=draw(st.sampled_from([None, None, [15]])),
        protocols=draw(st.sampled_from([None, [3]])),
        mincpmpersec=draw(st.sampled_from([None, None, 0.1])),
        durfloors=draw(st.sampled_from([None, None, [DurFloors(mindur=1, maxdur=20, bidfloor=0.75)]])),
    )
    deal = Deal(
        id="d1",
        bidfloor=draw(st.sampled_from([None, 0.0, 0.75, 2.5])),
        wseat=draw(st.sampled_from([None, ["adv1", "adv3", "adv5"]])),
        wadomain=draw(st.sampled_from([None, ["shoes.example"]])),
    )
    pmp = Pmp(private_auction=draw(st.sampled_from([0, 0, 1])), deals=[deal, Deal(id="d2", bidfloor=1.5)])
    imp = Imp(
        id="1",
        banner=draw(st.sampled_from([banner, banner, None])),
        video=draw(st.sampled_from([video, None])),
        audio=draw(st.sampled_from([None, None, Audio(mimes=["audio/mpeg"])])),
        native=draw(st.sampled_from([None, Native(request="{}")])),
        bidfloor=draw(mostly(None, 0.75, 1.0, 2.0)),
        secure=draw(st.sampled_from([None, 1])),
        pmp=draw(st.sampled_from([None, None, pmp])),
    )
    return facts.placement(imp, Rates())


class Twin:
    """The catalogue as a dictionary."""

    def __init__(self) -> None:
        self.campaigns: dict[str, Campaign] = {}
        self.dark: set[str] = set()

    def match(
        self, context: Context, placement: Placement, limit: int, admits: Callable[[str], bool] | None = None
    ) -> list[Candidate]:
        """The same answer as the index's, the slow way."""
        found: list[Candidate] = []
        seats: set[str] = set()

        def price(campaign: Campaign) -> int:
            return pricing.price_micros(campaign, context, placement.floor_micros)

        for campaign in sorted(self.campaigns.values(), key=lambda c: (-price(c), c.id)):
            fit = check(campaign, context, placement, live=campaign.id not in self.dark)
            if isinstance(fit, Fit) and campaign.advertiser not in seats and len(found) < limit:
                if campaign.paces and admits is not None and not admits(campaign.id):
                    continue
                seats.add(campaign.advertiser)
                found.append(candidate(campaign, fit.creative, fit.price_micros, fit.dealid, placement.impid))
        return found


class Gate:
    """Lets some campaigns in, and remembers in which order it was asked."""

    def __init__(self, shut: int) -> None:
        self.shut = shut
        self.asked: list[str] = []

    def __call__(self, campaign_id: str) -> bool:
        self.asked.append(campaign_id)
        return not self.shut >> int(campaign_id[1:]) & 1


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    first=st.lists(campaigns(), max_size=12),
    changes=st.lists(
        st.one_of(
            campaigns(),
            st.tuples(st.just("remove"), st.integers(0, 25)),
            st.tuples(st.just("live"), st.integers(0, 25), st.booleans()),
            st.tuples(st.just("match"), contexts(), placements(), st.integers(1, 4)),
            st.tuples(st.just("gated"), contexts(), placements(), st.integers(1, 4), st.integers(0, 2**26 - 1)),
        ),
        max_size=20,
    ),
    context=contexts(),
    placement=placements(),
)
def test_index_agrees_with_brute_force_through_any_changes(
    first: list[Campaign], changes: list[Any], context: Context, placement: Placement
) -> None:
    """After any sequence of put, remove and set_live, and whatever was asked before, match is what checking every
    campaign gives; and it asks for admission of the same campaigns in the same order, none but those it would take."""
    twin, index = Twin(), Index(first)
    twin.campaigns = {campaign.id: campaign for campaign in first}
    for change in changes:
        if isinstance(change, Campaign):
            index.put(change)
            twin.campaigns[change.id] = change
        elif change[0] == "remove":
            name = f"c{change[1]}"
            assert index.remove(name) == twin.campaigns.pop(name, None)
            twin.dark.discard(name)
        elif change[0] == "live":
            name = f"c{change[1]}"
            assert index.set_live(name, change[2]) is (name in twin.campaigns)
            if name in twin.campaigns:
                (twin.dark.discard if change[2] else twin.dark.add)(name)
        elif change[0] == "gated":
            gate, again = Gate(change[4]), Gate(change[4])
            found = index.match(change[1], change[2], limit=change[3], admits=gate)
            assert found == twin.match(change[1], change[2], change[3], again)
            assert gate.asked == again.asked
        else:
            assert index.match(change[1], change[2], limit=change[3]) == twin.match(*change[1:])
    assert len(index) == len(twin.campaigns)
    assert {campaign.id: campaign for campaign in index.campaigns()} == twin.campaigns
    assert index.match(context, placement) == twin.match(context, placement, 10)
    assert index.capped == 0


def banner_campaign(number: int, bid: float, advertiser: str = "", **fields: Any) -> Campaign:
    """A campaign for any banner."""
    return Campaign(
        id=f"c{number:05d}",
        advertiser=advertiser or f"adv{number}",
        creatives=(Creative(id="cr", w=300, h=250),),
        bid=bid,
        **fields,
    )


BANNER = facts.placement(Imp(id="1", banner=Banner(w=300, h=250)), Rates())


@pytest.mark.parametrize("step", [1, -1, 7919])
def test_blocks_split_and_merge_without_losing_rank(step: int) -> None:
    """5,000 insertions in rising, falling or scattered order, then 4,900 removals, answer as sorting does."""
    order = [number * step % 5003 for number in range(1, 5001)]
    index, prices = Index(), {}
    for number in order:
        campaign = banner_campaign(number, 0.01 + number * 0.001)
        index.put(campaign)
        prices[campaign.id] = campaign.bid_micros
    ranked = sorted(prices, key=lambda name: (-prices[name], name))
    assert [campaign.id for campaign in index.campaigns()] == ranked
    for name in [f"c{number:05d}" for number in order][:4900]:
        assert index.remove(name) is not None
        del prices[name]
    ranked = sorted(prices, key=lambda name: (-prices[name], name))
    assert len(index) == 100
    assert [c.campaign.id for c in index.match(Context(now=NOW), BANNER, limit=100)] == ranked


def test_equal_prices_tie_by_id_across_blocks() -> None:
    """3,000 campaigns at one price, in several blocks: the ten lowest ids bid."""
    index = Index(banner_campaign(number, 1.0) for number in range(3000, 0, -1))
    assert [c.campaign.id for c in index.match(Context(now=NOW), BANNER)] == [f"c{n:05d}" for n in range(1, 11)]


def test_one_advertiser_takes_one_place_however_many_campaigns_it_has() -> None:
    """2,000 dear campaigns of one advertiser leave nine places to the others below."""
    dear = [banner_campaign(number, 5.0, "greedy") for number in range(2000)]
    cheap = [banner_campaign(number, 1.0) for number in range(2000, 2020)]
    found = Index([*cheap, *dear]).match(Context(now=NOW), BANNER)
    assert [c.campaign.id for c in found] == ["c00000", *(f"c{n:05d}" for n in range(2000, 2009))]


def test_bids_that_were_forgotten_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five imps, each called otherwise, in turns, of which a block may remember the bids for two or three: every answer
    is what checking every campaign gives."""
    monkeypatch.setattr(block, "_MOST_MADE", 40)
    campaigns = {c.id: c for c in [banner_campaign(number, 1.0 + number / 100) for number in range(30)]}
    index, twin = Index(campaigns.values()), Twin()
    twin.campaigns = campaigns
    for turn in range(20):
        banner = Banner(w=300, h=250, btype=[turn % 5 + 10])  # of no type that a campaign has
        placement = facts.placement(Imp(id=str(turn % 5), banner=banner), Rates())
        context = Context(now=NOW)
        assert index.match(context, placement, limit=15) == twin.match(context, placement, 15)


def test_flag_survives_replacement_and_ends_with_removal() -> None:
    """A campaign out of budget stays dark when its bid changes; removed and put again it is a new one."""
    index = Index([banner_campaign(1, 1.0)])
    assert index.set_live("c00001", False)
    index.put(banner_campaign(1, 2.0))
    assert index.match(Context(now=NOW), BANNER) == []
    index.remove("c00001")
    index.put(banner_campaign(1, 2.0))
    assert len(index.match(Context(now=NOW), BANNER)) == 1


def test_flag_does_not_wake_a_paused_campaign() -> None:
    """status stands above the live flag."""
    index = Index([banner_campaign(1, 1.0, status=Status.PAUSED)])
    assert index.set_live("c00001", True)
    assert index.match(Context(now=NOW), BANNER) == []
    index.put(banner_campaign(1, 1.0))
    assert len(index.match(Context(now=NOW), BANNER)) == 1


def test_search_is_cut_short_by_effort_and_counted() -> None:
    """With effort for two blocks only, campaigns in the third are not found, and `capped` says so."""
    blind = [banner_campaign(number, 5.0, deals=("d",), targeting=Targeting(os=("ios",))) for number in range(2000)]
    index = Index([*blind, banner_campaign(3000, 1.0)], effort=2)
    assert index.match(Context(now=NOW, os="android"), BANNER) == []
    assert index.capped == 1


def test_time_may_go_back() -> None:
    """A replay asks for an earlier moment after a later one: a campaign of Sunday 8 March, 00:00 to 01:00 UTC only."""
    day = banner_campaign(1, 1.0, start=T0, end=T0 + timedelta(days=1), targeting=Targeting(hours=(144,)))
    index = Index([day])
    asked = {0: 1, 90_000: 0, 3_600: 0, 3_599: 1, -1: 0, 1: 1}
    assert {s: len(index.match(Context(now=NOW + s), BANNER)) for s in asked} == asked


def test_lab_campaigns_and_traffic_agree_with_brute_force_through_many_changes() -> None:
    """1,500 believable campaigns, more blocks than one, 3,000 changes of price, budget and existence between 120
    requests of a week."""
    rng, rates = random.Random(7), Rates()
    traffic, reserve = Traffic(7, users=500), list(campaign_catalogue(1_800, seed=7))
    twin, index = Twin(), Index(reserve[:1_500])
    twin.campaigns = {campaign.id: campaign for campaign in reserve[:1_500]}
    for number in range(120):
        for _ in range(25):
            campaign = rng.choice(reserve)
            match rng.randrange(4):
                case 0:
                    index.remove(campaign.id)
                    twin.campaigns.pop(campaign.id, None)
                    twin.dark.discard(campaign.id)
                case 1:
                    live = rng.random() < 0.5
                    if index.set_live(campaign.id, live):
                        (twin.dark.discard if live else twin.dark.add)(campaign.id)
                case _:
                    changed = msgspec.structs.replace(campaign, bid=campaign.bid * rng.uniform(0.5, 2.0) + 0.01)
                    index.put(changed)
                    twin.campaigns[changed.id] = changed
        request = msgspec.convert(traffic.request(), BidRequest)
        context = facts.context(request, now=NOW + number * 5_040)
        for imp in request.imp or ():
            placement = facts.placement(imp, rates)
            assert index.match(context, placement) == twin.match(context, placement, 10)
    assert index.capped == 0
