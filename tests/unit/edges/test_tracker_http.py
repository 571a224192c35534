"""The tracker over a real socket: pixels, redirects, notices, postbacks, and everything that is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.domain.campaign import Pricing
from rtb.domain.tracking import Keys, Signer, Ticket
from rtb.edges.http1 import Connection, Server
from rtb.edges.http_responses import error
from rtb.edges.tracker_http import GIF, TrackerResponder
from rtb.errors import BrokerError, Unroutable
from rtb.messages import BIDDER_NOTICE, TRACKED_EVENT, BidderNotice, MessageType, TrackedEvent
from rtb.ports import Message
from rtb.services.tracker import Done, Tracker

NOW = 1_795_325_000.5
LANDING = "https://shop.test/p?a=1&b=%20c&click=${CLICK_ID}#top"
SIGNER = Signer(Keys({1: b"k" * 16, 7: b"l" * 16}, 7), b"i" * 16)
TICKET = Ticket(
    auction_id="a1",
    impid="1",
    campaign_id="c",
    creative_id="ad",
    day="2026-11-22",
    instance="i",
    pricing=Pricing.CPM,
    price_nanos=2_010_000,
    held_nanos=2_010_000,
    won_at=NOW - 1.0,
    expires_at=NOW + 59.0,
    user=SIGNER.user_digest("u"),
    destination=SIGNER.destination(LANDING),
)
TOKEN = SIGNER.token(TICKET)


@dataclass
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def verdicts(self) -> list[str]:
        """Of a batch: "" for what was accepted, else the reason."""
        return [one.get("reason", "") for one in json.loads(self.body)]


class Bench:
    """A tracker behind a listening server; what it posts is kept, and safe at once unless a test holds it."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(NOW)
        self.posted: list[tuple[str, str, Message]] = []
        self.held: list[Done] = []
        self.holds = False
        self.came = asyncio.Event()
        self.broken_routes: set[str] = set()
        self.on_request: Callable[[], object] = lambda: None
        self.told: list[tuple[Any, ...]] = []
        self.knows = True
        self.tracker = Tracker(
            SIGNER,
            self.post,
            self.clock,
            instance="i",
            on_won=lambda *told: self.tell("won", *told),
            on_lost=lambda *told: self.tell("lost", *told),
            on_billed=lambda *told: self.tell("billed", *told),
            refused_per_s=options.pop("refused_per_s", 1_000),
        )
        self.responder = TrackerResponder(self.tracker, self.clock, **options)
        self.server = Server(self, self.clock)
        self.listener: asyncio.Server | None = None
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        if path == b"/elsewhere":
            return error(b"404 Not Found", "elsewhere")
        self.on_request()
        return self.responder.respond(connection, method, path, body)

    def post(self, exchange: str, routing_key: str, message: Message, done: Done | None) -> None:
        if routing_key in self.broken_routes:
            raise RuntimeError(f"{routing_key} is broken")
        self.posted.append((exchange, routing_key, message))
        if done is not None:
            if self.holds:
                self.held.append(done)
                self.came.set()
            else:
                done(None)

    async def holding(self, count: int) -> None:
        """Return once so many events wait to be safe."""
        while len(self.held) < count:
            self.came.clear()
            await self.came.wait()

    def tell(self, *told: Any) -> bool:
        self.told.append(told)
        return self.knows

    async def start(self) -> None:
        self.listener = await asyncio.get_running_loop().create_server(self.server, "127.0.0.1", 0)
        port = self.listener.sockets[0].getsockname()[1]
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def stop(self) -> None:
        self.writer.close()
        for connection in list(self.server.connections):
            connection.abort()
        assert self.listener is not None
        self.listener.close()
        await self.listener.wait_closed()

    def send(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: t", *headers, f"Content-Length: {len(body)}"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def read(self, *, head: bool = False) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        length = 0 if head else int(headers.get("content-length", "0"))
        return Answer(int(lines[0].split()[1]), headers, await self.reader.readexactly(length))

    async def get(self, target: str, *headers: str, method: str = "GET") -> Answer:
        self.send(target, *headers, method=method)
        return await self.read(head=method == "HEAD")

    async def tell_events(self, events: Any, *headers: str) -> Answer:
        self.send("/events", *headers, method="POST", body=json.dumps(events).encode())
        return await self.read()

    def events(self) -> list[tuple[str, str, TrackedEvent]]:
        """What was posted: routing key, message id, event."""
        found = []
        for exchange, routing_key, message in self.posted:
            envelope = messages.decode(message.body)
            assert (exchange, envelope.message_id) == ("ad.events", message.message_id)
            assert routing_key == f"event.{envelope.message_type.value}"
            found.append((envelope.message_type.value, message.message_id, TRACKED_EVENT.decode(envelope.data)))
        return found


Serve = Callable[..., Awaitable[Bench]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """``bench = await serve(**options)``, with options of the TrackerResponder."""
    benches: list[Bench] = []

    async def make(**options: Any) -> Bench:
        benches.append(Bench(**options))
        await benches[-1].start()
        return benches[-1]

    yield make
    for bench in benches:
        await bench.stop()


async def test_an_impression_pixel(serve: Serve) -> None:
    """A 1x1 gif that nobody may cache, no cookie, and one message with token, time, user agent and address."""
    bench = await serve()
    answer = await bench.get(f"/t/i/{TOKEN}", "User-Agent: Mozilla/5.0 é")
    assert (answer.status, answer.body) == (200, GIF)
    assert len(GIF) == 43
    assert GIF[:6] == b"GIF89a"
    assert answer.headers == {"content-type": "image/gif", "cache-control": "no-store", "content-length": "43"}
    [(kind, message_id, event)] = bench.events()
    assert (kind, message_id) == ("impression", "a1:1:impression")
    assert event == TrackedEvent(received_at=NOW, token=TOKEN, source="pixel", ua="Mozilla/5.0 \ufffd", ip="127.0.0.1")
    assert bench.tracker.accepted["impression"] == 1


async def test_a_repeated_event_has_the_same_id_whatever_tells_it(serve: Serve) -> None:
    """A pixel fetched twice and a burl besides are one impression to whoever consumes them; a click is another."""
    bench = await serve()
    for path in ("i", "i", "b", "c", "v"):
        assert (await bench.get(f"/t/{path}/{TOKEN}")).status in (200, 204)
    assert [message_id for _, message_id, _ in bench.events()] == [
        "a1:1:impression",
        "a1:1:impression",
        "a1:1:impression",
        "a1:1:click",
        "a1:1:conversion",
    ]


async def test_a_click_goes_to_the_landing_page_with_the_click_s_id(serve: Serve) -> None:
    """302 to the destination the ticket was made for, ${CLICK_ID} in it replaced by the token."""
    bench = await serve()
    answer = await bench.get(f"/t/c/{TOKEN}?u={quote(LANDING, safe='')}")
    assert answer.status == 302
    assert answer.headers["location"] == LANDING.replace("${CLICK_ID}", TOKEN)
    assert answer.headers["cache-control"] == "no-store"
    [(kind, message_id, event)] = bench.events()
    assert (kind, message_id, event.source, event.token) == ("click", "a1:1:click", "redirect", TOKEN)


@pytest.mark.parametrize("suffix", ["", "&gclid=1"])
async def test_a_landing_page_put_behind_the_prefix(serve: Serve, suffix: str) -> None:
    """Whatever somebody adds as a further field, or an address that was not encoded at all, still leads home."""
    bench = await serve()
    encoded = quote(LANDING, safe="")
    assert (await bench.get(f"/t/c/{TOKEN}?u={encoded}{suffix}")).status == 302
    plain = "https://shop.test/?a=1&b=2"
    token = SIGNER.token(replace(TICKET, destination=SIGNER.destination(plain)))
    assert (await bench.get(f"/t/c/{token}?u={plain}")).headers["location"] == plain


@pytest.mark.parametrize(
    "destination",
    [
        "https://evil.test/",
        LANDING + "x",
        LANDING[:-1],
        LANDING.upper(),
        "//shop.test/",
        "",
        "https://shop.test@evil.test/",
    ],
)
async def test_the_redirect_is_never_open(serve: Serve, destination: str) -> None:
    """Any other destination is a 404 without a location; the attempt is recorded, the click is not."""
    bench = await serve()
    for query in (f"u={quote(destination, safe='')}", f"u={quote(destination, safe='')}&u={quote(LANDING, safe='')}"):
        answer = await bench.get(f"/t/c/{TOKEN}?{query}")
        assert answer.status == 404
        assert "location" not in answer.headers
    assert bench.tracker.accepted["click"] == 0
    assert {event.refused for _, _, event in bench.events()} == {"another destination"}


@pytest.mark.parametrize(
    "page",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "https://shop.test/\r\nset-cookie: a=b",
        "https://shop.test/\nx",
        "\x00https://shop.test/",
        "ftp://shop.test/",
    ],
)
async def test_no_ticket_opens_what_no_browser_shall_follow(serve: Serve, page: str) -> None:
    """Other schemes and control characters are not redirected to, were they signed ten times."""
    bench = await serve()
    token = SIGNER.token(replace(TICKET, destination=SIGNER.destination(page)))
    answer = await bench.get(f"/t/c/{token}?u={quote(page, safe='')}")
    assert (answer.status, "location" in answer.headers, "set-cookie" in answer.headers) == (404, False, False)


async def test_a_location_is_ascii_on_one_line(serve: Serve) -> None:
    """Letters of any script, blanks and quotes are percent-encoded; what is encoded stays."""
    bench = await serve()
    page = 'https://shop.test/\u00fc \u7f8e"<%20>'
    token = SIGNER.token(replace(TICKET, destination=SIGNER.destination(page)))
    answer = await bench.get(f"/t/c/{token}?u={quote(page, safe='')}")
    assert answer.headers["location"] == "https://shop.test/%C3%BC%20%E7%BE%8E%22%3C%20%3E"


async def test_altered_tokens_are_refused(serve: Serve) -> None:
    """Whichever character is changed, the answer is 403 with a line, and nothing is accepted."""
    bench = await serve()
    for at in range(0, len(TOKEN), 7):
        altered = TOKEN[:at] + ("A" if TOKEN[at] != "A" else "B") + TOKEN[at + 1 :]
        for path in ("i", "b", "c", "v", "w", "l"):
            answer = await bench.get(f"/t/{path}/{altered}")
            assert (answer.status, answer.headers["cache-control"]) == (403, "no-store")
            assert answer.headers["x-rtb-error"]
    assert not any(bench.tracker.accepted.values())
    assert bench.told == []


@pytest.mark.parametrize("token", ["", "x", "%00", "a" * 5_000, "%C3%A9", "AAAA", "../../etc/passwd"])
async def test_what_is_no_token(serve: Serve, token: str) -> None:
    """Garbage of any kind is a 403 too."""
    bench = await serve()
    answer = await bench.get(f"/t/i/{token}")
    assert (answer.status, answer.body) == (403, b"malformed token\n")


async def test_an_impression_that_comes_too_late(serve: Serve) -> None:
    """In time to the very end of the window; after it 410, recorded as expired. A click may come later."""
    bench = await serve()
    bench.clock.advance(59.0)
    assert (await bench.get(f"/t/i/{TOKEN}")).status == 200
    bench.clock.advance(0.001)
    for path in ("i", "b"):
        answer = await bench.get(f"/t/{path}/{TOKEN}")
        assert (answer.status, answer.body) == (410, b"expired\n")
    assert (await bench.get(f"/t/c/{TOKEN}")).status == 204
    assert [(kind, event.refused) for kind, _, event in bench.events()] == [
        ("impression", ""),
        ("impression", "expired"),
        ("impression", "expired"),
        ("click", ""),
    ]
    assert bench.tracker.refused == {("impression", "expired"): 2}


async def test_refusals_are_recorded_up_to_a_rate(serve: Serve) -> None:
    """Three a second leave a record, with an id of their own each; the others are only counted."""
    bench = await serve(refused_per_s=3)
    for _ in range(10):
        await bench.get("/t/i/nonsense")
    assert [(event.refused, event.token) for _, _, event in bench.events()] == [("malformed token", "nonsense")] * 3
    assert len({message_id for _, message_id, _ in bench.events()}) == 3
    assert bench.tracker.refused == {("impression", "malformed token"): 10}
    bench.clock.advance(1.0)
    await bench.get("/t/i/nonsense")
    assert len(bench.events()) == 4


async def test_a_conversion_with_its_value(serve: Serve) -> None:
    """Value, currency and order come from the query; each order is an event of its own."""
    bench = await serve()
    for order in ("7", "8", "7"):
        target = f"/t/v/{TOKEN}?value=19.90&currency=eur&order={order}"
        assert (await bench.get(target)).body == GIF
    found = bench.events()
    assert [(e.value, e.currency, e.order_id) for _, _, e in found] == [
        (19.9, "EUR", "7"),
        (19.9, "EUR", "8"),
        (19.9, "EUR", "7"),
    ]
    ids = [message_id for _, message_id, _ in found]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    "query", ["value=x", "value=-1", "value=nan", "value=inf", "value=1e12", "currency=EURO", "order=" + "x" * 201]
)
async def test_a_conversion_of_nonsense(serve: Serve, query: str) -> None:
    """What is no amount, currency or order is a 400."""
    bench = await serve()
    assert (await bench.get(f"/t/v/{TOKEN}?{query}")).status == 400
    assert bench.tracker.refused == {("conversion", "invalid"): 1}


