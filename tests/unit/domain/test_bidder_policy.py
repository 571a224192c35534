"""Which auctions a remote bidder takes part in, and how many a second."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.bidder_policy import BidderSettings, Participation, Skip, TokenBucket
from rtb.domain.money import Rates
from rtb.openrtb import App, Banner, BidRequest, Device, Format, Geo, Imp, Native, Site, User, Video

S = 1_000_000_000


def participation(**settings: Any) -> Participation:
    """Of a bidder with these settings, at an exchange that knows dollars and euros."""
    return Participation(BidderSettings(name="dsp", url="https://dsp.test/", **settings), Rates("USD", {"EUR": 1.1}))


def test_an_unknown_setting_is_an_error() -> None:
    """As is a value that is none of those there are."""
    good = {"name": "dsp", "url": "https://dsp.test/", "breaker": {"calls": 5}}
    assert msgspec.convert(good, BidderSettings).breaker.calls == 5
    for wrong in (
        {"tmx": 1},
        {"version": "2.4"},
        {"media": ["text"]},
        {"sizes": ["300"]},
        {"qps": -1},
        {"name": "A b"},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(good | wrong, BidderSettings)


BANNER = Imp(id="1", banner=Banner(format=[Format(w=300, h=250), Format(w=728, h=90)]))
SMALL = Imp(id="2", banner=Banner(w=320, h=50))
ANY = Imp(id="3", banner=Banner())
VIDEO = Imp(id="4", video=Video(mimes=["video/mp4"], w=640, h=360))
NATIVE = Imp(id="5", native=Native(request="{}"))
BOTH = Imp(id="6", banner=Banner(w=300, h=250), video=Video(mimes=["video/mp4"]))
IMPS = [BANNER, SMALL, ANY, VIDEO, NATIVE, BOTH]


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, None),
        ({"media": ["banner", "video", "audio", "native"]}, None),
        ({"media": ["banner"]}, (0, 1, 2, 5)),
        ({"media": ["video"]}, (3, 5)),
        ({"media": ["audio"]}, ()),
        ({"sizes": ["728x90"]}, (0, 2, 4, 5)),  # any size of the banner, no size at all, native, the video's
        ({"media": ["banner"], "sizes": ["320x50"]}, (1, 2)),
        ({"media": ["video"], "sizes": ["640x360"]}, (3, 5)),
    ],
)
def test_imps_are_chosen_by_media_and_size(settings: dict[str, Any], places: tuple[int, ...] | None) -> None:
    """None means all of them; what gives no size fits any."""
    assert participation(**settings).imps(BidRequest(id="r", imp=IMPS)) == places


IN_KOREA = Device(geo=Geo(country="KOR"))


@pytest.mark.parametrize(
    ("settings", "request_", "skip"),
    [
        ({"countries": ["KOR"]}, {"device": IN_KOREA}, None),
        ({"countries": ["KOR"]}, {"user": User(geo=Geo(country="KOR"))}, None),
        ({"countries": ["USA"]}, {"device": IN_KOREA}, Skip.COUNTRY),
        ({"countries": ["USA"]}, {}, Skip.COUNTRY),
        ({"countries_excluded": ["KOR"]}, {"device": IN_KOREA}, Skip.COUNTRY),
        ({"countries_excluded": ["KOR"]}, {}, None),
        ({"sites": ["News.test"]}, {"site": Site(domain="www.news.test")}, None),
        ({"sites": ["news.test"]}, {"site": Site(domain="oldnews.test")}, Skip.SITE),
        ({"sites": ["com.game"]}, {"app": App(bundle="com.game")}, None),
        ({"sites": ["news.test"]}, {}, Skip.SITE),
        ({"sites_excluded": ["news.test"]}, {"site": Site(domain="m.news.test")}, Skip.SITE),
        ({"sites_excluded": ["com.game"]}, {"app": App(bundle="com.game", domain="game.test")}, Skip.SITE),
        ({"sites_excluded": ["news.test"]}, {}, None),
        ({"seats": ["a", "b"]}, {"wseat": ["b", "c"]}, None),
        ({"seats": ["a"]}, {"wseat": ["b"]}, Skip.SEAT),
        ({"seats": ["a", "b"]}, {"bseat": ["a"]}, None),
        ({"seats": ["a"]}, {"bseat": ["a"]}, Skip.SEAT),
        ({"seats": ["a", "b"]}, {"wseat": ["a"], "bseat": ["a"]}, Skip.SEAT),
        ({}, {"wseat": ["b"]}, None),  # its seats are not known
    ],
)
def test_what_a_bidder_is_not_for_it_is_not_asked(
    settings: dict[str, Any], request_: dict[str, Any], skip: Skip | None
) -> None:
    """By country, site or app, and seats [OpenRTB 2.6 3.2.1]."""
    assert participation(**settings).objection(BidRequest(id="r", imp=[BANNER], **request_)) is skip


@pytest.mark.parametrize(
    ("currencies", "cur", "sent"),
    [
        (["EUR"], ["EUR", "GBP"], ("EUR",)),
        (["EUR", "USD"], ["EUR"], ("EUR", "USD")),  # the exchange's own it can always convert from
        (["EUR"], None, ()),  # 3.2.1 has no default; without cur we take dollars
        (["GBP"], ["GBP"], ()),  # no rate
        (["USD"], None, ("USD",)),
    ],
)
def test_currencies_are_those_that_bidder_request_and_exchange_share(
    currencies: list[str], cur: list[str] | None, sent: tuple[str, ...]
) -> None:
    """Without one in common the bidder is not asked."""
    request = BidRequest(id="r", imp=[BANNER], cur=cur)
    part = participation(currencies=currencies)
    assert part.sent_currencies(request) == sent
    assert part.objection(request) is (None if sent else Skip.CURRENCY)


@given(rate=st.floats(0.5, 5_000), gaps=st.lists(st.integers(0, S), max_size=300))
def test_a_bucket_never_gives_more_than_its_rate(rate: float, gaps: list[int]) -> None:
    """In any stretch of time: what the rate allows in it, and one burst."""
    bucket = TokenBucket(rate)
    burst = max(rate / 10, 1)
    now_ns, taken = 0, []
    for gap in gaps:
        now_ns += gap
        if bucket.takes(now_ns):
            taken.append(now_ns)
    for n, first_ns in enumerate(taken):
        for m in range(n, len(taken)):
            assert m - n + 1 <= burst + (taken[m] - first_ns) / S * rate + 1.001


def test_a_bucket_gives_its_rate() -> None:
    """Asked a thousand times a second for 10 s, one of 100 a second gives 1,000 and its burst."""
    bucket = TokenBucket(100)
    assert sum(bucket.takes(n * S // 1_000) for n in range(10_000)) == pytest.approx(1_010, abs=2)
