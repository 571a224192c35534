"""What pages with Prebid.js need over HTTP: CORS, bodies without a JSON content type, and paths beside the auction."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest_asyncio

from rtb.edges.http1 import Limits, Server
from rtb.edges.openrtb_http import AuctionResponder
from rtb.edges.prebid_http import Origins, PrebidPages
from tests.unit.parts import Build, Silent, World, campaign

PAGE = "https://news.example"
AUCTION = "/openrtb2/auction"
HOUR_MS = 3_600_000
CORS = {
    "access-control-allow-origin": PAGE,
    "access-control-allow-credentials": "true",
    "vary": "origin",
}


def bid_request(**fields: Any) -> dict[str, Any]:
    """As Prebid.js sends it: everything for the code of the whole exchange."""
    imp = {"id": "top", "banner": {"format": [{"w": 300, "h": 250}]}, "ext": {"prebid": {"bidder": {"rtb": {}}}}}
    targeting = {"includewinners": True, "includebidderkeys": False}
    return {"id": "r", "imp": [imp], "ext": {"prebid": {"targeting": targeting}}, **fields}


class Answer(msgspec.Struct):
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def cors(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name in CORS}


class Browser:
    """One connection of a browser that shows a page of `origin`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: str = PAGE) -> None:
        self.reader = reader
        self.writer = writer
        self.origin = origin

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        self.send(method, path, body, **headers)
        return await self.receive()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        sent = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        lines = {"host": "x", "content-type": "text/plain", **{n.replace("_", "-"): v for n, v in headers.items()}}
        if self.origin:
            lines["origin"] = self.origin
        if body is not None:
            lines["content-length"] = str(len(sent))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + sent)

    async def receive(self) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(lines[0].split()[1]), headers, body)


Open = Callable[..., Awaitable[tuple[World, Browser]]]


@pytest_asyncio.fixture
async def visit(build: Build) -> AsyncIterator[Open]:
    """``world, browser = await visit(*bidders, origins=..., origin=...)``: a campaign at 3.00 and one at 2.00."""
    closing: list[Callable[[], Awaitable[None]]] = []

    async def make(
        *bidders: object, origins: tuple[str, ...] = ("*",), origin: str = PAGE, ready: bool = True, **options: object
    ) -> tuple[World, Browser]:
        world = build(*bidders, **{"campaigns": [campaign("a", 3.0), campaign("b", 2.0)], **options})
        pages = PrebidPages(
            lambda: {"house": (), "acme": ("banner", "video")}, origins=Origins(origins), ready=lambda: ready
        )
        responder = AuctionResponder(
            world.exchange, world.metrics, world.rates, world.clock, shed_after_ms=0.0, pages={}, prebid_pages=pages
        )
        server = Server(responder, world.clock, Limits(body_bytes=10_000))
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        browser = Browser(*await asyncio.open_connection(*listener.sockets[0].getsockname()), origin)

        async def close() -> None:
            browser.writer.close()
            for connection in list(server.connections):
                connection.abort()
            listener.close()
            await listener.wait_closed()

        closing.append(close)
        return world, browser

    yield make
    for close in closing:
        await close()


async def test_a_page_s_request_is_answered_so_that_the_page_may_read_it(visit: Open) -> None:
    """Again and again on one connection, for the head is known from then on; won, refused, and not found."""
    _, browser = await visit()
    for _ in range(3):
        answer = await browser.ask("POST", AUCTION, bid_request())
        assert (answer.status, answer.cors) == (200, CORS)
        [seat] = answer.json["seatbid"]
        [bid] = seat["bid"]
        assert (seat["seat"], bid["price"], bid["w"], bid["h"], bid["crid"]) == ("rtb", 2.01, 300, 250, "a-ad")
    refused = await browser.ask("POST", AUCTION, b"{")
    assert (refused.status, refused.cors) == (400, CORS)
    wrong = await browser.ask("GET", AUCTION)
    assert (wrong.status, wrong.headers["allow"], wrong.cors) == (405, "POST, OPTIONS", CORS)


async def test_an_auction_that_waits_is_answered_to_its_page(visit: Open) -> None:
    """Each answer to its own: the second request of the connection comes from no page."""
    dsp = Silent("dsp")
    _, browser = await visit(dsp, deadline_ms=HOUR_MS)
    browser.send("POST", AUCTION, bid_request(imp=[{"id": "1", "banner": {"w": 1, "h": 1}}]))
    browser.origin = ""
    browser.send("GET", "/status")
    await dsp.asked()
    dsp.seen[0].report(dsp)
    assert (await browser.receive()).cors == CORS
    assert (await browser.receive()).cors == {}


async def test_servers_get_no_cors(visit: Open) -> None:
    """No origin, no lines."""
    _, browser = await visit(origin="")
    assert (await browser.ask("POST", AUCTION, bid_request())).cors == {}


async def test_a_page_of_a_site_that_is_not_listed_buys_nothing(visit: Open) -> None:
    """403 before the auction, for a browser sends such a request without asking first; servers may go on."""
    world, browser = await visit(origins=("https://Other.example/",))
    for method, path in (("POST", AUCTION), ("OPTIONS", AUCTION), ("GET", "/info/bidders")):
        answer = await browser.ask(method, path, bid_request() if method == "POST" else None)
        assert (answer.status, answer.cors) == (403, {})
    assert world.metrics.won == 0
    browser.origin = "https://other.example"
    assert (await browser.ask("POST", AUCTION, bid_request())).cors["access-control-allow-origin"] == browser.origin
    browser.origin = ""
    assert (await browser.ask("POST", AUCTION, bid_request())).status == 200