async def test_head_counts_nothing(serve: Serve) -> None:
    """Link checkers and previews ask with HEAD; other methods are not for pixels."""
    bench = await serve()
    assert (await bench.get(f"/t/i/{TOKEN}", method="HEAD")).status == 204
    assert (await bench.get(f"/t/c/{TOKEN}?u=x", method="HEAD")).status == 204
    assert (await bench.get(f"/t/i/{TOKEN}", method="PUT")).status == 405
    assert (await bench.get("/t/x/y")).status == 404
    assert bench.posted == []


async def test_the_address_a_proxy_tells(serve: Serve) -> None:
    """X-Forwarded-For is believed only when told to, and then its last entry, which the proxy itself has added."""
    header = "X-Forwarded-For: 6.6.6.6, 203.0.113.9"
    for trusted, address in ((False, "127.0.0.1"), (True, "203.0.113.9")):
        bench = await serve(trusted_proxy=trusted)
        await bench.get(f"/t/i/{TOKEN}", header)
        [(_, _, event)] = bench.events()
        assert event.ip == address


async def test_headers_are_those_of_the_request(serve: Serve) -> None:
    """On a connection that is kept, no request inherits another's."""
    bench = await serve()
    await bench.get(f"/t/i/{TOKEN}", "User-Agent: one")
    await bench.get("/elsewhere", "User-Agent: two")
    await bench.get(f"/t/i/{TOKEN}")
    assert [event.ua for _, _, event in bench.events()] == ["one", ""]


