"""The exact rules: one case a criterion, each with the words it gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from rtb.domain import facts
from rtb.domain.campaign import Campaign, Circle, Creative, FrequencyCap, Media, Pricing, Status, Targeting
from rtb.domain.facts import Context, Offer, Placement
from rtb.domain.money import Rates
from rtb.domain.targeting import Criterion, Fit, Miss, check
from rtb.openrtb import Banner, Deal, DurFloors, Imp, Pmp, Video

NOW = datetime(2026, 3, 11, 12, 30, tzinfo=UTC).timestamp()  # a Wednesday
SEOUL = (37.5665, 126.9780)

CAMPAIGN = Campaign(
    id="c1",
    advertiser="acme",
    adomain=("acme.example",),
    cat=("IAB18",),
    bid=1.2,
    creatives=(Creative(id="mrec", w=300, h=250), Creative(id="leader", w=728, h=90)),
)
CONTEXT = Context(now=NOW, country="KOR", region="kr-11", city="seoul", lat=SEOUL[0], lon=SEOUL[1], devicetype=4)
PLACEMENT = Placement(impid="1", offers=(Offer(media=Media.BANNER, sizes=((728, 90), (300, 250))),))


def miss(campaign: Campaign, context: Context = CONTEXT, placement: Placement = PLACEMENT, **told: Any) -> str:
    """The text of a miss; its criterion begins it."""
    found = check(campaign, context, placement, **told)
    assert isinstance(found, Miss)
    assert found.text.startswith(f"{found.criterion.value}: ")
    return found.text


def campaign(**fields: Any) -> Campaign:
    """The campaign with other fields."""
    return msgspec.structs.replace(CAMPAIGN, **fields)


def target(**fields: Any) -> Campaign:
    """The campaign with this targeting."""
    return campaign(targeting=Targeting(**fields))


def context(**fields: Any) -> Context:
    """The request with other facts."""
    return msgspec.structs.replace(CONTEXT, **fields)


def offered(**fields: Any) -> Placement:
    """A banner of any size with these restrictions."""
    return Placement(offers=(Offer(media=Media.BANNER, **fields),))


def made(**fields: Any) -> Campaign:
    """The campaign with one creative, of these fields."""
    return campaign(creatives=(Creative(id="x", **fields),))


def test_fit_has_the_creative_of_the_first_size_the_imp_asks_for() -> None:
    """The imp prefers 728x90, so the second creative is chosen; the price is the bid, 1.20 CPM."""
    assert check(CAMPAIGN, CONTEXT, PLACEMENT) == Fit(CAMPAIGN.creatives[1], 1_200_000, None)


def test_price_of_a_click_is_what_a_thousand_impressions_are_worth() -> None:
    """0.50 a click at a pCTR of 0.2 % is 1.00 CPM; 20 a conversion at 1 % of those clicks is 0.40 CPM."""
    clicks = check(campaign(pricing=Pricing.CPC, bid=0.5, pctr=0.002), CONTEXT, PLACEMENT)
    sales = check(campaign(pricing=Pricing.CPA, bid=20.0, pctr=0.002, pcvr=0.01), CONTEXT, PLACEMENT)
    assert isinstance(clicks, Fit)
    assert isinstance(sales, Fit)
    assert (clicks.price_micros, sales.price_micros) == (1_000_000, 400_000)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (campaign(status=Status.PAUSED), "status: is paused"),
        (
            campaign(start=datetime(2026, 3, 11, 12, 31, tzinfo=UTC)),
            "flight: starts 2026-03-11T12:31:00+00:00",
        ),
        (campaign(end=datetime(2026, 3, 11, 12, 30, tzinfo=UTC)), "flight: ended 2026-03-11T12:30:00+00:00"),
        (
            campaign(targeting=Targeting(hours=(60, 61)), timezone="Asia/Seoul"),
            "hours: not on Wed at 21:30 Asia/Seoul",
        ),
        (made(media=Media.VIDEO), "size: offered is banner 728x90 300x250; has video"),
        (made(w=320, h=50), "size: offered is banner 728x90 300x250; has banner 320x50"),
        (target(country=("USA", "JPN")), "country: KOR is none of USA, JPN"),
        (target(region=("KR-26",)), "region: kr-11 is none of kr-26"),
        (target(city=("Busan",)), "city: seoul is none of busan"),
        (target(devicetype=(2, 3)), "devicetype: 4 is none of 2, 3"),
        (target(os=("iOS",)), "os: none is none of ios"),
        (target(language=("ko",)), "language: none is none of ko"),
        (target(domain=("a.example",)), "domain: none is none of a.example"),
        (target(site_cat=("IAB1",)), "site_cat: none is none of IAB1"),
        (target(interests=("golf",)), "interests: none is none of golf"),
        (target(segments=("s1",)), "segments: none is none of s1"),
    ],
)
def test_what_a_campaign_fails_by(found: Campaign, text: str) -> None:
    """Each criterion, with the value it met and the values it wanted."""
    assert miss(found) == text


@pytest.mark.parametrize(
    ("facts_", "text"),
    [
        ({"seat_allowed": ("umbrella",)}, "seat: acme is not among the allowed"),
        ({"seat_blocked": ("acme",)}, "seat: acme is blocked"),
        ({"adv_blocked": ("acme.example",)}, "advertiser: acme.example is blocked"),
        ({"cat_blocked": ("IAB18",)}, "category: IAB18 is blocked"),
        ({"cat_allowed": ("IAB1",)}, "category: IAB18 is not among the allowed"),
    ],
)
def test_what_a_publisher_refuses(facts_: dict[str, Any], text: str) -> None:
    """wseat, bseat, badv, bcat and acat."""
    assert miss(CAMPAIGN, context(**facts_)) == text


def test_badv_covers_what_is_under_a_domain() -> None:
    """Blocking acme.example blocks shop.acme.example, not notacme.example; without adomain nobody can tell."""
    blocked = context(adv_blocked=("acme.example",))
    assert miss(campaign(adomain=("Shop.ACME.example",)), blocked) == "advertiser: acme.example is blocked"
    assert isinstance(check(campaign(adomain=("notacme.example",)), blocked, PLACEMENT), Fit)
    assert miss(campaign(adomain=()), blocked).startswith("advertiser: no adomain")


def test_categories_cover_their_children_within_one_taxonomy() -> None:
    """IAB18 blocks and allows IAB18-3; every category must be allowed; another cattax says nothing."""
    child = campaign(cat=("IAB18-3",))
    assert miss(child, context(cat_blocked=("IAB18",))) == "category: IAB18-3 is blocked"
    assert isinstance(check(campaign(cat=("IAB18",)), context(cat_blocked=("IAB18-3",)), PLACEMENT), Fit)
    assert isinstance(check(child, context(cat_allowed=("IAB18",)), PLACEMENT), Fit)
    assert miss(campaign(cat=("IAB18", "IAB2")), context(cat_allowed=("IAB18",))).startswith("category: IAB2 is not")
    assert isinstance(check(child, context(cat_blocked=("IAB18",), cattax=7), PLACEMENT), Fit)


def test_budget_is_what_the_caller_says() -> None:
    """Not live: there is nothing left."""
    assert miss(CAMPAIGN, live=False) == "budget: nothing left to spend now"


def test_pacing_is_what_the_caller_says_and_comes_last() -> None:
    """A campaign that fits in everything else may be kept out by pacing; of another, that is not the reason."""
    assert miss(CAMPAIGN, pacing="takes part in 25 %") == "pacing: takes part in 25 %"
    assert miss(CAMPAIGN, live=False, pacing="takes part in 25 %").startswith("budget: ")
    below = miss(
        CAMPAIGN, placement=msgspec.structs.replace(PLACEMENT, floor_micros=10**9), pacing="takes part in 25 %"
    )
    assert below.startswith("floor: ")


@pytest.mark.parametrize(
    ("found", "placement", "text"),
    [
        (made(attr=(6, 9)), offered(attr_blocked=(9,)), "creative: x has the blocked attribute 9"),
        (made(btype=3), offered(type_blocked=(1, 3)), "creative: x is of the blocked type 3"),
        (made(mime="image/gif"), offered(mimes=("image/png",)), "creative: x is image/gif, allowed are image/png"),
        (made(protocol=2), offered(protocols=(3, 6)), "creative: x needs protocol 2, supported are 3, 6"),
        (made(api=7), offered(api=()), "creative: x needs api 7, supported are none"),
        (made(secure=False), Placement(offers=(Offer(media=Media.BANNER),), secure=True), "creative: x is not secure"),
    ],
)
def test_what_an_imp_does_not_take(found: Campaign, placement: Placement, text: str) -> None:
    """Details of a creative that has the right shape."""
    assert miss(found, placement=placement) == text


def test_language_of_a_creative() -> None:
    """wlang against what the creative says it speaks; one that says nothing passes."""
    korean = context(language_allowed=("ko", "ja"))
    assert miss(made(language="en"), korean) == "creative: x speaks en, allowed are ko, ja"
    assert isinstance(check(made(language="ko-KR"), korean, PLACEMENT), Fit)
    assert isinstance(check(CAMPAIGN, korean, PLACEMENT), Fit)


@pytest.mark.parametrize(
    ("dur", "limits", "text"),
    [
        (5, {"mindur": 6, "maxdur": 30}, "creative: x lasts 5 s, at least 6 s are required"),
        (31, {"mindur": 6, "maxdur": 30}, "creative: x lasts 31 s, at most 30 s are allowed"),
        (20, {"durations": (15, 30)}, "creative: x lasts 20 s, allowed are 15, 30 s"),
    ],
)
def test_duration_of_a_video(dur: int, limits: dict[str, Any], text: str) -> None:
    """Outside the limits, or not one of those required; the limits themselves are inside."""
    video = Placement(offers=(Offer(media=Media.VIDEO, **limits),))
    assert miss(made(media=Media.VIDEO, dur=dur), placement=video) == text
    within = dur + 1 if dur == 5 else dur - 1 if dur == 31 else 30
    assert isinstance(check(made(media=Media.VIDEO, dur=within), CONTEXT, video), Fit)


def test_nearest_circle_is_named() -> None:
    """One degree of a meridian is 6371 km x pi / 180 = 111.19 km; the nearer of two circles counts."""
    near = Circle(lat=SEOUL[0] + 1, lon=SEOUL[1])
    far = Circle(lat=SEOUL[0] + 3, lon=SEOUL[1], radius=50.0)
    assert miss(target(geo=(far, near))) == "geo: 111.2 km from the nearest circle, radius 10 km"
    assert isinstance(check(target(geo=(far, Circle(*SEOUL, radius=0.1))), CONTEXT, PLACEMENT), Fit)
    assert miss(target(geo=(near,)), context(lat=None)) == "geo: the request says no place"


def test_exclusions() -> None:
    """A page of an excluded domain or category, whatever is included."""
    page = context(domains=("a.example",), site_cats=("IAB2-3", "IAB2"))
    assert miss(target(domain=("a.example",), domain_exclude=("A.example",)), page) == "domain: a.example is excluded"
    assert miss(target(site_cat_exclude=("IAB2",)), page) == "site_cat: IAB2 is excluded"


def test_words_match_in_any_case() -> None:
    """Targeting keys are compared as the facts are normalised."""
    wide = target(
        country=("kor",), region=("KR-11",), city=("SEOUL",), os=("iOS",), language=("ko-KR",), interests=("Golf",)
    )
    assert isinstance(check(wide, context(os="ios", language="ko", interests=("golf",)), PLACEMENT), Fit)


def test_frequency_cap() -> None:
    """At the cap it stops; other campaigns' counts do not matter."""
    capped = campaign(frequency_cap=FrequencyCap(count=3, seconds=3600))
    assert miss(capped, context(frequency={"c1": 3})) == "frequency: 3 shown, at most 3 in 3600 s"
    assert isinstance(check(capped, context(frequency={"c1": 2, "c2": 9}), PLACEMENT), Fit)


