"""Win, billing and loss notices, against a web server that behaves as bidders' servers do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from rtb.adapters.lean_http import LeanHttp
from rtb.domain.auction import Lost
from rtb.domain.intake import RemoteBid
from rtb.openrtb import Bid, Loss, Qty, Source
from rtb.services.notice_sender import Kind, NoticeSender, Tally
from rtb.services.notices import Notices
from tests.support.http_server import HANG, HttpServer, Reply
from tests.unit.parts import Build, Pauper, Prompt, World, bid_request, campaign, imp

ALL = "?id=${AUCTION_ID}&p=${AUCTION_PRICE}&l=${AUCTION_LOSS}&m=${AUCTION_MIN_TO_WIN}"
UPSTREAM = Source(fd=1)
"""The SSP makes the final decision."""

Notify = Callable[..., Notices]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HttpServer]:
    """Where the bidders' notices go."""
    async with HttpServer() as running:
        yield running


@pytest_asyncio.fixture
async def notify() -> AsyncIterator[Notify]:
    """``notify(world)``: notices of that exchange; they may go to this machine."""
    http = LeanHttp(allow=["127.0.0.1"])
    made: list[Notices] = []

    def of(world: World, **options: Any) -> Notices:
        sender = NoticeSender(http, world.clock, timeout_s=options.pop("timeout_s", 60.0))
        notices = Notices(sender, world.clock, world.rates, **options)
        world.exchange.listen(notices.auction_closed)
        made.append(notices)
        return notices

    yield of
    for notices in made:
        await notices.stop(0)
    await http.close()


def bidder(
    name: str, price: float, server: HttpServer, impid: str = "1", kind: type[Prompt] = Prompt, **fields: Any
) -> Prompt:
    """Bids a price with all three notices; `fields` are the wire bid's."""
    urls = {f"{url}": server.url(f"/{name}/{url}{ALL}") for url in ("nurl", "burl", "lurl")}
    wire = Bid(id=name, impid=impid, price=price, adm="<b>ad</b>", **{**urls, **fields})
    bid = RemoteBid(
        impid=impid,
        seat=name,
        price_micros=round(price * 1e6),
        bidder=name,
        adomain=(f"{name}.test",),
        content=wire,
        currency="USD",
    )
    return kind(name, bid)


async def test_winner_and_losers_are_told_at_clearing(build: Build, server: HttpServer, notify: Notify) -> None:
    """Second price of 3.00, 2.00 and 1.00 is 2.01: nurl with price and 0, lurls with 102 and what would have won."""
    world = build(bidder("a", 3.0, server), bidder("b", 2.0, server), bidder("c", 1.0, server))
    notices = notify(world)
    await world.run(bid_request())
    await notices.quiet()
    assert sorted(server.targets) == [
        "/a/nurl?id=r&p=2.01&l=0&m=2.00",
        "/b/lurl?id=r&p=&l=102&m=2.01",
        "/c/lurl?id=r&p=&l=102&m=2.01",
    ]
    assert {request.method for request in server.requests} == {"GET"}
    assert notices.sender.tallies[Kind.WIN] == Tally(fired=1)
    assert notices.sender.tallies[Kind.LOSS] == Tally(fired=2)
    assert notices.sender.waiting == 0


async def test_a_bid_below_the_floor_learns_the_floor(build: Build, server: HttpServer, notify: Notify) -> None:
    """Loss 100; the floor would have won, for nobody else bid."""
    world = build(bidder("a", 1.0, server))
    notices = notify(world)
    await world.run(bid_request(imp(bidfloor=1.5)))
    await notices.quiet()
    assert server.targets == ["/a/lurl?id=r&p=&l=100&m=1.50"]