async def test_notices_of_other_bidders(serve: Serve) -> None:
    """Our nurl, lurl and burl on their bids reach who fires theirs, and post nothing; unknown sales are a 410."""
    bench = await serve()
    token = SIGNER.token(replace(TICKET, campaign_id="", auction_id="a9"))
    for path in ("w/{}?price=1.2", "l/{}?reason=102", "l/{}?reason=$%7BAUCTION_LOSS%7D", "l/{}", "b/{}"):
        assert (await bench.get("/t/" + path.format(token), "User-Agent: ua")).status == 204
    assert bench.told == [
        ("won", "a9", "1"),
        ("lost", "a9", "1", 102),
        ("lost", "a9", "1", 102),
        ("lost", "a9", "1", 102),
        ("billed", "a9", "1", "127.0.0.1", "ua"),
    ]
    bench.knows = False
    for path in ("w", "l", "b"):
        assert (await bench.get(f"/t/{path}/{token}")).status == 410
    assert bench.posted == []
    for path in ("i", "c", "v"):
        assert (await bench.get(f"/t/{path}/{token}")).status == 404


@pytest.mark.parametrize(
    ("wrong", "status", "body"),
    [
        (None, 204, b""),
        (Unroutable("no queue"), 410, b"the instance that sold it is gone\n"),
        (BrokerError("away"), 503, b"the event is not stored yet; send it again\n"),
    ],
    ids=["passed on", "gone", "broker away"],
)
async def test_notices_of_sales_elsewhere(serve: Serve, wrong: BrokerError | None, status: int, body: bytes) -> None:
    """They go to the queue of the instance in the ticket, and are answered when that has them."""
    bench = await serve(patience_s=60.0)
    bench.holds, bench.knows = True, False
    token = SIGNER.token(replace(TICKET, campaign_id="", auction_id="a9", instance="another"))
    for count, path in enumerate((f"w/{token}", f"l/{token}?reason=102", f"b/{token}"), 1):
        bench.send(f"/t/{path}", "User-Agent: ua")
        await bench.holding(count)
        bench.held[-1](wrong)
        answer = await bench.read()
        assert (answer.status, answer.body) == (status, body)
    assert {(exchange, key) for exchange, key, _ in bench.posted} == {("", "notices.another")}
    told = [BIDDER_NOTICE.decode(messages.decode(message.body).data) for _, _, message in bench.posted]
    assert told == [
        BidderNotice("win", "a9", "1", 102),
        BidderNotice("loss", "a9", "1", 102),
        BidderNotice("billing", "a9", "1", ip="127.0.0.1", ua="ua"),
    ]
    assert not any(message.persistent for _, _, message in bench.posted)
    assert sum(bench.tracker.forwarded.values()) == (3 if wrong is None else 0)
    gone = {(kind, "the instance that sold it is gone"): 1 for kind in ("win", "loss", "billing")}
    assert bench.tracker.refused == (gone if status == 410 else {})