def test_floor() -> None:
    """A bid equal to the floor is eligible."""
    assert miss(CAMPAIGN, placement=msgspec.structs.replace(PLACEMENT, floor_micros=2_000_000)) == (
        "floor: price 1.20 CPM is below 2.00"
    )
    assert isinstance(check(CAMPAIGN, CONTEXT, msgspec.structs.replace(PLACEMENT, floor_micros=1_200_000)), Fit)


def under(*deals: Deal, private: int = 0, floor: float = 5.0) -> Placement:
    """A banner imp with deals and an open floor above the campaign's bid."""
    pmp = Pmp(private_auction=private, deals=list(deals))
    return facts.placement(Imp(id="1", banner=Banner(w=300, h=250), bidfloor=floor, pmp=pmp), Rates())


def test_private_auction_needs_a_deal() -> None:
    """A campaign without one of its deals stays out, by whatever the deal shuts it out."""
    invited = campaign(deals=("d1",))
    assert miss(CAMPAIGN, placement=under(Deal(id="d1"), private=1)) == "deal: private auction under d1; has none"
    assert miss(invited, placement=under(Deal(id="d2"), private=1)) == "deal: private auction under d2; has d1"
    assert miss(invited, placement=under(Deal(id="d1", wseat=["umbrella"]), private=1)).startswith("deal: ")
    assert miss(invited, placement=under(Deal(id="d1", wadomain=["b.example"]), private=1)).startswith("deal: ")
    fit = check(invited, CONTEXT, under(Deal(id="d1", bidfloor=1.0, wseat=["acme"]), private=1))
    assert isinstance(fit, Fit)
    assert fit.dealid == "d1"


