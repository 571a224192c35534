"""Outcomes as answers: OpenRTB and the house format."""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec
import pytest
from msgspec.structs import replace

from rtb.domain.books import Books
from rtb.domain.budget import Timing
from rtb.domain.campaign import Creative, Media, Pricing
from rtb.domain.intake import RemoteBid
from rtb.domain.money import Rates
from rtb.domain.tracking import Keys, Signer, Ticket
from rtb.messages import HouseResponse, HouseStatus
from rtb.openrtb import Banner, BidResponse, Deal, Imp, NoBid, Pmp, Qty, Video, encode
from rtb.openrtb import Bid as WireBid
from rtb.services.answers import bid_response, encoded, house_response
from rtb.services.budgets import Budgets
from rtb.services.exchange import Outcome, Rules, Status
from rtb.services.links import Links
from tests.unit.parts import Build, Prompt, World, bid_request, campaign, imp, offer

USD = Rates()
REQUEST = bid_request()


@pytest.mark.parametrize(
    ("status", "nbr"),
    [(Status.NO_BID, NoBid.KNOWN_CRAWLER), (Status.TIMEOUT, NoBid.ALL_LATE), (Status.SHED, NoBid.SHED)],
)
def test_without_a_win_there_is_a_reason_and_no_seatbid(status: Status, nbr: NoBid) -> None:
    """Only the request's id and nbr."""
    outcome = Outcome("x", status, nbr, (), "USD")
    assert bid_response(REQUEST, outcome, USD) == BidResponse(id="r", nbr=int(nbr))


async def test_a_house_campaign_s_bid(build: Build) -> None:
    """Everything a buyer must tell [4.2.3], at the clearing price; bidid is the exchange's auction id."""
    mine = campaign("a", 3.0, cat=("IAB1", "IAB2"), cattax=7)
    world = build(campaigns=[mine, campaign("b", 2.0)])
    outcome = await world.run(bid_request())
    answer = bid_response(REQUEST, outcome, USD)
    assert (answer.id, answer.bidid, answer.cur, answer.nbr) == ("r", outcome.auction_id, "USD", None)
    assert answer.seatbid is not None
    [seat] = answer.seatbid
    assert seat.bid is not None
    [bid] = seat.bid
    assert (seat.seat, bid.impid, bid.price, bid.cid, bid.crid) == ("a", "1", 2.01, "a", "a-ad")
    assert (bid.adomain, bid.cat, bid.cattax, bid.w, bid.h, bid.mtype) == (["a.test"], ["IAB1", "IAB2"], 7, 300, 250, 1)
    assert bid.id
    assert bid.adm == (
        '<a href="https://a.test/" target="_blank" rel="noopener">'
        '<img src="https://cdn.test/a.png" width="300" height="250" alt="" border="0"></a>'
    )


async def test_the_markup_follows_the_media(build: Build) -> None:
    """A video imp gets VAST and mtype 2 with the duration."""
    spot = Creative(id="spot", media=Media.VIDEO, dur=15, mime="video/mp4", image_url="https://v.test/1.mp4")
    world = build(campaigns=[campaign("a", creatives=(spot,))])
    outcome = await world.run(bid_request(Imp(id="1", video=Video(mimes=["video/mp4"]))))
    [seat] = bid_response(REQUEST, outcome, USD).seatbid or []
    [bid] = seat.bid or []
    assert (bid.mtype, bid.dur, bid.w) == (2, 15, None)
    assert bid.adm is not None
    assert bid.adm.startswith('<VAST version="4.2"')
    assert "<Duration>00:00:15</Duration>" in bid.adm