async def test_notices_of_the_house(serve: Serve) -> None:
    """A burl is the impression, told by the exchange upstream; nurl and lurl are counted."""
    bench = await serve()
    for path in ("w", "l", "b"):
        answer = await bench.get(f"/t/{path}/{TOKEN}")
        assert (answer.status, answer.body) == (204, b"")
    [(kind, _, event)] = bench.events()
    assert (kind, event.source) == ("impression", "burl")
    assert bench.tracker.notices == {"win": 1, "loss": 1, "billing": 1}
    assert bench.told == []


async def test_the_pixel_is_answered_when_its_event_is_safe(serve: Serve) -> None:
    """Not before; answers of one connection keep their order."""
    bench = await serve(patience_s=60.0)
    bench.holds = True
    bench.send(f"/t/i/{TOKEN}")
    bench.send("/elsewhere")
    await bench.holding(1)
    reading = asyncio.ensure_future(bench.read())
    drained = asyncio.ensure_future(bench.responder.drained())
    for _ in range(10):
        await asyncio.sleep(0)
    assert (reading.done(), drained.done()) == (False, False)
    bench.held.pop()(None)
    assert (await reading).body == GIF
    assert (await bench.read()).status == 404
    await drained
    assert bench.tracker.unsafe == 0


async def test_an_event_that_has_just_come_is_under_way(serve: Serve) -> None:
    """Whoever waits in the step of the loop in which a request came waits for its event, too."""
    bench = await serve()
    posted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def drain() -> None:
        await bench.responder.drained()
        posted.set_result(len(bench.posted))

    bench.on_request = lambda: asyncio.ensure_future(drain())
    assert (await bench.get(f"/t/i/{TOKEN}")).status == 200
    assert await posted == 1