def test_a_deal_has_its_own_floor() -> None:
    """The first deal whose floor the bid reaches, else the open auction and its floor; an absent deal floor is none of
    its own, so the imp's applies (OpenRTB 2.6 7.11.2)."""
    holder = campaign(deals=("d1", "d2"))
    dear, cheap = Deal(id="d1", bidfloor=2.0), Deal(id="d2", bidfloor=0.0)
    fit = check(holder, CONTEXT, under(dear, cheap))
    assert isinstance(fit, Fit)
    assert fit.dealid == "d2"
    open_bid = check(holder, CONTEXT, under(dear, floor=1.0))
    assert isinstance(open_bid, Fit)
    assert open_bid.dealid is None
    assert miss(holder, placement=under(dear)) == "floor: price 1.20 CPM is below 5.00"
    assert miss(holder, placement=under(dear, private=1)) == "floor: price 1.20 CPM is below 2.00"
    assert miss(holder, placement=under(Deal(id="d1"))) == "floor: price 1.20 CPM is below 5.00"


def test_a_stream_is_priced_by_duration() -> None:
    """durfloors of the video in place of the imp's floor: 15 s cost 1.00, 30 s 3.00 [3.2.35]."""
    floors = [DurFloors(mindur=1, maxdur=15, bidfloor=1.0), DurFloors(mindur=16, maxdur=30, bidfloor=3.0)]
    imp = Imp(id="1", video=Video(mimes=["video/mp4"], durfloors=floors), bidfloor=9.0)
    video = facts.placement(imp, Rates())
    assert isinstance(check(made(media=Media.VIDEO, dur=15), CONTEXT, video), Fit)
    assert miss(made(media=Media.VIDEO, dur=30), placement=video) == "floor: price 1.20 CPM is below 3.00"