async def test_a_bid_that_was_not_admitted_learns_why(build: Build, server: HttpServer, notify: Notify) -> None:
    """Refused on intake (205) and withdrawn (1): no price, no minimum."""
    (blocked,) = bidder("a", 3.0, server).bids
    world = build(Prompt("a", rejected=[Lost(blocked, Loss.ADVERTISER_BLOCKED)]), bidder("b", 2.0, server, kind=Pauper))
    notices = notify(world)
    await world.run(bid_request())
    await notices.quiet()
    assert sorted(server.targets) == ["/a/lurl?id=r&p=&l=205&m=", "/b/lurl?id=r&p=&l=1&m="]


async def test_the_house_needs_no_notices(build: Build, server: HttpServer, notify: Notify) -> None:
    """A campaign of 5.00 wins here; only the bidder that it outbid (paying 2.01) is told."""
    world = build(bidder("a", 2.0, server), campaigns=[campaign("own", 5.0), campaign("other", 1.0)])
    notices = notify(world)
    await world.run(bid_request())
    await notices.quiet()
    assert server.targets == ["/a/lurl?id=r&p=&l=102&m=2.01"]
    assert notices.remembered == 0


async def test_each_imp_has_its_notices(build: Build, server: HttpServer, notify: Notify) -> None:
    """Sales are kept by auction and imp; the multiplier is the imp's."""
    world = build(
        bidder("a", 2.0, server, "1", nurl=server.url("/1?x=${AUCTION_IMP_ID}-${AUCTION_MULTIPLIER}")),
        bidder("b", 2.0, server, "2", nurl=server.url("/2?x=${AUCTION_IMP_ID}-${AUCTION_MULTIPLIER}")),
    )
    notices = notify(world)
    outcome = await world.run(bid_request(imp("1"), imp("2", qty=Qty(multiplier=14.2))))
    await notices.quiet()
    assert sorted(server.targets) == ["/1?x=1-", "/2?x=2-14.2"]
    assert notices.billed(outcome.auction_id, "2")
    await notices.quiet()
    assert server.targets[2].startswith("/b/burl")


async def test_nothing_is_billed_at_the_win(build: Build, server: HttpServer, notify: Notify) -> None:
    """The burl fires at the billing event: once, with the time of the impression and the device's headers (7.8)."""
    world = build(bidder("a", 2.0, server, nurl=None, burl=server.url("/b?p=${AUCTION_PRICE}&t=${AUCTION_IMP_TS}")))
    notices = notify(world)
    outcome = await world.run(bid_request())
    await notices.quiet()
    assert server.targets == []
    assert notices.billed(outcome.auction_id, "1", "2001:DB8::1", "Mozilla/5.0 (X)\r\nX-Admin: 1", 1_767_225_601.5)
    assert notices.billed(outcome.auction_id, "1", "10.1.1.1", "again")
    await notices.quiet()
    (request,) = server.requests
    assert request.target == "/b?p=0.01&t=1767225601500"
    assert request.headers["x-forwarded-for"] == "2001:db8::1"
    assert request.headers["x-device-user-agent"] == "Mozilla/5.0 (X) X-Admin: 1"
    assert "x-admin" not in request.headers
    assert notices.sender.tallies[Kind.BILLING] == Tally(fired=1)


async def test_what_no_address_is_is_not_passed_on(build: Build, server: HttpServer, notify: Notify) -> None:
    """Nor an empty user agent."""
    world = build(bidder("a", 2.0, server, nurl=None))
    notices = notify(world)
    outcome = await world.run(bid_request())
    assert notices.billed(outcome.auction_id, "1", "a house", " \n")
    await notices.quiet()
    assert not {"x-forwarded-for", "x-device-user-agent"} & set(server.requests[0].headers)


async def test_an_unknown_sale_is_not_billed(build: Build, server: HttpServer, notify: Notify) -> None:
    """Another daemon's, or one that never was."""
    world = build(bidder("a", 2.0, server))
    notices = notify(world)
    outcome = await world.run(bid_request())
    assert not notices.billed("nobody's", "1")
    assert not notices.billed(outcome.auction_id, "2")
    assert not notices.won("nobody's", "1")
    assert not notices.lost("nobody's", "1")