async def test_bids_are_grouped_by_seat(build: Build) -> None:
    """One seatbid a seat, with its bids in the order of the imps; ids are unique within the response."""
    dsp = Prompt("dsp", offer("dsp", 9.0, "2"))
    world = build(dsp, campaigns=[campaign("a", 3.0)])
    outcome = await world.run(bid_request(imp("1"), imp("2"), imp("3")))
    answer = bid_response(REQUEST, outcome, USD)
    assert [(seat.seat, [bid.impid for bid in seat.bid or ()]) for seat in answer.seatbid or ()] == [
        ("a", ["1", "3"]),
        ("dsp", ["2"]),
    ]
    ids = [bid.id for seat in answer.seatbid or () for bid in seat.bid or ()]
    assert len(set(ids)) == 3


async def test_an_unsold_imp_is_left_out(build: Build) -> None:
    """The others are answered."""
    world = build(campaigns=[campaign("a", 3.0)])
    outcome = await world.run(bid_request(imp("1", bidfloor=9.0), imp("2")))
    assert [b.impid for seat in bid_response(REQUEST, outcome, USD).seatbid or () for b in seat.bid or ()] == ["2"]


async def test_another_bidder_s_bid_is_passed_on(build: Build) -> None:
    """All that it says, ext included, but the price is the clearing price and its notices stay with the exchange."""
    wire = WireBid(
        id="7",
        impid="1",
        price=5.0,
        adm="<b>ad</b>",
        adomain=["dsp.test"],
        crid="c",
        cid="k",
        iurl="https://i.test",
        apis=[5],
        protocol=3,
        language="en",
        exp=60,
        attr=[1],
        ext={"skadn": {"version": "4.0"}},
        nurl="https://n.test",
        burl="https://b.test",
        lurl="https://l.test",
    )
    world = build(Prompt("dsp", offer("dsp", 5.0, content=wire)), campaigns=[campaign("a", 3.0)])
    [seat] = bid_response(REQUEST, await world.run(bid_request()), USD).seatbid or []
    assert seat.bid == [
        WireBid(
            id="7",
            impid="1",
            price=3.01,
            adm="<b>ad</b>",
            adomain=["dsp.test"],
            crid="c",
            cid="k",
            iurl="https://i.test",
            apis=[5],
            protocol=3,
            language="en",
            exp=60,
            attr=[1],
            ext={"skadn": {"version": "4.0"}},
        )
    ]
    assert wire.price == 5.0


async def test_the_price_is_in_the_request_s_currency(build: Build) -> None:
    """2.01 USD at 1.25 USD a euro is 1.608 EUR; at 1,250 won a dollar it is 2,512.5 KRW."""
    rates = {"EUR": 1.25, "KRW": 0.0008}
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0)], rates=rates)
    for code, price in (("EUR", 1.608), ("KRW", 2_512.5)):
        answer = bid_response(REQUEST, await world.run(bid_request(cur=[code])), world.rates)
        assert (answer.cur, [bid.price for seat in answer.seatbid or () for bid in seat.bid or ()]) == (code, [price])


async def test_a_price_never_undercuts_the_floor_it_met(build: Build) -> None:
    """A floor of 1.00 EUR at an awkward rate comes back as at least 1.00 EUR."""
    world = build(campaigns=[campaign("a", 3.0)], rates={"EUR": 1.0870123})
    outcome = await world.run(bid_request(imp(bidfloor=1.0, bidfloorcur="EUR"), cur=["EUR"]))
    [seat] = bid_response(REQUEST, outcome, world.rates).seatbid or []
    assert seat.bid is not None
    assert seat.bid[0].price is not None
    assert 1.0 <= seat.bid[0].price < 1.000002


async def test_the_house_answer_of_a_campaign(build: Build) -> None:
    """Campaign, ad, both prices as CPM, picture and landing page."""
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0)])
    assert house_response("r", await world.run(bid_request()), USD) == HouseResponse(
        request_id="r",
        status=HouseStatus.SUCCESS,
        campaign_id="a",
        ad_id="a-ad",
        bid_price=3.0,
        clearing_price=2.01,
        creative_url="https://cdn.test/a.png",
        landing_page="https://a.test/",
    )


