"""The bids that a page gets beside the winner of an imp."""

from __future__ import annotations

from typing import Any

import msgspec

from rtb.adapters.lean_http import LeanHttp
from rtb.domain.campaign import FrequencyCap
from rtb.domain.intake import RemoteBid
from rtb.domain.prebid import read
from rtb.domain.tracking import Keys, Signer, Ticket
from rtb.openrtb import Bid as WireBid
from rtb.openrtb import decode_request, encode
from rtb.services.answers_prebid import prebid_response
from rtb.services.exchange import Rules
from rtb.services.further_bids import FurtherBids, Offered
from rtb.services.links import Links
from rtb.services.notice_sender import NoticeSender
from rtb.services.notices import Notices
from tests.support.http_server import HttpServer
from tests.unit.parts import Build, Pauper, Prompt, World, campaign, offer

RULES = Rules(tie_key=b"test")
SIGNER = Signer(Keys({1: b"k" * 16}, 1), b"i" * 16)


async def bids(
    world: World, multibid: list[dict[str, Any]], tell: Offered | None = None, links: Links | None = None, **fields: Any
) -> list[dict[str, Any]]:
    """The bids of the response for a banner whose page takes these, in their order; each with its seat."""
    imp = {"id": "1", "banner": {"w": 300, "h": 250}, **fields.pop("imp", {})}
    said = {"multibid": multibid, "targeting": {}}
    request = decode_request(msgspec.json.encode({"id": "r", "imp": [imp], "ext": {"prebid": said}, **fields}))
    asked = read(request, [bidder.name for bidder in world.exchange.bidders], "rtb")
    assert asked is not None
    auction = world.exchange.begin(request, world.clock.monotonic_ns(), offered=asked.offers)
    outcome = auction.outcome or await world.exchange.finish(auction)
    further = FurtherBids(world.exchange, RULES, tell).of(asked, auction, outcome)
    answer = encode(prebid_response(asked, auction, outcome, world.rates, links, further))
    return [{"seat": s["seat"], **bid} for s in msgspec.json.decode(answer).get("seatbid", ()) for bid in s["bid"]]


def wins(world: World) -> list[Ticket]:
    """The tickets that the house gives from now on."""
    found: list[Ticket] = []
    world.house.on_win = found.append
    return found


def house(maxbids: int = 9, prefix: str = "h") -> list[dict[str, Any]]:
    """So many bids of the house."""
    return [{"bidder": "House", "maxbids": maxbids, "targetbiddercodeprefix": prefix}]


async def test_each_is_offered_at_what_it_would_pay_without_those_before(build: Build) -> None:
    """3.00, 2.50 and 2.00 at second price plus 0.01: 2.51, 2.01, and alone 0.01; the others get keys of their own."""
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.5), campaign("c", 2.0)])
    found = await bids(world, house())
    assert [(bid["cid"], bid["price"]) for bid in found] == [("a", 2.51), ("b", 2.01), ("c", 0.01)]
    told = [bid["ext"]["prebid"] for bid in found]
    assert [each["targetbiddercode"] for each in told] == ["house", "h2", "h3"]
    assert [each["targeting"].get("hb_pb") for each in told] == ["2.50", None, None]
    assert told[1]["targeting"] == {"hb_pb_h2": "2.00", "hb_bidder_h2": "h2", "hb_size_h2": "300x250"}
    assert len({bid["id"] for bid in found}) == 3


async def test_no_more_than_the_page_takes(build: Build) -> None:
    """Two; of a code without an entry the winner at most; without a prefix a further bid that the ad server does not
    hear of."""
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.5), campaign("c", 2.0)])
    assert [bid["cid"] for bid in await bids(world, house(2))] == ["a", "b"]
    assert [bid["cid"] for bid in await bids(world, [{"bidder": "acme", "maxbids": 2}])] == ["a"]
    plain = [bid["ext"]["prebid"] for bid in await bids(world, [{"bidders": ["house"], "maxbids": 2}])]
    assert [("targeting" in each, each.get("targetbiddercode")) for each in plain] == [(True, "house"), (False, None)]


async def test_those_of_every_code_that_the_page_names(build: Build) -> None:
    """The exchange as a whole, or one bidder alone, the winner's or not; a floor holds for all, and a code that is not
    named has the winner at most."""
    codes: dict[str, Any] = {"ext": {"prebid": {"bidder": {"rtb": {}}}}}
    rival = remote("acme", 2.8, 0.4)
    world = build(rival, campaigns=[campaign("a", 3.0), campaign("b", 2.5)])
    of_all = await bids(world, [{"bidder": "rtb", "maxbids": 9}], imp={**codes, "bidfloor": 0.5}, at=1)
    assert [(bid["seat"], bid["price"]) for bid in of_all] == [("rtb", 3.0), ("rtb", 2.8), ("rtb", 2.5)]
    of_house = await bids(world, [*house(), {"bidder": "acme", "maxbids": 9}], at=1)
    assert [(bid["seat"], bid["price"]) for bid in of_house] == [
        ("house", 3.0),
        ("house", 2.5),
        ("acme", 2.8),
        ("acme", 0.4),
    ]
    of_acme = await bids(world, [{"bidder": "acme", "maxbids": 1}], at=1)
    assert [(bid["seat"], bid["price"]) for bid in of_acme] == [("house", 3.0), ("acme", 2.8)]


