"""The checks of a single bid, one by one; what they mean together is in tests/golden."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.validation import (
    CridRule,
    blocked_advertisers,
    is_or_under,
    is_usual,
    markup_type,
    objection,
    only_media,
    seat_objection,
)
from rtb.openrtb import Audio, Banner, Bid, BidRequest, Format, Imp, Loss, MarkupType, Native, Video

BANNER = Imp(id="1", banner=Banner(w=300, h=250))
VIDEO = Imp(id="1", video=Video(mimes=["video/mp4"]))
MIXED = Imp(id="1", banner=Banner(), video=Video(), audio=Audio(), native=Native())


def bid(**fields: Any) -> Bid:
    """A bid that nothing is wrong with, but for these fields."""
    return Bid(**{"id": "b", "impid": "1", "price": 1.0, "adm": "<p>ad</p>", "adomain": ["ford.com"], **fields})


def why(imp: Imp | None = BANNER, request: BidRequest | None = None, **fields: Any) -> Loss | None:
    """The objection to a bid with these fields."""
    return objection(bid(**fields), request or BidRequest(), imp)


def test_nothing_is_wrong_with_a_plain_bid() -> None:
    """The bid that the other tests spoil is fine."""
    assert why() is None


@pytest.mark.parametrize("price", [None, 0.0, -1.0, math.nan, math.inf, 1_000_000.1])
def test_what_is_no_price(price: float | None) -> None:
    """9: missing, zero, negative, not finite, absurd."""
    assert why(price=price) is Loss.PRICE_MISSING


@pytest.mark.parametrize("adm", [None, ""])
def test_a_bid_needs_markup_or_a_preloaded_ad(adm: str | None) -> None:
    """7: neither adm nor adid; markup that a win notice would bring is not supported."""
    assert why(adm=adm, nurl="https://dsp.example/win") is Loss.MARKUP_MISSING
    assert why(adm=adm, adid="preloaded") is None


def test_crid_by_rule() -> None:
    """8 only where the exchange enforces what 4.2.3 leaves optional."""
    assert objection(bid(), BidRequest(), BANNER) is None
    assert objection(bid(), BidRequest(), BANNER, crid=CridRule.ENFORCE) is Loss.CRID_MISSING
    assert objection(bid(crid="c"), BidRequest(), BANNER, crid=CridRule.ENFORCE) is None


@pytest.mark.parametrize("fields", [{"id": None}, {"id": ""}])
def test_a_bid_needs_an_id(fields: dict[str, Any]) -> None:
    """3: 4.2.3 requires it."""
    assert why(**fields) is Loss.INVALID_RESPONSE


def test_a_bid_needs_its_imp() -> None:
    """3: it bids on something that is not for sale."""
    assert why(imp=None) is Loss.INVALID_RESPONSE


def test_the_first_objection_counts() -> None:
    """The order is fixed, so that a reason can be relied on: response, price, markup, advertiser, creative."""
    request = BidRequest(badv=["ford.com"], wlang=["en"])
    everything = {"language": "de", "w": 1, "h": 1}
    assert why(request=request, **everything, id="", price=None) is Loss.INVALID_RESPONSE
    assert why(request=request, **everything, price=None, adm="") is Loss.PRICE_MISSING
    assert why(request=request, **everything, adm="") is Loss.MARKUP_MISSING
    assert why(request=request, **everything) is Loss.ADVERTISER_BLOCKED
    assert why(request=request, **everything, adomain=["opel.de"]) is Loss.LANGUAGE
    assert why(w=1, h=1) is Loss.SIZE


@pytest.mark.parametrize(
    ("wseat", "bseat", "objected"),
    [
        (None, None, False),
        (["s"], None, False),
        (["t"], None, True),
        (None, ["s"], True),
        (None, ["t"], False),
        (["s"], ["s"], True),
        ([], [], False),
    ],
)
def test_seats(wseat: list[str] | None, bseat: list[str] | None, objected: bool) -> None:
    """104 by wseat or bseat, both where both are given; an empty list restricts nothing."""
    found = seat_objection(BidRequest(wseat=wseat, bseat=bseat), "s")
    assert found is (Loss.SEAT_BLOCKED if objected else None)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("ford.com", True),
        ("www.ford.com", True),
        ("a.b.ford.com", True),
        ("ford.com.", True),
        (" ford.com ", True),
        ("notford.com", False),
        ("com", False),
        ("", False),
        (".", False),
    ],
)
def test_domains_under_a_domain(name: str, inside: bool) -> None:
    """Whole labels count, and a stray dot or blank helps nobody past a block list."""
    assert is_or_under(name, {"ford.com"}) is inside


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mtype": 1}, MarkupType.BANNER),
        ({"mtype": 4}, MarkupType.NATIVE),
        ({"mtype": 0}, None),
        ({"mtype": 5}, None),
        ({}, MarkupType.BANNER),
        ({"adm": "<VAST version='4.2'/>"}, MarkupType.VIDEO),
        ({"adm": "\n<?xml version='1.0'?>\n<VAST/>"}, MarkupType.VIDEO),
        ({"adm": ' {"assets": []}'}, MarkupType.NATIVE),
        ({"adm": None, "adid": "x"}, MarkupType.BANNER),
        ({"adm": "<VAST/>", "mtype": 3}, MarkupType.AUDIO),
    ],
)
def test_the_media_of_a_bid_on_a_mixed_imp(fields: dict[str, Any], expected: MarkupType | None) -> None:
    """mtype says it; without it the markup does, else the first media that is offered."""
    assert markup_type(bid(**fields), MIXED) is expected


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        (BANNER, MarkupType.BANNER),
        (VIDEO, MarkupType.VIDEO),
        (Imp(audio=Audio()), MarkupType.AUDIO),
        (Imp(native=Native()), MarkupType.NATIVE),
        (Imp(audio=Audio(), native=Native()), MarkupType.AUDIO),
    ],
)
def test_the_only_media_of_an_imp(imp: Imp, expected: MarkupType) -> None:
    """A bid without mtype on an imp of one media is for that one, whatever its markup looks like."""
    assert markup_type(bid(), imp) is expected


def test_in_banner_video_is_a_banner() -> None:
    """VAST on an imp that offers no video or audio is a banner's business (3.2.6: in-banner video)."""
    assert markup_type(bid(adm="<VAST/>"), BANNER) is MarkupType.BANNER