async def test_the_house_answer_of_another_bidder(build: Build) -> None:
    """What its bid says of the same; it has no landing page of its own."""
    wire = WireBid(id="7", impid="1", price=5.0, adm="x", cid="k", adid="ad", iurl="https://i.test")
    world = build(Prompt("dsp", offer("dsp", 5.0, content=wire)))
    assert house_response("r", await world.run(bid_request()), USD) == HouseResponse(
        request_id="r",
        status=HouseStatus.SUCCESS,
        campaign_id="k",
        ad_id="ad",
        bid_price=5.0,
        clearing_price=0.01,
        creative_url="https://i.test",
    )


@pytest.mark.parametrize(
    ("status", "nbr", "house"),
    [
        (Status.NO_BID, NoBid.NO_ELIGIBLE_DEMAND, HouseStatus.NO_BID),
        (Status.SHED, NoBid.SHED, HouseStatus.NO_BID),
        (Status.TIMEOUT, NoBid.ALL_LATE, HouseStatus.TIMEOUT),
    ],
)
def test_the_house_answer_without_a_win(status: Status, nbr: NoBid, house: HouseStatus) -> None:
    """A timeout is told apart; a shed request is a no-bid."""
    assert house_response("r", Outcome("x", status, nbr, (), "USD"), USD) == HouseResponse("r", house)


async def test_a_banner_of_any_size_is_answered_with_the_creative_s(build: Build) -> None:
    """w and h are the creative's, absent where it has none."""
    anysize = Creative(id="any", image_url="https://cdn.test/x.png")
    world = build(campaigns=[campaign("a", creatives=(anysize,))])
    [seat] = bid_response(REQUEST, await world.run(bid_request(Imp(id="1", banner=Banner()))), USD).seatbid or []
    assert seat.bid is not None
    assert (seat.bid[0].w, seat.bid[0].h) == (None, None)


@pytest.mark.parametrize("currency", ["USD", "KRW"])
@pytest.mark.parametrize(
    "imps",
    [
        [imp("1")],
        [imp('a "quoted" \u00e9')],
        [imp("1", pmp=Pmp(deals=[Deal(id="d", bidfloor=1.0)]))],
        [imp("1"), imp("2")],
        [imp("1", bidfloor=9.0)],
    ],
)
async def test_the_encoded_answer_is_the_response_encoded(build: Build, imps: list[Imp], currency: str) -> None:
    """Byte for byte, for house bids and others, the first time and when a bid wins again, in any currency."""
    rates = Rates("USD", {"KRW": 0.0007})
    mine = campaign("a", 3.0, cat=("IAB1",), deals=("d",), advertiser='"a"')
    theirs = Prompt("dsp", offer("dsp", 5.0, content=WireBid(id="7", impid="1", price=5.0, adm="x")))
    for world in (build(campaigns=[mine, campaign("b", 2.0)]), build(theirs, campaigns=[mine])):
        for _ in range(3):
            outcome = await world.run(bid_request(*imps))
            outcome.currency = currency
            for request_id in ("r", 'of "me"\n'):
                request = replace(REQUEST, id=request_id)
                assert encoded(request, outcome, rates) == encode(bid_response(request, outcome, rates))


SIGNER = Signer(Keys({1: b"k" * 16}, 1), b"i" * 16)
BASE = "https://track.test"
URL = re.compile(re.escape(BASE) + r"/t/([ibwlc])/([A-Za-z0-9_-]+)([^\"'\\\]< ]*)")


def links_of(world: World) -> Links:
    """Links of a tracker that listens."""
    links = Links(SIGNER, world.clock, instance="i")
    links.listen(BASE + "/")
    return links


