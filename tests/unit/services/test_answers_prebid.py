"""Outcomes as a Prebid client reads them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtb.domain.auction import Lost
from rtb.domain.campaign import Creative, Media
from rtb.domain.intake import RemoteBid
from rtb.domain.prebid import read
from rtb.domain.tracking import Keys, Signer
from rtb.errors import BadRequest
from rtb.openrtb import Bid as WireBid
from rtb.openrtb import Loss, decode_request, encode
from rtb.services.answers_prebid import prebid_response
from rtb.services.exchange import Auction
from rtb.services.links import Links
from tests.unit.parts import Broken, Build, Prompt, Silent, World, campaign, offer

MS = 1_000_000
SIGNER = Signer(Keys({1: b"k" * 16}, 1), b"i" * 16)
VIDEO = {"video": {"mimes": ["video/mp4"]}}
BANNER = {"banner": {"w": 300, "h": 250}}


def asking(*imps: dict[str, Any], **said: Any) -> bytes:
    """A request with this ext.prebid; its imps have the ids 1, 2, ..."""
    numbered = [{"id": str(i), **imp} for i, imp in enumerate(imps or (BANNER,), 1)]
    return msgspec.json.encode({"id": "r", "imp": numbered, "ext": {"prebid": said}})


def begin(world: World, body: bytes) -> tuple[Any, Auction]:
    """What is asked, and the auction under way."""
    request = decode_request(body)
    asked = read(request, [bidder.name for bidder in world.exchange.bidders], "rtb")
    assert asked is not None
    return asked, world.exchange.begin(request, world.clock.monotonic_ns(), offered=asked.offers)


async def answer(world: World, body: bytes, links: Links | None = None) -> Any:
    """The response, decoded."""
    asked, auction = begin(world, body)
    outcome = auction.outcome or await world.exchange.finish(auction)
    return msgspec.json.decode(encode(prebid_response(asked, auction, outcome, world.rates, links)))


def remote(bidder: str, price: float, impid: str = "1", **fields: Any) -> RemoteBid:
    """A bid as it comes from another bidder, with an ext of its own."""
    wire = WireBid(
        id=f"{bidder}-{impid}", impid=impid, price=price, adm="<VAST/>", ext={"deep": [1]}, mtype=2, **fields
    )
    return RemoteBid(
        impid=impid, seat=f"{bidder}-seat", bidder=bidder, price_micros=round(price * 1e6), mtype=2, content=wire
    )


async def test_a_bid_tells_its_media_and_its_key_values(build: Build) -> None:
    """Of each media; the price in the buckets is the one that is paid: 2.01 and 4.00."""
    spot = Creative(id="spot", media=Media.VIDEO, dur=15, mime="video/mp4", image_url="https://v.test/1.mp4")
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0), campaign("c", 5.0, creatives=(spot,))])
    said = await answer(world, asking(BANNER, {**VIDEO, "bidfloor": 4.0}, targeting={"includebidderkeys": False}))
    [seat] = said["seatbid"]
    assert (seat["seat"], said["cur"]) == ("house", "USD")
    exts = [bid["ext"]["prebid"] for bid in seat["bid"]]
    assert exts == [
        {"type": "banner", "targeting": {"hb_pb": "2.00", "hb_bidder": "house", "hb_size": "300x250"}},
        {"type": "video", "targeting": {"hb_pb": "4.00", "hb_bidder": "house"}},
    ]
    assert [bid["price"] for bid in seat["bid"]] == [2.01, 4.0]


async def test_bids_stand_under_the_codes_of_the_page(build: Build) -> None:
    """Its bidder's name is in meta where it is another; what the bidder says in ext stays; passthrough comes back."""
    codes = {"prebid": {"bidder": {"Acme": {}, "rtb": {}}, "passthrough": {"x": 1}}}
    world = build(Prompt("acme", remote("acme", 9.0)), campaigns=[campaign("a", 3.0)])
    said = await answer(world, asking({**VIDEO, "ext": codes}, {**BANNER, "ext": codes}, passthrough=[7]))
    assert [(seat["seat"], [bid["impid"] for bid in seat["bid"]]) for seat in said["seatbid"]] == [
        ("Acme", ["1"]),
        ("rtb", ["2"]),
    ]
    [[first], [second]] = [seat["bid"] for seat in said["seatbid"]]
    assert first["ext"] == {
        "deep": [1],
        "prebid": {"type": "video", "meta": {"adaptercode": "acme"}, "passthrough": {"x": 1}},
    }
    assert second["ext"]["prebid"]["meta"] == {"adaptercode": "house"}
    assert said["ext"]["prebid"] == {"passthrough": [7]}


@pytest.mark.parametrize("for_page", [True, False])
async def test_where_the_win_is_told(build: Build, for_page: bool) -> None:
    """To a page in events, the price put in, and no nurl: beside a video's markup Prebid.js takes it for the video."""
    world = build(Prompt("acme", remote("acme", 9.5)), campaigns=[campaign("a", 3.0)])
    links = Links(SIGNER, world.clock, instance="i")
    links.listen("https://t.test")
    body = asking({**VIDEO, "bidfloor": 9.25}, **({"targeting": {}} if for_page else {"channel": {"name": "pbjs"}}))
    [seat] = (await answer(world, body, links))["seatbid"]
    [bid] = seat["bid"]
    assert bid["burl"].startswith("https://t.test/t/b/")
    if for_page:
        win = bid["ext"]["prebid"]["events"]["win"]
        assert (win.startswith("https://t.test/t/w/"), win.endswith("?price=9.25"), "nurl" in bid) == (
            True,
            True,
            False,
        )
    else:
        assert bid["nurl"].endswith("?price=${AUCTION_PRICE}")
        assert "events" not in bid["ext"]["prebid"]


