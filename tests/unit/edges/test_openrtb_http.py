"""The auction over HTTP: statuses, headers, bodies, shedding, draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec
import pytest
import pytest_asyncio

from rtb import openrtb
from rtb.edges.http1 import Server
from rtb.edges.http_responses import response
from rtb.edges.openrtb_http import AuctionResponder
from rtb.openrtb import BidRequest, BidResponse, Device
from rtb.ports import OpenAuction
from tests.unit.parts import Build, Prompt, Silent, World, bid_request, campaign, imp, offer

AUCTION = "/openrtb2/auction"
HOUR_MS = 3_600_000
NBR = msgspec.Raw(b'{"rtb":{"nbr":1}}')


@dataclass
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def bids(self) -> list[tuple[str | None, float | None]]:
        answer = msgspec.json.decode(self.body, type=BidResponse)
        return [(bid.impid, bid.price) for seat in answer.seatbid or () for bid in seat.bid or ()]

    @property
    def outcome(self) -> str:
        return self.headers["x-rtb-outcome"]


class Client:
    """The other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def post(self, body: bytes | BidRequest, *, path: str = AUCTION, method: str = "POST") -> None:
        if not isinstance(body, bytes):
            body = openrtb.encode(body)
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def read(self, *, head: bool = False) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        length = 0 if head else int(headers.get("content-length", "0"))
        return Answer(int(lines[0].split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, body: bytes | BidRequest, *, path: str = AUCTION, method: str = "POST") -> Answer:
        self.post(body, path=path, method=method)
        return await self.read(head=method == "HEAD")


class Bench:
    """An exchange behind a listening server."""

    def __init__(self, world: World) -> None:
        self.world = world
        pages: dict[bytes, Callable[[], bytes]] = {b"/healthz": lambda: response(b"200 OK", b"{}")}
        self.responder = AuctionResponder(
            world.exchange, world.metrics, world.rates, world.clock, shed_after_ms=20.0, pages=pages
        )
        self.server = Server(self.responder, world.clock)
        self.clients: list[Client] = []
        self.listener: asyncio.Server | None = None

    async def connect(self) -> Client:
        if self.listener is None:
            self.listener = await asyncio.get_running_loop().create_server(self.server, "127.0.0.1", 0)
        port = self.listener.sockets[0].getsockname()[1]
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        self.clients.append(client)
        return client


Serve = Callable[..., Awaitable[tuple[Bench, Client]]]


@pytest_asyncio.fixture
async def serve(build: Build) -> AsyncIterator[Serve]:
    """``bench, client = await serve(*bidders, **options)``, with a campaign at 3.00 and one at 2.00."""
    benches: list[Bench] = []

    async def make(*bidders: object, **options: object) -> tuple[Bench, Client]:
        world = build(*bidders, **{"campaigns": [campaign("a", 3.0), campaign("b", 2.0)], **options})
        benches.append(Bench(world))
        return benches[-1], await benches[-1].connect()

    yield make
    for bench in benches:
        for client in bench.clients:
            client.writer.close()
        for connection in list(bench.server.connections):
            connection.abort()
        assert bench.listener is not None
        bench.listener.close()
        await bench.listener.wait_closed()


async def test_a_won_auction(serve: Serve) -> None:
    """200, with the bid response, its version and outcome."""
    bench, client = await serve()
    answer = await client.ask(bid_request())
    assert (answer.status, answer.bids) == (200, [("1", 2.01)])
    assert answer.headers == {
        "content-type": "application/json",
        "x-openrtb-version": "2.6",
        "x-rtb-outcome": "won",
        "content-length": str(len(answer.body)),
    }
    assert bench.world.metrics.won == 1


async def test_no_bid_is_an_empty_204(serve: Serve) -> None:
    """Which tells its outcome in a header, and has no body at all."""
    _, client = await serve()
    answer = await client.ask(bid_request(imp(bidfloor=9.0)))
    assert (answer.status, answer.headers) == (204, {"x-openrtb-version": "2.6", "x-rtb-outcome": "no-bid"})
    assert (await client.ask(bid_request())).status == 200


@pytest.mark.parametrize(
    ("fields", "nbr"),
    [({"tmax": 5}, 15), ({"device": Device(ua="Googlebot/2.1")}, 3), ({"bseat": ["a", "b"]}, 500)],
)
async def test_whoever_asks_is_told_the_reason(serve: Serve, fields: dict[str, object], nbr: int) -> None:
    """``ext.rtb.nbr = 1``: 200 with nbr in place of 204."""
    _, client = await serve()
    answer = await client.ask(bid_request(ext=NBR, **fields))
    assert (answer.status, answer.outcome) == (200, "no-bid")
    assert msgspec.json.decode(answer.body, type=BidResponse) == BidResponse(id="r", nbr=nbr)
    assert (await client.ask(bid_request(**fields))).status == 204


async def test_a_broken_request_is_a_400_that_names_the_field(serve: Serve) -> None:
    """On one line, in the body and in x-rtb-error; it counts as invalid, and the connection goes on."""
    bench, client = await serve()
    for body, field in ((b"{", "the body is not JSON"), (b'{"id":"r"}', "imp: "), (b'{"id":1}', "id: ")):
        answer = await client.ask(body)
        assert answer.status == 400
        assert answer.headers["x-rtb-error"].startswith(field)
        assert answer.body.decode() == answer.headers["x-rtb-error"] + "\n"
    assert (await client.ask(bid_request(at=777))).headers["x-rtb-error"].startswith("at: 777 ")
    assert (await client.ask(b'{"id":"r","ext":' + b"[" * 2_000 + b"]" * 2_000 + b"}")).status == 413
    assert (bench.world.metrics.invalid, bench.world.metrics.in_flight) == (5, 0)
    assert (await client.ask(bid_request())).status == 200


async def test_an_auction_that_waits_is_answered_later(serve: Serve) -> None:
    """In its turn: the next request on the connection, answered at once, comes after it."""
    dsp = Silent("dsp")
    bench, client = await serve(dsp, deadline_ms=HOUR_MS)
    client.post(bid_request())
    client.post(b"", path="/healthz", method="GET")
    await dsp.asked()
    assert bench.world.metrics.in_flight == 1
    dsp.seen[0].report(dsp, [offer("dsp", 9.0)])
    assert (await client.read()).bids == [("1", 3.01)]
    assert (await client.read()).body == b"{}"


async def test_all_late_is_a_timeout(serve: Serve) -> None:
    """204 with its own outcome, or nbr 503 for whoever asks."""
    _, client = await serve(Silent("dsp"), deadline_ms=2, campaigns=[])
    assert (await client.ask(bid_request())).headers["x-rtb-outcome"] == "timeout"
    answer = await client.ask(bid_request(ext=NBR))
    assert (answer.outcome, msgspec.json.decode(answer.body)) == ("timeout", {"id": "r", "nbr": 503})


async def test_above_the_cap_in_flight_requests_are_shed(serve: Serve) -> None:
    """At once, with the reason."""
    dsp = Silent("dsp")
    bench, client = await serve(dsp, deadline_ms=HOUR_MS, max_in_flight=1)
    other = await bench.connect()
    client.post(bid_request())
    await dsp.asked()
    answer = await other.ask(bid_request(ext=NBR))
    assert (answer.outcome, msgspec.json.decode(answer.body)) == ("shed", {"id": "r", "nbr": 502})
    dsp.seen[0].report(dsp)
    assert (await client.read()).status == 200


class Busy(Prompt):
    """Spends 15 ms of processor time on every auction."""

    world: World

    def bid(self, auction: OpenAuction) -> None:
        """Let the time pass, and report."""
        self.world.clock.advance(0.015)
        super().bid(auction)


async def test_while_the_loop_is_late_requests_are_shed_undecoded(serve: Serve) -> None:
    """20 ms late is still in time; 21 ms is not, and the request is not even parsed."""
    bench, client = await serve()
    late_ms = 20
    bench.server.responder = AuctionResponder(
        bench.world.exchange,
        bench.world.metrics,
        bench.world.rates,
        bench.world.clock,
        shed_after_ms=20.0,
        pages={},
        lag_ns=lambda: late_ms * 1_000_000,
    )
    assert (await client.ask(b"not json")).status == 400
    late_ms = 21
    assert (await client.ask(b"not json")).outcome == "shed"


async def test_who_waited_too_long_for_a_turn_is_shed_undecoded(serve: Serve) -> None:
    """Four arrive in one iteration of the loop, each costs 15 ms: the first two are in time (0 and 15 ms), the others
    have waited 30 ms, more than 20; they are not even parsed. The next iteration begins anew."""
    busy = Busy("busy")
    bench, client = await serve(busy)
    busy.world = bench.world
    clients = [client, *[await bench.connect() for _ in range(3)]]
    for one in clients:
        await one.ask(b"", path="/healthz", method="GET")
    bodies: list[bytes | BidRequest] = [bid_request(), bid_request(), b"not json", b"not json"]
    for one, body in zip(clients, bodies, strict=True):
        one.post(body)
    answers = [await one.read() for one in clients]
    assert [answer.outcome for answer in answers] == ["won", "won", "shed", "shed"]
    counts = bench.world.metrics.counts()
    assert (counts.shed, counts.nbr.get(502), counts.invalid, counts.won) == (2, 2, 0, 2)
    assert (await client.ask(bid_request())).outcome == "won"


async def test_paths_and_methods(serve: Serve) -> None:
    """404 and 405 say what to do instead; a page is read with GET or HEAD; no body ever follows HEAD."""
    _, client = await serve()
    assert (await client.ask(b"{}", path="/openrtb")).status == 404
    wrong = await client.ask(b"", method="GET")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST, OPTIONS")
    wrong = await client.ask(b"", path="/healthz", method="POST")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")
    for path, status in (("/healthz", 200), (AUCTION, 405), ("/nowhere", 404)):
        assert (await client.ask(b"", path=path, method="HEAD")).status == status
    assert (await client.ask(b"", path="/healthz?x=1", method="GET")).body == b"{}"


async def test_a_client_that_leaves_does_not_end_the_auction(serve: Serve) -> None:
    """It runs to its end, unheard, and is in flight no longer."""
    dsp = Silent("dsp")
    bench, client = await serve(dsp, deadline_ms=HOUR_MS)
    client.post(bid_request())
    await dsp.asked()
    client.writer.transport.abort()
    dsp.seen[0].report(dsp)
    await bench.responder.drained()
    assert (bench.world.metrics.in_flight, bench.world.metrics.won) == (0, 1)


async def test_draining_waits_for_the_auctions_under_way(serve: Serve) -> None:
    """drained returns when the last is answered; the connection is closed after it."""
    dsp = Silent("dsp")
    bench, client = await serve(dsp, deadline_ms=HOUR_MS)
    client.post(bid_request())
    await dsp.asked()
    bench.server.drain()
    draining = asyncio.ensure_future(bench.responder.drained())
    await asyncio.sleep(0)
    assert not draining.done()
    dsp.seen[0].report(dsp)
    await draining
    answer = await client.read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.reader.read() == b""


async def test_a_mistake_of_ours_still_answers(serve: Serve) -> None:
    """Later or at once, the client gets a 500 and not silence; nothing stays in flight."""
    dsp = Silent("dsp")
    bench, client = await serve(dsp, deadline_ms=HOUR_MS)

    def trip(auction: object, outcome: object) -> None:
        raise ZeroDivisionError

    bench.world.exchange.listen(trip)
    client.post(bid_request())
    await dsp.asked()
    dsp.seen[0].report(dsp)
    assert (await client.read()).status == 500
    assert (await client.ask(bid_request(tmax=1))).status == 500
    assert bench.world.metrics.in_flight == 0
