"""Remote bidders in a real exchange, over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from rtb.adapters.clock import SystemClock
from rtb.adapters.dsp import DspBidder
from rtb.domain.auction import Result
from rtb.domain.bidder_policy import BidderSettings, Skip
from rtb.domain.breaker import BreakerPolicy
from rtb.domain.money import Rates
from rtb.domain.privacy import Reason, Treatment
from rtb.lab.dsp import DspScript, Misbehaviour, serving
from rtb.openrtb import BidRequest, Loss, Regs, User
from rtb.services.exchange import NOT_AWAITED, Auction, Outcome, Status
from rtb.wiring.bidders import RemoteBidders
from tests.support.fanout import LOCAL
from tests.support.http_server import HANG, RESET, HttpServer, Reply
from tests.unit.parts import Build, World, bid_request, imp

Remote = Callable[..., DspBidder]


@pytest_asyncio.fixture
async def remotes() -> AsyncIterator[RemoteBidders]:
    """Bidders on this machine."""
    remotes = RemoteBidders(SystemClock(), Rates("USD", {"EUR": 2.0}), {"DSP_KEY": "secret"}, allow=LOCAL)
    yield remotes
    await remotes.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A bidder without a bid."""
    async with HttpServer() as server:
        yield server


@pytest.fixture
def remote(remotes: RemoteBidders, server: HttpServer) -> Remote:
    """The bidder of `server` with these settings."""

    def make(**settings: Any) -> DspBidder:
        return remotes.apply([BidderSettings(name="dsp", url=server.url("/bid"), **settings)])[0]

    return make


def answer(*bids: dict[str, Any], **fields: Any) -> Reply:
    """A response with these bids, which are valid unless told otherwise."""
    made = [
        {"id": str(n), "impid": "1", "price": 2.0, "adm": "<b>ad</b>", "adomain": ["brand.test"], **bid}
        for n, bid in enumerate(bids)
    ]
    return Reply(200, {}, json.dumps({"id": "r", "cur": "USD", "seatbid": [{"bid": made}], **fields}).encode())


async def auction(world: World, request: BidRequest) -> tuple[Auction, Outcome]:
    """One, and how it ended."""
    begun = world.exchange.begin(request, world.clock.monotonic_ns())
    return begun, begun.outcome or await world.exchange.finish(begun)


def exchange(build: Build, *bidders: DspBidder, deadline_ms: int = 20_000) -> World:
    """An exchange whose deadline does not pass by itself."""
    return build(*bidders, clock=SystemClock(), deadline_ms=deadline_ms, rates={"EUR": 2.0})


async def test_a_bid_over_the_wire_wins(build: Build, remote: Remote, server: HttpServer) -> None:
    """Headers are those configured, secrets from the environment; `tmax` is what is left after network and margin."""
    bidder = remote(headers={"Authorization": "env:DSP_KEY"}, version="2.5", margin_ms=3)
    server.replies.append(answer({"price": 2.5}))
    _, outcome = await auction(exchange(build, bidder, deadline_ms=10_000), bid_request(imp(bidfloor=1.0), tmax=9_000))
    winner = outcome.results[0].winner
    assert winner is not None
    assert (winner.bidder, winner.seat, winner.price_micros) == ("dsp", "dsp", 2_500_000)
    sent = server.requests[0]
    assert (sent.method, sent.target, sent.headers["authorization"]) == ("POST", "/bid", "secret")
    assert sent.headers["x-openrtb-version"] == "2.5"
    told = json.loads(sent.body)
    assert 1 <= told["tmax"] <= 9_000 - 10 - 3  # the exchange's own way back is 10 ms
    assert told["at"] == 2
    report = bidder.health.report()
    assert (report.calls, report.bids, report.no_bids, report.in_flight) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(204),
        Reply(200),
        Reply(200, {}, b"{}"),
        Reply(200, {}, b'{"id":"r"}'),
        Reply(200, {}, b'{"id":"r","seatbid":[]}'),
        Reply(200, {}, b'{"id":"r","seatbid":[{"bid":[]}]}'),
        Reply(200, {}, b'{"id":"r","nbr":2}'),
    ],
)
async def test_a_no_bid_has_many_forms(build: Build, remote: Remote, server: HttpServer, reply: Reply) -> None:
    """204, an empty body, an empty object, no seatbid [7.1]: none of them is a failure."""
    bidder = remote()
    server.default = reply
    held, outcome = await auction(exchange(build, bidder), bid_request())
    assert (outcome.status, held.failures) == (Status.NO_BID, {})
    assert bidder.health.no_bids == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(500, {}, b"oops"), "status-500: HTTP status 500 instead of 200 or 204"),
        (Reply(302, {"location": "/elsewhere"}), "status-302: "),
        (Reply(200, {}, b"<html>"), "response: the response is not JSON"),
        (Reply(200, {}, b'{"id":"r","seatbid":[{"bid":[{"price":"much"}]}]}'), "response: seatbid[0].bid[0].price"),
        (Reply(200, {}, b"[" * 100_000), "response: "),
        (Reply(200, {}, b" " * 300_000), "too-large: its body is over 262144 bytes"),
        (Reply(raw=b"\0\1\2\r\n\r\n"), "malformed: "),
        (RESET, "closed: "),
    ],
)
async def test_a_failure_is_a_reason(build: Build, remote: Remote, server: HttpServer, reply: Reply, why: str) -> None:
    """It is told to the auction and counted by its kind; the auction goes on."""
    bidder = remote()
    server.default = reply
    held, outcome = await auction(exchange(build, bidder), bid_request())
    assert outcome.status is Status.NO_BID
    assert held.failures["dsp"].startswith(why)
    assert bidder.health.errors == {why.partition(":")[0]: 1}