@pytest.mark.parametrize(
    ("banner", "size", "fits"),
    [
        (Banner(w=300, h=250), (300, 250), True),
        (Banner(w=300, h=250), (250, 300), False),
        (Banner(w=300, h=250), (300, None), True),
        (Banner(w=300, h=250), (None, None), True),
        (Banner(w=300), (728, 90), True),
        (Banner(), (728, 90), True),
        (Banner(w=1, h=1, format=[Format(w=300, h=250)]), (1, 1), False),
        (Banner(w=1, h=1, format=[Format(w=300, h=250)]), (300, 250), True),
        (Banner(format=[Format(w=300, h=250), Format(wratio=6, hratio=5)]), (728, 90), True),
        (Banner(format=[Format()]), (728, 90), True),
    ],
)
def test_sizes(banner: Banner, size: tuple[int | None, int | None], fits: bool) -> None:
    """203: formats say what is permitted, else w and h; what one side leaves open fits."""
    found = why(Imp(id="1", banner=banner), w=size[0], h=size[1])
    assert found is (None if fits else Loss.SIZE)


@pytest.mark.parametrize(
    ("stream", "dur", "fits"),
    [
        (Video(), 4000, True),
        (Video(minduration=5, maxduration=30), None, True),
        (Video(minduration=5, maxduration=30), 5, True),
        (Video(minduration=5, maxduration=30), 30, True),
        (Video(minduration=5, maxduration=30), 4, False),
        (Video(minduration=5, maxduration=30), 31, False),
        (Video(minduration=5, maxduration=30), -1, False),
        (Video(maxduration=30, maxextended=0), 31, False),
        (Video(maxduration=30, maxextended=10), 40, True),
        (Video(maxduration=30, maxextended=10), 41, False),
        (Video(maxduration=30, maxextended=-1), 4000, True),
        (Video(rqddurs=[15, 30]), 15, True),
        (Video(rqddurs=[15, 30]), 20, False),
        (Video(maxduration=30, poddur=60), 45, False),
        (Video(poddur=60), 60, True),
        (Video(poddur=60), 61, False),
        (Audio(maxduration=30), 31, False),
    ],
)
def test_durations(stream: Video | Audio, dur: int | None, fits: bool) -> None:
    """204: what 3.2.7 and 3.2.8 say of each ad's length; a bid that tells none fits."""
    imp = Imp(id="1", video=stream) if isinstance(stream, Video) else Imp(id="1", audio=stream)
    assert why(imp, dur=dur) is (None if fits else Loss.FORMAT)