async def test_upstream_decides_when_it_says_so(build: Build, server: HttpServer, notify: Notify) -> None:
    """source.fd = 1: the winner is told when our nurl is called, once; losers of our own auction at once."""
    world = build(bidder("a", 3.0, server), bidder("b", 2.0, server))
    notices = notify(world)
    outcome = await world.run(bid_request(source=UPSTREAM))
    await notices.quiet()
    assert server.targets == ["/b/lurl?id=r&p=&l=102&m=2.01"]
    assert notices.won(outcome.auction_id, "1")
    assert notices.won(outcome.auction_id, "1")
    await notices.quiet()
    assert server.targets[1:] == ["/a/nurl?id=r&p=2.01&l=0&m=2.00"]


async def test_a_bid_that_lost_upstream_is_told_and_never_billed(
    build: Build, server: HttpServer, notify: Notify
) -> None:
    """Our lurl was called: the bidder's lurl fires with the loss code alone, once, and neither nurl nor burl can."""
    world = build(bidder("a", 3.0, server))
    notices = notify(world)
    outcome = await world.run(bid_request(source=UPSTREAM))
    assert notices.lost(outcome.auction_id, "1", 102)
    assert notices.lost(outcome.auction_id, "1", 102)
    notices.won(outcome.auction_id, "1")
    notices.billed(outcome.auction_id, "1")
    await notices.quiet()
    assert server.targets == ["/a/lurl?id=r&p=&l=102&m="]


async def test_who_won_upstream_cannot_lose_there(build: Build, server: HttpServer, notify: Notify) -> None:
    """Nor who won where the sale was ours to make; what comes first holds."""
    world = build(bidder("a", 3.0, server))
    notices = notify(world)
    for source in (UPSTREAM, None):
        outcome = await world.run(bid_request(source=source))
        notices.won(outcome.auction_id, "1")
        await notices.quiet()
        notices.lost(outcome.auction_id, "1")
    await notices.quiet()
    assert server.targets == ["/a/nurl?id=r&p=0.01&l=0&m=0.00"] * 2


async def test_a_test_is_audited_and_not_billed(build: Build, server: HttpServer, notify: Notify) -> None:
    """`test` = 1: notices fire with AUDIT for whatever tells of a sale, and there is no burl."""
    world = build(bidder("a", 3.0, server), bidder("b", 2.0, server))
    notices = notify(world)
    outcome = await world.run(bid_request(test=1))
    notices.billed(outcome.auction_id, "1")
    await notices.quiet()
    assert sorted(server.targets) == [
        "/a/nurl?id=r&p=AUDIT&l=AUDIT&m=AUDIT",
        "/b/lurl?id=r&p=AUDIT&l=AUDIT&m=AUDIT",
    ]


async def test_a_rehearsal_is_nobodys_business(build: Build, server: HttpServer, notify: Notify) -> None:
    """An auction that an operator explains was never held."""
    world = build(bidder("a", 3.0, server), bidder("b", 2.0, server))
    notices = notify(world)
    outcome = await world.run(bid_request(), rehearsal=True)
    await notices.quiet()
    assert not notices.billed(outcome.auction_id, "1")
    assert server.targets == []


async def test_a_bid_without_urls_is_not_told(build: Build, server: HttpServer, notify: Notify) -> None:
    """Its sale is known all the same: who calls our notices is not at fault."""
    world = build(bidder("a", 3.0, server, nurl=None, burl=None, lurl=None), bidder("b", 2.0, server, lurl=None))
    notices = notify(world)
    outcome = await world.run(bid_request())
    assert notices.won(outcome.auction_id, "1")
    assert notices.billed(outcome.auction_id, "1")
    await notices.quiet()
    assert (server.targets, notices.sender.waiting) == ([], 0)
    assert notices.sender.tallies[Kind.WIN] == Tally()