@pytest.mark.parametrize(
    ("reply", "losses"),
    [
        (answer({}, cur="XTS"), [Loss.INVALID_RESPONSE]),
        (answer({}, cur="EUR"), [Loss.INVALID_RESPONSE]),  # it has a rate, but the request allows dollars
        (answer({"impid": "9"}), [Loss.INVALID_RESPONSE]),
        (answer({"price": -1}), [Loss.PRICE_MISSING]),
        (answer({"adm": ""}), [Loss.MARKUP_MISSING]),
        (answer({}, id="another"), [Loss.INVALID_AUCTION_ID]),
        (answer({}, seatbid=[{"seat": "x", "bid": [{"id": "1", "impid": "1", "price": 1, "adm": "a"}]}]), [104]),
    ],
)
async def test_a_bad_bid_loses_with_its_reason(
    build: Build, remote: Remote, server: HttpServer, reply: Reply, losses: list[int]
) -> None:
    """Those of the spec; the bidder has answered all the same."""
    bidder = remote(seats=["s1", "s2"])
    server.default = reply
    held, outcome = await auction(exchange(build, bidder), bid_request(cur=["USD"]))
    assert (outcome.status, held.failures) == (Status.NO_BID, {})
    assert [lost.reason for lost in held.rejected] == losses
    assert (bidder.health.rejected, bidder.health.errors) == (1, {})


async def test_the_first_seat_is_that_of_bids_without_one(build: Build, remote: Remote, server: HttpServer) -> None:
    """And prices are multiplied by the adjustment: 2.00 gross of 15 % is 1.70."""
    bidder = remote(seats=["s1", "s2"], adjustment=0.85)
    server.default = answer({})
    _, outcome = await auction(exchange(build, bidder), bid_request(wseat=["s1"]))
    winner = outcome.results[0].winner
    assert winner is not None
    assert (winner.seat, winner.price_micros) == ("s1", 1_700_000)


async def test_prices_are_converted(build: Build, remote: Remote, server: HttpServer) -> None:
    """A bid of 1.50 euros is 3.00 dollars here; `cur` says what the bidder may answer in."""
    bidder = remote(currencies=["EUR", "GBP"])
    server.default = answer({"price": 1.5}, cur="EUR")
    _, outcome = await auction(exchange(build, bidder), bid_request(cur=["EUR", "USD"]))
    winner = outcome.results[0].winner
    assert winner is not None
    assert winner.price_micros == 3_000_000
    assert json.loads(server.requests[0].body)["cur"] == ["EUR"]