@pytest.mark.parametrize(
    ("supported", "fields", "fits"),
    [
        (None, {"apis": [3, 5]}, True),
        ([5], {"apis": [5]}, True),
        ([5], {"apis": [5, 6]}, False),
        ([5], {"api": 3}, False),
        ([5], {"api": 3, "apis": [5]}, True),
        ([5], {}, True),
        ([], {"apis": [5]}, False),
    ],
)
def test_apis(supported: list[int] | None, fields: dict[str, Any], fits: bool) -> None:
    """204: an API that is not listed is not supported; no list restricts nothing, an empty one everything."""
    for imp in (Imp(id="1", banner=Banner(api=supported)), Imp(id="1", video=Video(api=supported))):
        assert why(imp, **fields) is (None if fits else Loss.FORMAT)
    assert why(Imp(id="1", native=Native(api=supported)), **fields) is (None if fits else Loss.FORMAT)


@pytest.mark.parametrize(
    ("adm", "secure"),
    [
        ("<img src='http://a.example'>", False),
        ("<img src=http%3A//a.example>", False),
        ("<img src='https://a.example'>", True),
        ("<img src='//a.example'>", True),
        ("<a href='http://a.example'><img src='https://b.example'>", True),
    ],
)
def test_secure_markup(adm: str, secure: bool) -> None:
    """207 as Prebid Server tells it: plain http, and https nowhere; only where the imp asks for secure markup."""
    assert why(Imp(id="1", banner=Banner(), secure=1), adm=adm) is (None if secure else Loss.NOT_SECURE)
    assert why(Imp(id="1", banner=Banner(), secure=0), adm=adm) is None


@pytest.mark.parametrize(
    ("request_fields", "bid_fields", "fine"),
    [
        ({}, {"language": "de"}, True),
        ({"wlang": ["en"]}, {}, True),
        ({"wlang": ["en"]}, {"language": "en"}, True),
        ({"wlang": ["en"]}, {"language": "EN-us"}, True),
        ({"wlang": ["en"]}, {"language": "xx"}, True),
        ({"wlang": ["en"]}, {"language": "de"}, False),
        ({"wlang": ["fi"]}, {"language": "fil"}, False),
        ({"wlangb": ["zh-Hant"]}, {"langb": "zh_Hans"}, True),
        ({"wlangb": ["zh-Hant"]}, {"langb": "ja"}, False),
    ],
)
def test_languages(request_fields: dict[str, Any], bid_fields: dict[str, Any], fine: bool) -> None:
    """208 by primary subtag; a bid that tells none, or xx for no words at all, is fine."""
    found = why(Imp(id="1", banner=Banner()), BidRequest(**request_fields), **bid_fields)
    assert found is (None if fine else Loss.LANGUAGE)