async def test_the_first_of_another_code_is_no_winner(build: Build) -> None:
    """Its key-values stand under its own code alone, those of its second under the prefix; at second price each pays
    what the next one asks: 2.81, 2.51 and, alone, 0.01."""
    world = build(remote("acme", 2.8, 0.4), campaigns=[campaign("a", 3.0), campaign("b", 2.5)])
    entry = {"bidder": "acme", "maxbids": 2, "targetbiddercodeprefix": "ac"}
    found = await bids(world, [entry])
    assert [(bid["seat"], bid["price"]) for bid in found] == [("house", 2.81), ("acme", 2.51), ("acme", 0.01)]
    told = [bid["ext"]["prebid"] for bid in found]
    assert [sorted(key for key in each["targeting"] if key.startswith("hb_pb")) for each in told] == [
        ["hb_pb", "hb_pb_house"],
        ["hb_pb_acme"],
        ["hb_pb_ac2"],
    ]
    assert [each.get("targetbiddercode") for each in told] == [None, "acme", "ac2"]


async def test_each_holds_its_price_and_has_a_ticket_of_its_own(build: Build) -> None:
    """So that whichever is shown is billed, once. A rehearsal holds nothing."""
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.5), campaign("c", 2.0)], signer=SIGNER)
    await world.repository.start()
    links = Links(SIGNER, world.clock, instance="i")
    links.listen("https://t.test")
    tickets = wins(world)
    found = await bids(world, house(), links=links, at=1)
    assert [bid["cid"] for bid in found] == ["a", "b", "c"]
    assert [(ticket.campaign_id, ticket.impid, ticket.price_nanos) for ticket in tickets] == [
        ("a", "1", 3_000_000),
        ("b", "1", 2_500_000),
        ("c", "1", 2_000_000),
    ]
    name = tickets[0].auction_id
    assert [ticket.auction_id for ticket in tickets] == [name, f"{name}.2", f"{name}.3"]
    assert all(links.token(ticket) in bid["burl"] for ticket, bid in zip(tickets, found, strict=True))
    assert [len(await bids(world, house(), at=1, test=1)), len(tickets)] == [3, 3]


async def test_who_cannot_pay_is_passed_over(build: Build) -> None:
    """The next takes its place."""
    pauper = Pauper("pauper", offer("pauper", 2.5))
    world = build(pauper, campaigns=[campaign("a", 3.0), campaign("c", 2.0)])
    codes: dict[str, Any] = {"ext": {"prebid": {"bidder": {"rtb": {}}}}}
    found = await bids(world, [{"bidder": "rtb", "maxbids": 2, "targetbiddercodeprefix": "x"}], imp=codes, at=1)
    assert [bid["cid"] for bid in found] == ["a", "c"]
    assert found[1]["ext"]["prebid"]["targetbiddercode"] == "x2"


async def test_a_further_bid_of_a_remote_bidder_is_sold_when_the_page_says_so(build: Build) -> None:
    """Its lurl is not fired at the auction; its nurl when ours is called, its burl when it is billed."""
    async with HttpServer() as server:
        http = LeanHttp(allow=["127.0.0.1"])
        world = build(remote("acme", 3.0, 2.0, 1.0, notices=server), campaigns=[campaign("a", 0.5)])
        notices = Notices(NoticeSender(http, world.clock, timeout_s=5.0), world.clock, world.rates)
        world.exchange.listen(notices.auction_closed)
        offered: list[str] = []

        def tell(auction: Any, outcome: Any) -> None:
            offered.append(outcome.auction_id)
            notices.auction_closed(auction, outcome)

        found = await bids(world, [{"bidder": "acme", "maxbids": 2}], tell, at=1)
        await notices.quiet()
        assert [bid["price"] for bid in found] == [3.0, 2.0]
        assert sorted(server.targets) == ["/0/nurl?3.00", "/2/lurl?"]
        [name] = offered
        assert notices.won(name, "1")
        assert notices.billed(name, "1")
        await notices.quiet()
        assert sorted(server.targets[2:]) == ["/1/burl?2.00", "/1/nurl?2.00"]
        assert world.metrics.wins == 1
        await notices.stop(0)
        await http.close()


async def test_a_frequency_cap_counts_what_is_offered(build: Build) -> None:
    """As it counts a win: the second page in the hour gets the other campaign alone."""
    capped = campaign("b", 2.5, frequency_cap=FrequencyCap(1, 3_600))
    world = build(campaigns=[campaign("a", 3.0), capped])
    await world.repository.start()
    user: dict[str, Any] = {"user": {"id": "u"}}
    assert [[bid["cid"] for bid in await bids(world, house(), **user)] for _ in range(2)] == [["a", "b"], ["a"]]


def remote(name: str, *prices: float, notices: HttpServer | None = None) -> Prompt:
    """Bids these prices on imp 1, each with its own notices."""
    made = []
    for n, price in enumerate(prices):
        urls: dict[str, Any] = {}
        if notices is not None:
            urls = {url: notices.url(f"/{n}/{url}?${{AUCTION_PRICE}}") for url in ("nurl", "burl", "lurl")}
        wire = WireBid(id=f"{name}-{n}", impid="1", price=price, adm="<b>ad</b>", **urls)
        made.append(
            RemoteBid(impid="1", seat=name, bidder=name, price_micros=round(price * 1e6), content=wire, currency="USD")
        )
    return Prompt(name, *made)