@pytest.mark.parametrize(
    ("settings", "request_", "skip"),
    [
        ({"media": ["video"]}, {}, Skip.MEDIA),
        ({"countries": ["KOR"]}, {}, Skip.COUNTRY),
        ({"sites": ["news.test"]}, {}, Skip.SITE),
        ({"seats": ["a"]}, {"wseat": ["b"]}, Skip.SEAT),
        ({"currencies": ["EUR"]}, {"cur": ["USD"]}, Skip.CURRENCY),
        ({"minimum_ms": 2_000}, {"tmax": 1_500}, Skip.TIME),
    ],
)
async def test_a_bidder_that_is_not_asked_says_why(
    build: Build, remote: Remote, server: HttpServer, settings: dict[str, Any], request_: dict[str, Any], skip: Skip
) -> None:
    """In the auction, for its explanation, and in its counters; nothing is sent."""
    bidder = remote(**settings)
    held, _ = await auction(exchange(build, bidder), bid_request(**request_))
    assert held.skipped == {"dsp": skip.value}
    assert (bidder.health.skipped, bidder.health.calls, server.requests) == ({skip.value: 1}, 0, [])


async def test_limits_keep_a_bidder_from_being_asked(build: Build, remote: Remote, server: HttpServer) -> None:
    """One request under way, and one a second: the others of five auctions at once go without it."""
    bidder = remote(max_in_flight=1)
    world = exchange(build, bidder)
    found = await asyncio.gather(*(auction(world, bid_request()) for _ in range(5)))
    assert [held.skipped for held, _ in found].count({"dsp": Skip.IN_FLIGHT.value}) == 4
    bidder = remote(qps=1)
    world = exchange(build, bidder)
    found = await asyncio.gather(*(auction(world, bid_request()) for _ in range(5)))
    assert [held.skipped for held, _ in found].count({"dsp": Skip.QPS.value}) == 4
    assert len(server.requests) == 2


async def test_a_failing_bidder_is_left_alone_but_for_probes(build: Build, remote: Remote, server: HttpServer) -> None:
    """After twenty errors one in a hundred requests still finds out whether it is back."""
    policy = BreakerPolicy(calls=20, open_s=60, probe_share=0.01, probe_every_s=3_600)
    bidder = remote(breaker=policy)
    server.default = Reply(500)
    world = exchange(build, bidder)
    for _ in range(220):
        await auction(world, bid_request())
    assert len(server.requests) == 22
    assert bidder.health.report().state == "open"
    assert bidder.health.skipped == {Skip.BREAKER.value: 198}


async def test_nobody_waits_for_a_probe(build: Build, remotes: RemoteBidders, server: HttpServer) -> None:
    """An auction that is also to find out whether a bidder has recovered ends when the others have answered."""
    policy = BreakerPolicy(calls=1, open_s=60, probe_share=1.0)
    async with HttpServer(Reply(500)) as sick:
        healthy, probed = remotes.apply(
            [
                BidderSettings(name="healthy", url=server.url("/bid")),
                BidderSettings(name="probed", url=sick.url("/bid"), breaker=policy),
            ]
        )
        server.default = answer({})
        world = exchange(build, healthy, probed)
        await auction(world, bid_request())
        assert probed.health.report().state == "open"
        sick.default = HANG
        held, outcome = await auction(world, bid_request())
        assert (outcome.status, held.skipped) == (Status.WON, {"probed": NOT_AWAITED})
        await sick.asked(2)


async def test_its_own_timeout_ends_before_the_auctions(build: Build, remote: Remote, server: HttpServer) -> None:
    """A bidder that is given 20 ms, for connecting and answering, does not hold up an auction that has 20 seconds."""
    bidder = remote(timeout_ms=20)
    server.default = HANG
    held, outcome = await auction(exchange(build, bidder), bid_request())
    assert outcome.status is Status.NO_BID
    assert held.failures["dsp"].startswith("timeout: the ")
    assert bidder.health.timeouts == 1


async def test_it_is_told_its_own_timeout(build: Build, remote: Remote, server: HttpServer) -> None:
    """As tmax, less a margin of 2 ms for the network, where that is less than the auction has."""
    bidder = remote(timeout_ms=5_000)
    await auction(exchange(build, bidder), bid_request())
    assert json.loads(server.requests[0].body)["tmax"] == 4_998


async def test_a_late_answer_is_nobodys(build: Build, remote: Remote, server: HttpServer) -> None:
    """The auction was settled at its deadline; the connection is closed, and the next auction's answer is its own."""
    bidder = remote()
    server.default = answer({})
    server.hold.clear()
    world = exchange(build, bidder, deadline_ms=30)
    held, outcome = await auction(world, bid_request())
    assert (outcome.status, held.pending) == (Status.TIMEOUT, {"dsp"})
    while bidder.health.in_flight:  # noqa: ASYNC110 - its deadline is the auction's, up to a millisecond later
        await asyncio.sleep(0)
    server.hold.set()
    assert (bidder.health.timeouts, held.bids) == (1, {})
    _, outcome = await auction(exchange(build, bidder), bid_request())
    assert outcome.status is Status.WON