@pytest.mark.parametrize(
    ("request_fields", "bid_fields", "fine"),
    [
        ({"bcat": ["IAB3"]}, {"cat": ["IAB3-1"]}, False),
        ({"bcat": ["IAB3-1"]}, {"cat": ["IAB3"]}, True),
        ({"bcat": ["IAB3"]}, {"cat": ["IAB31"]}, True),
        ({"bcat": ["IAB3"]}, {}, True),
        ({"acat": ["IAB3"]}, {"cat": ["IAB3-1"]}, True),
        ({"acat": ["IAB3-1"]}, {"cat": ["IAB3"]}, False),
        ({"acat": ["IAB3"]}, {"cat": ["IAB3", "IAB1"]}, False),
        ({"acat": ["IAB3"]}, {}, True),
        ({"bcat": ["52"], "cattax": 6}, {"cat": ["52"], "cattax": 6}, False),
        ({"bcat": ["52"], "cattax": 6}, {"cat": ["52"]}, True),
        ({"bcat": ["IAB3"], "cattax": 1}, {"cat": ["IAB3"]}, False),
    ],
)
def test_categories(request_fields: dict[str, Any], bid_fields: dict[str, Any], fine: bool) -> None:
    """209 within one taxonomy, 1 where none is named; a tier-1 category covers those under it."""
    assert why(request=BidRequest(**request_fields), **bid_fields) is (None if fine else Loss.CATEGORY_BLOCKED)


@given(
    st.builds(
        Bid,
        id=st.sampled_from(["b", "", None]),
        impid=st.just("1"),
        price=st.sampled_from([None, 0.0, 0.0001, 1.0, 1e6, 2e6, math.nan]),
        adm=st.sampled_from([None, "", "<p>ad</p>", "<img src='http://x'>", "<img src='https://x'>"]),
        crid=st.sampled_from([None, "c"]),
        adomain=st.sampled_from([None, [], ["ford.com"], ["www.Acme.example"]]),
        cat=st.sampled_from([None, None, ["IAB1"]]),
        attr=st.sampled_from([None, None, [1]]),
        bundle=st.sampled_from([None, None, "app"]),
        apis=st.sampled_from([None, None, [3]]),
        language=st.sampled_from([None, None, "de"]),
        protocol=st.sampled_from([None, None, 2]),
        dur=st.sampled_from([None, None, 15, 90]),
        mtype=st.sampled_from([None, None, 1, 2, 3, 4, 9]),
        w=st.sampled_from([None, 300, 320]),
        h=st.sampled_from([None, 250]),
    ),
    st.sampled_from(
        [
            BANNER,
            VIDEO,
            MIXED,
            Imp(id="1", banner=Banner(format=[Format(w=300, h=250)], battr=[1], api=[5]), secure=1),
            Imp(id="1", video=Video(mimes=["video/mp4"], protocols=[3], maxduration=30), secure=1),
            Imp(id="1", audio=Audio(mimes=["audio/mp4"], minduration=30)),
            Imp(id="1", native=Native(request="{}", api=[5], battr=[1])),
        ]
    ),
    st.sampled_from(
        [
            BidRequest(),
            BidRequest(badv=["Acme.example"], bcat=["IAB1"], bapp=["app"], wlang=["en"]),
            BidRequest(acat=["IAB2"]),
        ]
    ),
)
def test_nothing_speaks_against_the_usual_bid(sent: Bid, imp: Imp, request: BidRequest) -> None:
    """What the short look lets pass, all checks let pass, under the strictest rules; and its media is the imp's."""
    media = only_media(imp)
    if is_usual(sent, imp, media, blocked_advertisers(request)):
        assert objection(sent, request, imp, crid=CridRule.ENFORCE, adomain=True) is None
        assert markup_type(sent, imp) == media


def test_a_plain_bid_is_the_usual_one() -> None:
    """In each media, so that the short look is taken."""
    for imp in (BANNER, VIDEO, Imp(id="1", native=Native(request="{}")), Imp(id="1", audio=Audio(mimes=["a/b"]))):
        assert is_usual(bid(crid="c"), imp, only_media(imp), frozenset())