async def test_a_mistake_of_ours_costs_one_event(serve: Serve) -> None:
    """It is answered with a 500 in its place; what came with it is stored."""
    bench = await serve()
    bench.broken_routes.add("event.click")
    for kind in ("i", "c", "v"):
        bench.send(f"/t/{kind}/{TOKEN}")
    assert [(await bench.read()).status for _ in range(3)] == [200, 500, 200]
    assert [kind for kind, _, _ in bench.events()] == ["impression", "conversion"]


async def test_what_is_never_safe(serve: Serve) -> None:
    """With broker and disk away a pixel gets its gif and a redirect leaves, later and counted; servers get a 503."""
    bench = await serve(patience_s=0.02, redirect_s=0.01)
    bench.holds = True
    assert (await bench.get(f"/t/i/{TOKEN}")).body == GIF
    assert (await bench.get(f"/t/c/{TOKEN}?u={quote(LANDING, safe='')}")).status == 302
    assert (await bench.get(f"/t/b/{TOKEN}")).status == 503
    assert (await bench.tell_events({"type": "click", "token": TOKEN})).status == 503
    assert bench.tracker.unsafe == 4
    for done in bench.held:
        done(None)  # too late: nothing is answered twice
    assert (await bench.get("/elsewhere")).status == 404


async def test_what_the_outbox_drops(serve: Serve) -> None:
    """An error from the outbox is as bad as silence: 503 for a server, and its repetition is accepted."""
    bench = await serve()
    bench.holds = True
    bench.send(f"/t/b/{TOKEN}")
    await bench.holding(1)
    bench.held.pop()(BrokerError("no queue is bound"))
    assert (await bench.read()).status == 503
    assert bench.tracker.unsafe == 1
    bench.holds = False
    assert (await bench.get(f"/t/b/{TOKEN}")).status == 204


async def test_one_posted_event(serve: Serve) -> None:
    """An object is a batch of one; user agent and address are the device's, not the server's."""
    bench = await serve()
    event = {"type": "impression", "token": TOKEN, "user_agent": "device", "ip": "2001:db8::1"}
    answer = await bench.tell_events(event, "User-Agent: server")
    assert (answer.status, answer.verdicts) == (200, [""])
    assert answer.headers["content-type"] == "application/json"
    [(kind, message_id, told)] = bench.events()
    assert (kind, message_id) == ("impression", "a1:1:impression")
    assert (told.source, told.ua, told.ip) == ("postback", "device", "2001:db8::1")