async def test_an_answer_is_over_when_it_comes_and_counts_when_it_is_read(
    build: Build, remotes: RemoteBidders, server: HttpServer
) -> None:
    """Another bidder is still thinking: the first can be asked again, and nobody knows yet what it has said."""
    async with HttpServer(answer({})) as slow:
        slow.hold.clear()
        server.default = Reply(200, {}, b"<html>")
        quick, _ = remotes.apply(
            [BidderSettings(name="quick", url=server.url("/bid")), BidderSettings(name="slow", url=slow.url("/bid"))]
        )
        running = asyncio.create_task(auction(exchange(build, *remotes.bidders), bid_request()))
        await server.asked(1)
        while quick.health.in_flight:  # noqa: ASYNC110 - until the answer has come over the wire
            await asyncio.sleep(0)
        assert (quick.health.errors, quick.health.answers) == ({}, 0)
        slow.hold.set()
        held, outcome = await running
    assert outcome.status is Status.WON
    assert held.failures["quick"].startswith("response: ")
    assert quick.health.errors == {"response": 1}


async def test_an_answer_to_a_settled_auction_counts_for_health_alone(
    build: Build, remotes: RemoteBidders, server: HttpServer
) -> None:
    """Of a bidder that nobody waits for: it is skipped, and no bid of it takes part."""
    async with HttpServer(answer({"price": 9.0})) as slow:
        slow.hold.clear()
        server.default = answer({})
        first, second = remotes.apply(
            [
                BidderSettings(name="first", url=server.url("/bid")),
                BidderSettings(name="second", url=slow.url("/bid"), secondary=True),
            ]
        )
        held, outcome = await auction(exchange(build, first, second), bid_request())
        assert (outcome.status, held.skipped, second.health.in_flight) == (Status.WON, {"second": NOT_AWAITED}, 1)
        slow.hold.set()
        while second.health.in_flight:  # noqa: ASYNC110 - until the answer has come over the wire
            await asyncio.sleep(0)
    assert (second.health.answers, second.health.bids, second.health.timeouts) == (1, 1, 0)
    assert [bid.bidder for bids in held.bids.values() for bid in bids] == ["first"]


async def test_sick_bidders_change_nothing_for_the_others(build: Build, remotes: RemoteBidders) -> None:
    """With one that hangs, one that drips and one that floods, two others win the same auctions at the same prices."""
    healthy = [
        DspScript(name="a", latency_ms=(0.0, 5.0), no_bid=0.2),
        DspScript(name="b", latency_ms=(0.0, 5.0), no_bid=0.2),
    ]
    sick = [
        DspScript(name=kind.value, latency_ms=(0.0, 5.0), misbehaves=1.0, misbehaviour=kind)
        for kind in (Misbehaviour.HANG, Misbehaviour.DRIP, Misbehaviour.FLOOD)
    ]
    requests = [msgspec.structs.replace(bid_request(), id=f"r{n}") for n in range(40)]

    async def winners(scripts: list[DspScript]) -> list[tuple[str, int] | None]:
        async with serving(scripts, seed=7) as served:
            bidders = remotes.apply(
                [
                    BidderSettings(name=dsp.script.name, url=url, timeout_ms=200 if dsp.script in sick else 0)
                    for dsp, url in served
                ]
            )
            world = exchange(build, *bidders)
            found = await asyncio.gather(*(world.run(request) for request in requests))
            return [
                (result.winner.bidder, result.price_micros) if result.winner is not None else None
                for outcome in found
                for result in outcome.results or [Result("1", None, 0, 0, [])]
            ]

    alone = await winners(healthy)
    assert {name for name, _ in filter(None, alone)} == {"a", "b"}
    assert await winners([*healthy, *sick]) == alone


class BrokenRates(Rates):
    """Rates that have a bug."""

    def knows(self, code: str) -> bool:
        """Raise."""
        raise ZeroDivisionError("a bug")