def test_the_first_criterion_in_order_is_named() -> None:
    """Everything is wrong at once: taking the wrong things away one by one names them in the documented order."""
    wrong = campaign(
        status=Status.ENDED,
        end=datetime(2026, 1, 1, tzinfo=UTC),
        frequency_cap=FrequencyCap(count=1),
        targeting=Targeting(
            hours=(0,), country=("USA",), region=("CA",), city=("LA",), geo=(Circle(lat=0, lon=0),), devicetype=(2,),
            os=("ios",), language=("en",), domain=("a",), site_cat=("IAB1",), interests=("x",), segments=("y",),
        ),
    )  # fmt: skip
    request = context(
        seat_blocked=("acme",), adv_blocked=("acme.example",), cat_blocked=("IAB18",), frequency={"c1": 1}
    )
    wide = (Offer(media=Media.BANNER, api=()),)
    placement = Placement(offers=(Offer(media=Media.NATIVE),), private=True, floor_micros=10**9)
    wrong = msgspec.structs.replace(wrong, creatives=(Creative(id="x", api=7),))
    live, pacing, named = False, "waits", []
    mend: dict[Criterion, Any] = {
        Criterion.STATUS: {"status": Status.ACTIVE},
        Criterion.FLIGHT: {"end": None},
        Criterion.FREQUENCY: {"frequency_cap": None},
    }
    for _ in range(len(Criterion)):
        found = check(wrong, request, placement, live=live, pacing=pacing)
        assert isinstance(found, Miss)
        named.append(found.criterion)
        match found.criterion:
            case Criterion.STATUS | Criterion.FLIGHT | Criterion.FREQUENCY:
                wrong = msgspec.structs.replace(wrong, **mend[found.criterion])
            case Criterion.BUDGET:
                live = True
            case Criterion.PACING:
                pacing = ""
            case Criterion.SEAT:
                request.seat_blocked = ()
            case Criterion.ADVERTISER:
                request.adv_blocked = ()
            case Criterion.CATEGORY:
                request.cat_blocked = ()
            case Criterion.SIZE:
                placement.offers = wide
            case Criterion.CREATIVE:
                placement.offers = (Offer(media=Media.BANNER),)
            case Criterion.DEAL:
                placement.private = False
            case Criterion.FLOOR:
                placement.floor_micros = 0
            case other:
                targeting = msgspec.structs.replace(wrong.targeting, **{other.value: ()})
                wrong = msgspec.structs.replace(wrong, targeting=targeting)
    assert named == list(Criterion)
    assert isinstance(check(wrong, request, placement, live=live), Fit)