async def test_a_tracked_bid_carries_the_ticket_of_its_win(build: Build) -> None:
    """Every URL has the one token, which says who won, at what price, and until when an impression is in time."""
    world = build(campaigns=[campaign("a", 3.0, daily_budget=1.0), campaign("b", 2.0)], signer=SIGNER)
    tickets: list[Ticket] = []
    world.house.on_win = tickets.append
    answer = bid_response(REQUEST, await world.run(bid_request(user="u")), USD, links_of(world))
    [seat] = answer.seatbid or []
    [bid] = seat.bid or []
    [ticket] = tickets
    assert (bid.nurl or "").endswith("?price=${AUCTION_PRICE}")
    assert (bid.lurl or "").endswith("?reason=${AUCTION_LOSS}")
    found = URL.findall(f"{bid.nurl} {bid.burl} {bid.lurl} {bid.adm}")
    assert [kind for kind, _, _ in found] == ["w", "b", "l", "c", "i"]
    assert {SIGNER.read(token) for _, token, _ in found} == {ticket}
    assert unquote(found[3][2]) == "?u=https://a.test/"
    assert ticket == Ticket(
        auction_id=answer.bidid or "",
        impid="1",
        campaign_id="a",
        creative_id="a-ad",
        day="2026-01-01",
        instance="local",
        pricing=Pricing.CPM,
        price_nanos=2_010_000,
        held_nanos=2_010_000,
        won_at=1_767_225_600.0,
        expires_at=ticket.expires_at,
        user=SIGNER.user_digest("u"),
        destination=SIGNER.destination("https://a.test/"),
    )


@pytest.mark.parametrize(("pricing", "cost"), [(Pricing.CPC, 500_000_000), (Pricing.CPA, 500_000_000)])
async def test_what_a_click_or_a_conversion_costs(build: Build, pricing: Pricing, cost: int) -> None:
    """The bid, 0.50; what is held is the clearing price of the impression, 0.01 CPM for the only bid."""
    world = build(campaigns=[campaign("a", 0.5, pricing=pricing, pctr=0.01, pcvr=0.1)], signer=SIGNER)
    tickets: list[Ticket] = []
    world.house.on_win = tickets.append
    await world.run(bid_request())
    assert [(t.pricing, t.price_nanos, t.held_nanos) for t in tickets] == [(pricing, cost, 10_000)]


@pytest.mark.parametrize("pricing", list(Pricing))
async def test_nothing_is_left_to_pay_where_wins_are_billed(build: Build, pricing: Pricing) -> None:
    """The clearing price is held for the win itself, 0.01 CPM for the only bid, and the tracking URLs cost nothing."""
    world = build(campaigns=[campaign("a", 0.5, pricing=pricing, pctr=0.01, pcvr=0.1)], bills_wins=True)
    tickets: list[Ticket] = []
    world.house.on_win = tickets.append
    await world.run(bid_request())
    assert [(t.pricing, t.price_nanos, t.held_nanos) for t in tickets] == [(pricing, 0, 10_000)]


async def test_how_long_an_impression_is_in_time(build: Build) -> None:
    """A banner on the web for 60 s, and the bid says so in `exp`; imp.exp shortens it, for ticket and bid alike."""
    world = build(campaigns=[campaign("a", 3.0, daily_budget=1.0)], signer=SIGNER)
    near = Books(Timing(window_ms=1_800_000), lambda: int(world.clock.time() * 1_000))
    world.house.budgets = Budgets(world.clock, near=near, timing=near.timing)
    world.house.load([campaign("a", 3.0, daily_budget=1.0)])
    tickets: list[Ticket] = []
    world.house.on_win = tickets.append
    for fields, seconds in (({}, 60), ({"exp": 20}, 20)):
        outcome = await world.run(bid_request(imp(**fields)))
        [seat] = bid_response(REQUEST, outcome, USD, links_of(world)).seatbid or []
        assert [bid.exp for bid in seat.bid or ()] == [seconds]
        assert tickets[-1].expires_at - tickets[-1].won_at == pytest.approx(seconds, abs=0.01)