async def test_a_preflight(visit: Open) -> None:
    """The methods of the path and whatever headers were asked for [Fetch, CORS protocol], for pages of listed sites."""
    _, browser = await visit()
    for path, methods in ((AUCTION, "POST"), ("/cookie_sync", "POST"), ("/info/bidders/acme", "GET, HEAD")):
        answer = await browser.ask(
            "OPTIONS",
            path,
            access_control_request_method=methods,
            access_control_request_headers="x-one, content-encoding",
        )
        assert (answer.status, answer.body) == (204, b"")
        assert answer.cors == CORS
        assert answer.headers["access-control-allow-methods"] == methods
        assert answer.headers["access-control-allow-headers"] == "x-one, content-encoding"
        assert answer.headers["access-control-max-age"] == "7200"
    plain = await browser.ask("OPTIONS", AUCTION)
    assert (plain.status, "access-control-allow-headers" in plain.headers) == (204, False)


async def test_a_body_that_the_page_compressed(visit: Open) -> None:
    """Prebid.js says so in the query alone; a second one finds its head known. What is broken or a bomb is refused."""
    _, browser = await visit()
    packed = gzip.compress(msgspec.json.encode(bid_request()), mtime=0)
    for _ in range(2):
        assert (await browser.ask("POST", f"{AUCTION}?gzip=1", packed)).json["seatbid"]
    cut = await browser.ask("POST", f"{AUCTION}?gzip=1", packed[:-4])
    assert (cut.status, b"ends early" in cut.body) == (400, True)
    bomb = await browser.ask("POST", f"{AUCTION}?gzip=1", gzip.compress(b" " * 1_000_000))
    assert (bomb.status, b"once decompressed" in bomb.body) == (400, True)
    broken = await browser.ask("POST", f"{AUCTION}?gzip=1", b"\x1f\x8bnonsense")
    assert broken.status == 400
    assert (await browser.ask("POST", AUCTION, bid_request())).status == 200


async def test_no_bid_is_a_response_for_a_page(visit: Open) -> None:
    """Prebid.js cannot read an empty 204."""
    _, browser = await visit(campaigns=[])
    answer = await browser.ask("POST", AUCTION, bid_request(tmax=77))
    assert (answer.status, answer.headers["x-rtb-outcome"]) == (200, "no-bid")
    said = answer.json
    assert (said["id"], said["nbr"], "seatbid" in said) == ("r", 500, False)
    plain = await browser.ask("POST", AUCTION, bid_request(ext={}, imp=[{"id": "1", "banner": {"w": 1, "h": 1}}]))
    assert plain.status == 204


async def test_a_request_that_counts_on_a_stored_one_is_refused_in_one_line(visit: Open) -> None:
    """An imp that is whole without it is auctioned: Prebid Server sends the member on to its bidders."""
    world, browser = await visit()
    stored = {"prebid": {"storedrequest": {"id": "42"}}}
    answer = await browser.ask("POST", AUCTION, bid_request(imp=[{"id": "1", "ext": stored}]))
    assert answer.status == 400
    assert answer.body == b"imp[0].ext.prebid.storedrequest: nothing is stored here; send the whole imp\n"
    whole = {"id": "1", "banner": {"w": 1, "h": 1}, "ext": stored}
    assert (await browser.ask("POST", AUCTION, bid_request(imp=[whole]))).status == 200
    assert world.metrics.invalid == 1


async def test_imps_are_offered_to_the_bidders_that_the_page_names(visit: Open) -> None:
    """The house is not among them; a code that means nobody is an error with Prebid Server's code for bad input."""
    dsp = Silent("acme")
    _, browser = await visit(dsp, deadline_ms=HOUR_MS)
    imp = {"id": "1", "banner": {"w": 300, "h": 250}, "ext": {"prebid": {"bidder": {"Acme": {}, "gone": {}}}}}
    browser.send("POST", AUCTION, bid_request(imp=[imp]))
    await dsp.asked()
    dsp.seen[0].report(dsp)
    said = (await browser.receive()).json
    assert said["nbr"] == 500
    assert said["ext"]["errors"] == {
        "gone": [{"code": 2, "message": "no bidder here has this code; /info/bidders lists them"}]
    }


async def test_the_pages_of_prebid_server(visit: Open) -> None:
    """Status, bidders, one bidder, and no cookies to synchronise."""
    _, browser = await visit()
    status = await browser.ask("GET", "/status")
    assert (status.status, status.cors) == (200, CORS)
    assert (await browser.ask("GET", "/info/bidders?enabledonly=true")).json == ["acme", "house", "rtb"]
    acme = (await browser.ask("GET", "/info/bidders/acme")).json
    assert acme["capabilities"]["site"] == {"mediaTypes": ["banner", "video"]}
    everybody = (await browser.ask("GET", "/info/bidders/rtb")).json
    assert everybody["capabilities"]["app"] == {"mediaTypes": ["banner", "video", "audio", "native"]}
    assert (await browser.ask("GET", "/info/bidders/nobody")).status == 404
    synced = await browser.ask("POST", "/cookie_sync", {"bidders": ["rtb"], "gdpr": 0})
    assert (synced.json, synced.cors) == ({"status": "ok", "bidder_status": []}, CORS)
    wrong = await browser.ask("GET", "/cookie_sync")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST, OPTIONS")


async def test_status_of_an_exchange_that_is_not_ready(visit: Open) -> None:
    """503."""
    _, browser = await visit(ready=False)
    assert (await browser.ask("GET", "/status")).status == 503