@pytest.mark.parametrize(
    ("exp", "imp_exp", "window_s"), [(None, None, 100), (50, None, 100), (300, 200, 300), (9_999, None, 1_000)]
)
async def test_a_sale_is_remembered_for_its_window(
    build: Build, server: HttpServer, notify: Notify, exp: int | None, imp_exp: int | None, window_s: int
) -> None:
    """100 s here; exp of bid or imp prolongs it, to 1000 s at most, and does not shorten it (7.2)."""
    world = build(bidder("a", 3.0, server, nurl=None, exp=exp))
    notices = notify(world, window_s=100.0, longest_s=1_000.0)
    in_time = await world.run(bid_request(imp(exp=imp_exp)))
    late = await world.run(bid_request(imp(exp=imp_exp)))
    await notices.quiet()
    world.clock.advance(window_s - 0.001)
    assert notices.billed(in_time.auction_id, "1")
    world.clock.advance(0.001)
    assert not notices.billed(late.auction_id, "1")
    await world.run(bid_request(imp(exp=imp_exp)))
    await notices.quiet()
    assert notices.remembered == 1


async def test_memory_of_sales_is_bounded(build: Build, server: HttpServer, notify: Notify) -> None:
    """The oldest makes place, and is counted."""
    world = build(bidder("a", 3.0, server, nurl=None))
    notices = notify(world, remembered=2)
    outcomes = [await world.run(bid_request()) for _ in range(3)]
    await notices.quiet()
    assert [notices.billed(outcome.auction_id, "1") for outcome in outcomes] == [False, True, True]
    assert (notices.remembered, notices.forgotten) == (2, 1)


async def test_the_queue_of_auctions_is_bounded(build: Build, server: HttpServer, notify: Notify) -> None:
    """While the loop has no time to make notices, the auctions beyond the limit are counted and left."""
    world = build(bidder("a", 3.0, server))
    notices = notify(world, backlog=2)
    for _ in range(3):
        world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    assert (notices.backlog, notices.overlooked) == (2, 1)
    await notices.quiet()
    assert len(server.targets) == 2


async def test_the_listener_leaves_the_work_for_later(build: Build, server: HttpServer, notify: Notify) -> None:
    """Within the auction nothing is made; some moments later, without anybody's help, all is."""
    world = build(bidder("a", 3.0, server))
    notices = notify(world)
    for _ in range(10):
        world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    assert (notices.backlog, notices.sender.waiting) == (10, 0)
    await server.asked(10)
    assert notices.backlog == 0


async def test_a_macro_in_the_host_counts(build: Build, server: HttpServer, notify: Notify) -> None:
    """Macros are replaced wherever they stand, without regard for syntax (4.4); the policy sees what comes of it."""
    inside = f"http://127.0.0.${{AUCTION_AD_ID}}:{server.port}/"
    world = build(bidder("a", 3.0, server, adid="2", nurl=inside), bidder("b", 2.0, server, adid="1", lurl=inside))
    notices = notify(world)
    await world.run(bid_request())
    await notices.quiet()
    assert notices.sender.tallies[Kind.WIN] == Tally(refused=1)
    assert notices.sender.tallies[Kind.LOSS] == Tally(fired=1)


async def test_a_stop_sends_what_is_left(build: Build, server: HttpServer, notify: Notify) -> None:
    """What was not even made, and what rests between two attempts, is tried once more."""
    server.replies.append(Reply(500))
    world = build(bidder("a", 3.0, server))
    notices = notify(world)
    await world.run(bid_request())
    await notices.quiet()
    assert notices.sender.tallies[Kind.WIN] == Tally(retried=1)
    world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    await notices.stop(60)
    assert len(server.targets) == 3
    assert notices.sender.tallies[Kind.WIN] == Tally(fired=2, retried=1)


async def test_a_stop_does_not_wait_for_ever(build: Build, server: HttpServer, notify: Notify) -> None:
    """What a silent server keeps is dropped, and so is what comes later."""
    server.default = HANG
    world = build(bidder("a", 3.0, server))
    notices = notify(world)
    await world.run(bid_request())
    await server.asked(1)
    await notices.stop(0.05)
    await world.run(bid_request())
    await notices.quiet()
    assert notices.sender.tallies[Kind.WIN] == Tally(dropped=2)
    assert notices.sender.waiting == 0