async def test_without_a_tracker_nothing_is_tracked(build: Build) -> None:
    """Links that do not listen (any more) leave no trace, also where answers were made with them before."""
    world = build(campaigns=[campaign("a", 3.0)], signer=SIGNER)
    outcome = await world.run(bid_request())
    links = links_of(world)
    plain = encoded(REQUEST, outcome, USD)
    assert BASE.encode() in encoded(REQUEST, outcome, USD, links)
    links.listen("")
    assert encoded(REQUEST, outcome, USD, links) == plain
    assert BASE.encode() not in plain


async def test_a_rehearsal_sells_nothing(build: Build) -> None:
    """No ticket, no URLs."""
    world = build(campaigns=[campaign("a", 3.0)], signer=SIGNER)
    outcome = await world.run(bid_request(test=1))
    assert encoded(REQUEST, outcome, USD, links_of(world)) == encoded(REQUEST, outcome, USD)


@pytest.mark.parametrize("imps", [[imp("1")], [imp('a "quoted" \u00e9')], [imp("1"), imp("2", bidfloor=9.0), imp("3")]])
async def test_the_encoded_tracked_answer_is_the_response_encoded(build: Build, imps: list[Imp]) -> None:
    """Byte for byte, with a token of its own for each imp."""
    world = build(campaigns=[campaign("a", 3.0, cat=("IAB1",)), campaign("b")], signer=SIGNER)
    links = links_of(world)
    for _ in range(3):
        outcome = await world.run(bid_request(*imps))
        body = encoded(REQUEST, outcome, USD, links)
        assert body == encode(bid_response(REQUEST, outcome, USD, links))
        tokens = {token for _, token, _ in URL.findall(body.decode())}
        assert {SIGNER.read(token).impid for token in tokens} == {one.id for one in imps if not one.bidfloor}


async def test_notices_on_another_bidder_s_bid(build: Build) -> None:
    """nurl, burl and lurl are ours, with a ticket of no campaign; it is refused as an impression of the house."""
    wire = WireBid(id="7", impid="1", price=5.0, adm="<b>ad</b>", nurl="https://n.test", burl="https://b.test")
    world = build(Prompt("dsp", offer("dsp", 5.0, content=wire)), signer=SIGNER)
    answer = bid_response(REQUEST, await world.run(bid_request()), USD, links_of(world))
    [seat] = answer.seatbid or []
    [bid] = seat.bid or []
    found = URL.findall(f"{bid.nurl} {bid.burl} {bid.lurl}")
    assert [kind for kind, _, _ in found] == ["w", "b", "l"]
    tickets = {SIGNER.read(token) for _, token, _ in found}
    assert [(t.auction_id, t.impid, t.campaign_id) for t in tickets] == [(answer.bidid, "1", "")]
    assert bid.adm == "<b>ad</b>"


@pytest.mark.parametrize(("test", "price", "multiplier"), [(0, "0.02", "2.5"), (1, "AUDIT", "AUDIT")])
async def test_macros_in_another_bidder_s_markup(build: Build, test: int, price: str, multiplier: str) -> None:
    """They are replaced, with AUDIT where the auction is a test; 0.01 CPM is the price of the only bid."""
    adm = "<img src='https://d.test/?p=${AUCTION_PRICE}&m=${AUCTION_MULTIPLIER}&i=${AUCTION_IMP_ID}'>"
    wire = WireBid(id="7", impid="1", price=5.0, adm=adm)
    bid = RemoteBid(impid="1", seat="dsp", price_micros=5_000_000, bidder="dsp", content=wire, currency="USD")
    world = build(Prompt("dsp", bid), rules=Rules(tie_key=b"t", increment_micros=20_000))
    request = bid_request(imp(qty=Qty(multiplier=2.5)), test=test)
    for body in (
        bid_response(request, await world.run(request), USD).seatbid or [],
        msgspec.json.decode(encoded(request, await world.run(request), USD), type=BidResponse).seatbid or [],
    ):
        assert body[0].bid is not None
        assert body[0].bid[0].adm == f"<img src='https://d.test/?p={price}&m={multiplier}&i=1'>"