async def test_a_batch_has_a_verdict_on_each(serve: Serve) -> None:
    """In order: good ones are accepted, whatever stands beside them."""
    bench = await serve()
    bench.clock.advance(60.0)
    other = SIGNER.token(replace(TICKET, campaign_id=""))
    answer = await bench.tell_events(
        [
            {"type": "click", "token": TOKEN},
            {"type": "impression", "token": TOKEN},
            {"type": "conversion", "token": TOKEN, "value": 5, "currency": "EUR", "order_id": "1"},
            {"type": "click", "token": TOKEN[:-1] + "!"},
            {"type": "click"},
            {"type": "view", "token": TOKEN},
            {"type": "click", "token": TOKEN, "campaign_id": "d"},
            {"type": "click", "token": TOKEN, "campaign_id": "c"},
            {"type": "conversion", "token": TOKEN, "value": -1},
            {"type": "click", "token": other},
            7,
            {"type": "conversion", "token": TOKEN, "currency": "euro"},
        ]
    )
    verdicts = answer.verdicts
    assert answer.status == 200
    assert [verdicts[i] for i in (0, 1, 2, 3, 4, 6, 7, 9)] == [
        "",
        "expired",
        "",
        "malformed token",
        "no token",
        "token of another campaign",
        "",
        "token of another bidder's win",
    ]
    assert [verdicts[i] for i in (5, 8, 10, 11)] == [
        "event.type: choose one of impression, click, conversion",
        "event.value: expected `float` >= 0.0",
        "event: expected `object`, got `int`",
        "event.currency: write three capital letters, as in EUR",
    ]
    assert [kind for kind, _, event in bench.events() if not event.refused] == ["click", "conversion", "click"]


async def test_conversions_without_a_token_need_the_secret(serve: Serve) -> None:
    """The advertiser's server shows the bearer token, and names campaign, user and order; else nothing is accepted."""
    conversion = {"type": "conversion", "campaign_id": "c", "user_id": "u", "order_id": "7", "value": 3.5}
    bench = await serve(postback_secret="s3cret")
    for header in ("X: y", "Authorization: Bearer wrong", "Authorization: s3cret", "Authorization: Bearer "):
        assert (await bench.tell_events(conversion, header)).verdicts == ["unauthorized"]
    known = "Authorization: Bearer s3cret"
    assert (await bench.tell_events([conversion, conversion], known)).verdicts == ["", ""]
    first, second = bench.events()
    assert first == second
    assert (first[0], first[2].campaign_id, first[2].user_id, first[2].value) == ("conversion", "c", "u", 3.5)
    for missing in ("campaign_id", "user_id", "order_id"):
        assert (await bench.tell_events({**conversion, missing: ""}, known)).verdicts == ["no token"]
    assert (await bench.tell_events({**conversion, "type": "click"}, known)).verdicts == ["no token"]
    closed = await serve()
    assert (await closed.tell_events(conversion, "Authorization: Bearer ")).verdicts == ["unauthorized"]


@pytest.mark.parametrize("body", [b"", b"x", b"[", b"7", b'"x"', b"{}", b"[" * 5_000, b'[{"type":"click"}]\xff'])
async def test_what_is_no_batch(serve: Serve, body: bytes) -> None:
    """A 400 that says why."""
    bench = await serve()
    bench.send("/events", method="POST", body=body)
    answer = await bench.read()
    assert answer.status == 400
    assert answer.headers["x-rtb-error"]


async def test_an_empty_batch_and_one_too_large(serve: Serve) -> None:
    """Nothing is nothing; 1,001 are refused as a whole."""
    bench = await serve()
    assert (await bench.tell_events([])).verdicts == []
    answer = await bench.tell_events([{"type": "click", "token": "x"}] * 1_001)
    assert answer.status == 400
    assert (await bench.get("/events")).status == 405
    assert bench.posted == []


async def test_a_thousand_events_at_once(serve: Serve) -> None:
    """The answer comes after the last of them is safe."""
    bench = await serve(patience_s=60.0)
    bench.holds = True
    body = [{"type": "click", "token": TOKEN}] * 1_000
    asking = asyncio.ensure_future(bench.tell_events(body))
    await bench.holding(1_000)
    for done in bench.held[:-1]:
        done(None)
    await asyncio.sleep(0)
    assert not asking.done()
    bench.held[-1](None)
    assert (await asking).verdicts == [""] * 1_000
    assert MessageType.CLICK.value == bench.events()[0][0]