async def test_any_mistake_of_ours_in_taking_in_is_reported(build: Build, server: HttpServer) -> None:
    """The auction does not wait for a report that never comes."""
    remotes = RemoteBidders(SystemClock(), BrokenRates(), {}, allow=LOCAL)
    bidders = remotes.apply([BidderSettings(name="dsp", url=server.url("/bid"))])
    server.default = answer({}, cur="EUR")
    held, _ = await auction(exchange(build, *bidders), bid_request())
    assert held.failures == {"dsp": "intake: ZeroDivisionError: a bug"}
    await remotes.close()


async def test_a_bidder_is_told_what_the_law_lets_it_know(
    build: Build, remotes: RemoteBidders, server: HttpServer
) -> None:
    """One that has consent everything, one without a stripped request, and one that is set so is not asked; why, is
    counted and said."""
    vendors = {"with": {"gvlid": 6}, "without": {"gvlid": 7}, "strict": {"gvlid": 7, "gdpr": "skip"}}
    bidders = remotes.apply(
        [
            msgspec.convert({"name": name, "url": server.url(f"/{name}"), "privacy": policy}, BidderSettings)
            for name, policy in vendors.items()
        ]
    )
    consent = "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA"  # for vendors 2, 6 and 8
    request = msgspec.structs.replace(bid_request(), regs=Regs(gdpr=1), user=User(id="u", consent=consent))
    held, _ = await auction(exchange(build, *bidders), request)
    found = {asked.target: json.loads(asked.body)["user"] for asked in server.requests}
    assert found == {"/with": {"id": "u", "consent": consent}, "/without": {"consent": consent}}
    why = "gdpr: no consent for its vendor id"
    assert held.skipped == {"strict": why}
    assert [dict(bidder.health.skipped) for bidder in bidders] == [{}, {}, {why: 1}]
    assert [dict(bidder.health.stripped) for bidder in bidders] == [
        {"gdpr: no opt-in to precise geolocation": 1},
        {why: 1},
        {},
    ]
    assert bidders[1].privacy(request) == (Treatment.ANONYMOUS, Reason.GDPR_VENDOR)


@pytest.mark.parametrize(("price", "losses"), [(2.5, []), (2.2, [Loss.BELOW_FLOOR])])
async def test_a_bidder_has_a_floor_of_its_own(
    build: Build, remote: Remote, server: HttpServer, price: float, losses: list[Loss]
) -> None:
    """Its prices count after the adjustment: 2.50 x 0.8 reaches 2.00, and that is the floor it is told."""
    bidder = remote(floor=2.0, adjustment=0.8)
    server.default = answer({"price": price})
    held, _ = await auction(exchange(build, bidder), bid_request())
    assert json.loads(server.requests[0].body)["imp"][0]["bidfloor"] == 2.5
    assert [(lost.reason, lost.min_to_win_micros) for lost in held.rejected] == [(loss, 2_000_000) for loss in losses]
    assert bool(held.bids) is not bool(losses)


async def test_a_bidder_is_asked_for_the_imps_that_are_offered_to_it(
    build: Build, remote: Remote, server: HttpServer
) -> None:
    """Whoever else gets the others."""
    bidder = remote()
    request = bid_request()
    request.imp = [msgspec.structs.replace(imp, id=name) for imp in request.imp or () for name in ("1", "2", "3")]
    world = exchange(build, bidder)
    held = world.exchange.begin(request, world.clock.monotonic_ns(), offered={"dsp": ["1", "3"]})
    await world.exchange.finish(held)
    assert [imp["id"] for imp in json.loads(server.requests[0].body)["imp"]] == ["1", "3"]


async def test_a_bidder_is_not_sent_the_parameters_of_others(build: Build, remote: Remote, server: HttpServer) -> None:
    """Of imp.ext.prebid.bidder it gets what is under its own name, or an alias of it."""
    bidder = remote()
    params = {"dsp": {"placement": 1}, "alias": {"placement": 2}, "other": {"secret": 3}}
    ext = msgspec.Raw(json.dumps({"prebid": {"bidder": params}}).encode())
    aliases = msgspec.Raw(b'{"prebid":{"aliases":{"alias":"dsp"}}}')
    await auction(exchange(build, bidder), bid_request(imp(ext=ext), ext=aliases))
    (sent,) = json.loads(server.requests[0].body)["imp"]
    assert sent["ext"] == {"prebid": {"bidder": {"dsp": {"placement": 1}, "alias": {"placement": 2}}}}