async def test_times_errors_and_warnings(build: Build) -> None:
    """Who answered when, who was late or failed, what is ignored; the deadline in milliseconds."""
    quick, late = Silent("quick"), Silent("late")
    world = build(quick, late, Broken("broken"), campaigns=[campaign("a", 3.0)])
    codes = {"prebid": {"bidder": {"Quick": {}, "rtb": {}}}}
    asked, auction = begin(world, asking({**BANNER, "ext": codes}, cache={"bids": {}}, auctiontimestamp=1_700))
    world.clock.advance(0.02)
    auction.report(quick, [], answered_ns=world.clock.monotonic_ns())
    world.clock.advance(0.03)
    outcome = await world.exchange.finish(auction)
    said = msgspec.json.decode(encode(prebid_response(asked, auction, outcome, world.rates)))["ext"]
    assert said == {
        "responsetimemillis": {"Quick": 20, "rtb": 50},
        "errors": {
            "late": [{"code": 1, "message": "did not answer in time"}],
            "broken": [{"code": 3, "message": "could not be reached, or gave no valid answer"}],
        },
        "warnings": {
            "general": [
                {
                    "code": 10_999,
                    "message": "ext.prebid.cache: ignored, bids are not cached; the markup is in the response",
                }
            ]
        },
        "tmaxrequest": 100,
        "prebid": {"auctiontimestamp": 1_700},
    }


async def test_why_the_others_did_not_win(build: Build) -> None:
    """One status a bidder and imp, by the IAB's list; the bids that lost by price have ours."""

    class Choosy(Prompt):
        def bid(self, auction: Any) -> None:
            auction.report(self, skipped="no imp of its media and sizes")

    class Failing(Prompt):
        def bid(self, auction: Any) -> None:
            auction.report(self, failure="status-503: HTTP status 503 instead of 200 or 204")

    bidders = [
        Prompt("beaten", offer("beaten", 2.5, "1"), offer("beaten", 9.0, "2")),
        Prompt("low", offer("low", 0.5, "1")),
        Prompt(
            "odd", rejected=[Lost(offer("odd", 4.0, "1"), Loss.SIZE), Lost(offer("odd", 4.0, "1"), Loss.NOT_SECURE)]
        ),
        Prompt("quiet"),
        Choosy("choosy"),
        Failing("failing"),
    ]
    world = build(*bidders, campaigns=[campaign("a", 3.0), campaign("b", 2.0)])
    imps = ({**BANNER, "bidfloor": 1.0}, {**BANNER, "bidfloor": 8.0})
    said = await answer(world, asking(*imps, returnallbidstatus=True))
    found = {
        seat["seat"]: [(each["impid"], each["statuscode"]) for each in seat["nonbid"]]
        for seat in said["ext"]["seatnonbid"]
    }
    assert found == {
        "house": [("2", 0)],
        "beaten": [("1", 602)],
        "low": [("1", 301), ("2", 0)],
        "odd": [("1", 351), ("1", 352), ("2", 0)],
        "quiet": [("1", 0), ("2", 0)],
        "choosy": [("1", 202), ("2", 202)],
        "failing": [("1", 102), ("2", 102)],
    }
    assert "seatnonbid" not in (await answer(world, asking(*imps)))["ext"]


async def test_an_auction_that_was_not_held(build: Build) -> None:
    """A crawler: nobody was asked, for the reason that both lists of the IAB have as 3."""
    world = build(Prompt("quiet"), campaigns=[campaign("a", 3.0)])
    body = msgspec.json.decode(asking(returnallbidstatus=True))
    body["device"] = {"ua": "Googlebot/2.1 (+http://www.google.com/bot.html)"}
    said = await answer(world, msgspec.json.encode(body))
    assert said["nbr"] == 3
    assert [(seat["seat"], seat["nonbid"]) for seat in said["ext"]["seatnonbid"]] == [
        ("house", [{"impid": "1", "statuscode": 3}]),
        ("quiet", [{"impid": "1", "statuscode": 3}]),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CODES = st.dictionaries(st.sampled_from(["rtb", "house", "Acme", "x", "", "hb"]), JSON, max_size=3)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "targeting": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "pricegranularity": JSON | st.sampled_from(["low", "auto"]),
                "includewinners": st.booleans(),
                "includebidderkeys": st.booleans(),
                "includeformat": st.booleans(),
                "prefix": st.text(max_size=9),
            },
        ),
        "aliases": JSON | st.dictionaries(st.sampled_from(["rtb", "x"]), st.sampled_from(["house", "rtb", "y"])),
        "alternatebiddercodes": JSON | st.just({"enabled": True, "bidders": {"house": {"enabled": True}}}),
        "returnallbidstatus": st.booleans(),
        "auctiontimestamp": JSON,
        "passthrough": JSON,
        "events": JSON,
        "cache": JSON,
    },
)


@given(said=SAID, codes=CODES, passthrough=JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_asked_is_answered_or_refused(build: Build, said: Any, codes: Any, passthrough: Any) -> None:
    """A bid response that is JSON, or a BadRequest: nothing else comes of any ext.prebid."""
    world = build(campaigns=[campaign("a", 3.0)])
    imp = {**BANNER, "ext": {"prebid": {"bidder": codes, "passthrough": passthrough}}}
    try:
        asked, auction = begin(world, asking(imp, **said))
    except BadRequest:
        return
    assert auction.outcome is not None
    encoded = encode(prebid_response(asked, auction, auction.outcome, world.rates))
    answered = msgspec.json.decode(encoded)
    assert ("seatbid" in answered) != ("nbr" in answered)
