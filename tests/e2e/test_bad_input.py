"""Nothing that a client sends breaks a running daemon: afterwards it answers a good auction and has not complained."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtb.openrtb import MAX_DEPTH
from tests.support.daemon import Daemon, bids
from tests.support.http import AUCTION, Http, Response, fetch, post, request
from tests.support.samples import bid_request, campaign, imp

LIMIT = 262_144
GOOD = msgspec.json.encode(bid_request())
HOST = {"host": "exchange.test"}
HEADERS = {**HOST, "content-type": "application/json"}
GZIP = {"content-encoding": "gzip"}
DEFLATE = {"content-encoding": "deflate"}
PATIENT = ("http.request_timeout_s=120", "http.idle_timeout_s=120", "auction.deadline_ms=60000")
HURRIED = ("http.request_timeout_s=1", "http.idle_timeout_s=3", "auction.deadline_ms=60000")


@pytest.fixture(scope="module")
def one_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It has one campaign for everyone, and all the time for clients and auctions: on a busy machine a client stalls in
    the middle of a request, and the last of many that come at once waits longer than the usual 100 ms."""
    folder = tmp_path_factory.mktemp("bad-input")
    with Daemon(folder, *PATIENT) as daemon:
        daemon.put_campaigns(campaign("shoes"))
        yield daemon


@pytest.fixture
def daemon(one_daemon: Daemon) -> Iterator[Daemon]:
    """The daemon, checked after each test."""
    yield one_daemon
    assert sold(one_daemon.auction(bid_request()))
    assert one_daemon.complaints() == []


def sold(response: Response, request_id: str = "request-1") -> bool:
    """Whether it is the answer to a good request: "shoes" alone, at the floor."""
    answer = bids(response)
    prices = [bid.price for seat in answer.seatbid or () for bid in seat.bid or ()]
    return answer.id == request_id and prices == [0.5]


def chunked(*chunks: bytes) -> bytes:
    """A chunked body [RFC 9112 7.1]."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def chunked_post(body: bytes) -> bytes:
    """A POST with a body that is chunked already."""
    return request("POST", AUCTION, {**HEADERS, "transfer-encoding": "chunked"}) + body


def with_field(text: str) -> bytes:
    """The good request with one more field, written as JSON text."""
    return GOOD[:-1] + b"," + text.encode() + b"}"


def raw_deflate(data: bytes) -> bytes:
    """DEFLATE without the zlib format around it, which the header's "deflate" does not mean [RFC 9110 8.4.1.2]."""
    return zlib.compress(data)[2:-4]


NOISE = random.Random(7)
BROKEN_BODIES = {
    "empty": (b"", "the body is not JSON"),
    "a word": (b"hello", "the body is not JSON"),
    "random bytes": (NOISE.randbytes(2_000), "the body is not JSON"),
    "half": (GOOD[: len(GOOD) // 2], "the body is not JSON"),
    "two": (GOOD + GOOD, "the body is not JSON"),
    "null": (b"null", "the body"),
    "an array": (b"[]", "the body"),
    "a number": (b"1e999", "the body"),
    "NaN": (with_field('"tmax":NaN'), "the body is not JSON"),
    "Infinity": (with_field('"tmax":Infinity'), "the body is not JSON"),
    "a float too large": (b'{"id":"1","imp":[{"id":"1","banner":{},"bidfloor":1e999}]}', ""),
    "an absurd floor": (b'{"id":"1","imp":[{"id":"1","banner":{},"bidfloor":1e300}]}', "imp[0].bidfloor"),
    "a negative floor": (b'{"id":"1","imp":[{"id":"1","banner":{},"bidfloor":-0.01}]}', "imp[0].bidfloor"),
    "an integer of 5,000 digits": (with_field('"tmax":' + "9" * 5_000), "tmax"),
    "an integer above 64 bits": (with_field('"at":18446744073709551616'), "at"),
    "an unknown auction type": (with_field('"at":500'), "at"),
    "not UTF-8": (GOOD.replace(b"request-1", b"\xff\xfe"), "the body is not JSON"),
    "half a surrogate pair": (GOOD.replace(b"request-1", rb"\ud800"), "the body is not JSON"),
    "a control character": (GOOD.replace(b"request-1", b"request\n1"), "the body is not JSON"),
    "no id": (b'{"imp":[{"id":"1","banner":{}}]}', "id"),
    "no imp": (b'{"id":"1","imp":[]}', "imp"),
    "too many imps": (msgspec.json.encode(bid_request(imp=[imp(id=str(n)) for n in range(65)])), "imp"),
    "a line break in an id": (msgspec.json.encode(bid_request(imp=[imp(id="a\r\nx-evil: 1")] * 2)), "imp[1].id"),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_body_that_is_no_bid_request_is_a_400_with_its_reason_on_one_line(daemon: Daemon, name: str) -> None:
    """The reason stands in the body and in x-rtb-error, and the connection goes on."""
    body, reason = BROKEN_BODIES[name]
    with Http(daemon.url) as http:
        answer = http.exchange(post(body))
        assert answer.status == 400
        assert answer.error.startswith(reason)
        assert "x-evil" not in answer.headers
        assert answer.body.count(b"\n") == 1
        assert answer.body.endswith(b"\n")
        assert sold(http.exchange(post(GOOD)))


@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 1_100, 40_000])
def test_deep_nesting_is_a_413(daemon: Daemon, brackets: str, depth: int) -> None:
    """The whole body counts, the request itself is a level of it; brackets within strings are none."""
    opening, closing = brackets[:-1], brackets[-1]
    deep = '"ext":' + opening * depth + ("1" if opening != "[" else "") + closing * depth
    answer = fetch(daemon.url, post(with_field(deep)))
    assert answer.status == 413
    assert f"deeper than {MAX_DEPTH} levels" in answer.error
    unclosed = fetch(daemon.url, post(with_field('"ext":' + opening * depth)))
    assert unclosed.status == 413
    assert sold(fetch(daemon.url, post(with_field('"ext":"' + "[{" * depth + '"'))))


def test_nesting_up_to_the_limit_is_fine(daemon: Daemon) -> None:
    """One level less."""
    assert sold(fetch(daemon.url, post(with_field('"ext":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)))))


def test_no_value_of_a_wrong_type_anywhere_is_more_than_a_400(daemon: Daemon) -> None:
    """Every value of a rich request is replaced by every kind of wrong one, one at a time."""
    rich = bid_request(
        imp=[
            imp(pmp={"private_auction": 0, "deals": [{"id": "d", "bidfloor": 1.0, "at": 1, "wseat": ["s"]}]}),
            {"id": "2", "video": {"mimes": ["video/mp4"], "maxduration": 30, "durfloors": [{"mindur": 1}]}},
            {"id": "3", "native": {"request": "{}"}, "qty": {"multiplier": 1.5}},
            {"id": "4", "audio": {"mimes": ["audio/mp4"]}, "metric": [{"type": "viewability", "value": 0.5}]},
        ],
        user={"id": "u", "keywords": "a,b", "data": [{"segment": [{"id": "s"}]}], "ext": {"consent": "c"}},
        regs={"gdpr": 1, "ext": {"us_privacy": "1---"}},
        source={"schain": {"complete": 1, "nodes": [{"asi": "a", "sid": "b", "hp": 1}]}},
        cur=["USD"], wseat=["shoes-inc"], bcat=["IAB7"], badv=["x.test"], wlang=["ko"], at=2, test=0, ext={"rtb": {}},
    )  # fmt: skip
    wrong: list[Any] = [None, True, -1, 0, 1.5, 2**70, "", "x", [], [[]], [None], {}, {"id": {}}]
    statuses = set()
    with Http(daemon.url) as http:
        for path in _paths(rich):
            for value in wrong:
                mutant = deepcopy(rich)
                _replace(mutant, path, value)
                answer = http.exchange(post(msgspec.json.encode(mutant)))
                assert answer.status in (200, 204, 400), (path, value, answer)
                assert answer.status != 400 or answer.error, (path, value)
                statuses.add(answer.status)
    assert statuses == {200, 204, 400}


def test_no_flipped_cut_or_inserted_byte_is_more_than_a_400(daemon: Daemon) -> None:
    """3,000 mutants of a good request, the same ones in every run."""
    noise = random.Random(11)
    with Http(daemon.url) as http:
        for _ in range(3_000):
            mutant = bytearray(GOOD)
            for _ in range(noise.randint(1, 4)):
                at = noise.randrange(len(mutant))
                mutant[at : at + noise.randint(0, 3)] = noise.randbytes(noise.randint(0, 2))
            answer = http.exchange(post(bytes(mutant)))
            assert answer.status in (200, 204, 400), (bytes(mutant), answer)


def test_a_body_over_the_limit_is_refused_before_it_is_sent(daemon: Daemon) -> None:
    """Its content-length is enough for a 413; the connection is over."""
    with Http(daemon.url) as http:
        answer = http.exchange(request("POST", AUCTION, {**HEADERS, "content-length": str(10 * 1024 * 1024)}))
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert http.is_closed()


def test_a_sender_of_10_mb_is_cut_off(daemon: Daemon) -> None:
    """Who sends on regardless finds the connection closed, with or without having read the 413."""
    with Http(daemon.url) as http:
        http.send_as_far_as_it_goes(post(b" " * (10 * 1024 * 1024)))
        try:
            assert http.receive().status == 413
        except ConnectionError:
            pass
        assert http.is_closed()


def test_the_limit_itself_is_inside(daemon: Daemon) -> None:
    """262,144 bytes are taken, one more is not."""
    assert sold(fetch(daemon.url, post(GOOD.ljust(LIMIT))))
    assert fetch(daemon.url, post(GOOD.ljust(LIMIT + 1))).status == 413


def test_chunked_bodies(daemon: Daemon) -> None:
    """They are auctioned like others, in whatever pieces they come; too large ones are a 413, wrong ones a 400."""
    pieces = [GOOD[i : i + 7] for i in range(0, len(GOOD), 7)]
    with Http(daemon.url) as http:
        assert sold(http.exchange(chunked_post(chunked(GOOD))))
        assert sold(http.exchange(chunked_post(chunked(*pieces))))
        assert sold(http.exchange(chunked_post(chunked(GOOD).replace(b"0\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"))))
        for byte in chunked_post(chunked(GOOD)):
            http.send(bytes([byte]))
        assert sold(http.receive())
    assert fetch(daemon.url, chunked_post(chunked(b" " * LIMIT, b" "))).status == 413
    assert fetch(daemon.url, chunked_post(b"zz\r\n")).status == 400
    assert fetch(daemon.url, chunked_post(b"ffffffffffffffffff\r\n")).status == 400
    assert fetch(daemon.url, chunked_post(b"-1\r\n")).status == 400


def test_a_body_in_chunks_of_one_byte_costs_no_more_than_its_bytes(daemon: Daemon) -> None:
    """The largest body, one byte a chunk: 1.5 MB on the wire, and still an auction."""
    assert sold(fetch(daemon.url, chunked_post(chunked(*(bytes([byte]) for byte in GOOD.ljust(LIMIT))))))


@pytest.mark.parametrize("ending", ["header", "trailer"])
def test_a_line_without_end_is_cut_off(daemon: Daemon, ending: str) -> None:
    """A header or a trailer that goes on for 16 MB does not stand in memory."""
    start = request("POST", AUCTION, HEADERS)[:-2] + b"x: " if ending == "header" else chunked_post(b"0\r\nx: ")
    with Http(daemon.url) as http:
        http.send_as_far_as_it_goes(start + b"x" * (16 * 1024 * 1024))
        try:
            assert http.receive().status in (400, 413, 431)
        except ConnectionError:
            pass
        assert http.is_closed()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (GZIP, gzip.compress(GOOD)),
        (DEFLATE, zlib.compress(GOOD)),
        ({"content-encoding": "GZip"}, gzip.compress(GOOD)),
        ({"content-encoding": "identity"}, GOOD),
        (GZIP, gzip.compress(GOOD.ljust(LIMIT))),
    ],
)
def test_compressed_bodies_are_auctioned(daemon: Daemon, headers: dict[str, str], body: bytes) -> None:
    """gzip and deflate [OpenRTB 2.6 2.4], up to the limit of a body that is not."""
    assert sold(fetch(daemon.url, post(body, headers)))


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (GZIP, GOOD, "content-encoding: the body is not what the header says"),
        (DEFLATE, GOOD, "content-encoding: the body is not what the header says"),
        (DEFLATE, raw_deflate(GOOD), "content-encoding: the body is not what the header says"),
        (GZIP, gzip.compress(GOOD)[:-9], "content-encoding: the compressed body ends early"),
        (GZIP, b"", "content-encoding: the compressed body ends early"),
        (GZIP, gzip.compress(GOOD)[:40] + b"\xff" * 40, "content-encoding: the body is not what the header says"),
        (GZIP, gzip.compress(b" " * 50_000_000), "the body is over 262144 bytes"),
        (DEFLATE, zlib.compress(b" " * 50_000_000), "the body is over 262144 bytes"),
        (GZIP, gzip.compress(gzip.compress(b" " * 50_000_000)), "the body is not JSON"),
        (GZIP, gzip.compress(b"not JSON"), "the body is not JSON"),
        ({"content-encoding": "br"}, GOOD, "content-encoding: 'br' is not supported"),
        ({"content-encoding": "gzip, gzip"}, gzip.compress(gzip.compress(GOOD)), "content-encoding: 'gzip, gzip'"),
    ],
)
def test_bad_compression_is_a_400(daemon: Daemon, headers: dict[str, str], body: bytes, reason: str) -> None:
    """Also a bomb: 50 KB that would be 50 MB are not unpacked beyond the limit."""
    answer = fetch(daemon.url, post(body, headers))
    assert (answer.status, answer.error[: len(reason)]) == (400, reason)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NOISE.randbytes(200),  # a TLS ClientHello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz FTP/1.1\r\n\r\n",
        b"SPLICE / HTTP/1.1\r\n\r\n",
        NOISE.randbytes(5_000),
        request("POST", AUCTION, {**HEADERS, "content-length": "-5"}),
        request("POST", AUCTION, {**HEADERS, "content-length": "abc"}),
        request("POST", AUCTION, {**HEADERS, "content-length": ""}),
        request("POST", AUCTION, {**HEADERS, "content-length": "9" * 40}),
        request("POST", AUCTION, {**HEADERS, "content-length": "5", "transfer-encoding": "chunked"}),
        request("POST", AUCTION, {**HEADERS, "transfer-encoding": "gzip"}) + GOOD,
        b"POST " + AUCTION.encode() + b" HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST " + AUCTION.encode() + b" HTTP/1.1\r\nbad header: 1\r\n\r\n",
        b"POST " + AUCTION.encode() + b" HTTP/1.1\r\nx: a\x00b\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_400_and_the_end_of_the_connection(daemon: Daemon, data: bytes) -> None:
    """The rest of such a stream cannot be trusted."""
    with Http(daemon.url) as http:
        http.send(data)
        answer = http.receive()
        assert answer.status in (400, 413)
        assert answer.error
        assert answer.headers["connection"] == "close"
        assert http.is_closed()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", AUCTION, 405), ("PUT", AUCTION, 405), ("DELETE", "/healthz", 405),
        ("POST", "/", 404), ("POST", "/openrtb2/auction/", 404), ("GET", "/../etc/passwd", 404), ("GET", "*", 404),
        ("POST", "/openrtb2/%61uction", 404), ("GET", "/healthz?deep=1", 200), ("POST", "/metrics", 405),
    ],
)  # fmt: skip
def test_wrong_methods_and_paths(daemon: Daemon, method: str, path: str, status: int) -> None:
    """405 names the right methods, 404 the right path; the connection goes on."""
    with Http(daemon.url) as http:
        answer = http.exchange(request(method, path, {**HOST, "content-length": "0"}))
        assert answer.status == status
        assert ("allow" in answer.headers) == (status == 405)
        assert sold(http.exchange(post(GOOD)))


def test_head_has_the_headers_of_get_and_never_a_body(daemon: Daemon) -> None:
    """Whatever the answer, the next response on the connection begins where it should."""
    with Http(daemon.url) as http:
        page = http.exchange(request("GET", "/healthz", HOST))
        assert http.exchange(request("HEAD", "/healthz", HOST), head=True).headers == page.headers
        assert http.exchange(request("HEAD", AUCTION, HOST), head=True).status == 405
        assert http.exchange(request("HEAD", "/nothing", HOST), head=True).status == 404
        assert sold(http.exchange(post(GOOD)))


def test_too_many_headers_and_too_long_targets(daemon: Daemon) -> None:
    """16 KiB each are the most."""
    many = {f"x-header-{n}": "x" * 100 for n in range(200)}
    assert fetch(daemon.url, request("POST", AUCTION, {**HEADERS, **many})).status == 431
    assert fetch(daemon.url, request("POST", AUCTION, {**HEADERS, "cookie": "x" * 17_000})).status == 431
    assert fetch(daemon.url, request("GET", "/" + "x" * 17_000, HOST)).status == 414
    few = {f"x-header-{n}": "x" * 100 for n in range(100)}
    assert sold(fetch(daemon.url, post(GOOD, few)))


def test_a_client_that_asks_before_it_sends_is_told_to_continue(daemon: Daemon) -> None:
    """Expect: 100-continue [RFC 9110 10.1.1]; a body over the limit gets its 413 instead."""
    with Http(daemon.url) as http:
        head = {**HEADERS, "expect": "100-continue", "content-length": str(len(GOOD))}
        assert http.exchange(request("POST", AUCTION, head)).status == 100
        assert sold(http.exchange(GOOD))
    head = {**HEADERS, "expect": "100-continue", "content-length": str(LIMIT + 1)}
    assert fetch(daemon.url, request("POST", AUCTION, head)).status == 413


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_offer_to_upgrade_is_declined_by_an_answer_in_http_1_1(daemon: Daemon, protocol: str) -> None:
    """One answer, to the whole request, and what follows on the connection is not read [RFC 9110 7.8]."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": protocol, "http2-settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    with Http(daemon.url) as http:
        assert sold(http.exchange(post(gzip.compress(GOOD), {**offer, **GZIP})))
        assert http.is_closed()
    with Http(daemon.url) as http:
        head = request("POST", AUCTION, {**HEADERS, **offer, "transfer-encoding": "chunked"})
        assert sold(http.exchange(head + chunked(GOOD[:50], GOOD[50:])))
        assert http.is_closed()
    with Http(daemon.url) as http:
        head = request(
            "POST", AUCTION, {**HEADERS, **offer, "expect": "100-continue", "content-length": str(len(GOOD))}
        )
        assert http.exchange(head).status == 100
        assert sold(http.exchange(GOOD))
        assert http.is_closed()
    with Http(daemon.url) as http:
        assert http.exchange(request("GET", "/healthz", {**HOST, **offer})).status == 200
        assert http.is_closed()


def test_it_is_no_proxy(daemon: Daemon) -> None:
    """CONNECT ends the connection."""
    with Http(daemon.url) as http:
        assert http.exchange(request("CONNECT", "exchange.test:443", HOST) + b"\x16\x03\x01").status == 405
        assert http.is_closed()


def test_http_1_0_is_answered_and_closed(daemon: Daemon) -> None:
    """A client of 1996 reads to the end."""
    with Http(daemon.url) as http:
        answer = http.exchange(request("POST", AUCTION, {"content-length": str(len(GOOD))}, version="1.0") + GOOD)
        assert sold(answer)
        assert answer.headers["connection"] == "close"
        assert http.is_closed()


def test_connection_close_is_obeyed(daemon: Daemon) -> None:
    """And said in the answer [RFC 9112 9.6]."""
    with Http(daemon.url) as http:
        answer = http.exchange(post(GOOD, {"connection": "close"}))
        assert sold(answer)
        assert answer.headers["connection"] == "close"
        assert http.is_closed()


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    """300 at once, good and bad and pages among them."""
    names = [f"r{n}" for n in range(300)]
    stream = b""
    for n, name in enumerate(names):
        stream += post(msgspec.json.encode(bid_request(id=name)))
        if n % 10 == 0:
            stream += post(b"{}") + request("HEAD", "/healthz", HOST) + request("GET", "/healthz", HOST)
    with Http(daemon.url) as http:
        http.send(stream)
        for n, name in enumerate(names):
            assert sold(http.receive(), name)
            if n % 10 == 0:
                assert http.receive().status == 400
                assert http.receive(head=True).body == b""
                assert msgspec.json.decode(http.receive().body)["status"] == "ok"


def test_a_client_that_never_reads_is_not_read_from_for_ever(daemon: Daemon) -> None:
    """Its responses do not pile up: once it has sent more than sockets hold, its sending stands still."""
    page = request("GET", "/healthz", HOST)
    with Http(daemon.url) as http:
        assert not http.can_send(page * (16 * 1024 * 1024 // len(page)))
        assert sold(daemon.auction(bid_request()))


def test_slow_senders_and_idle_connections_are_cut_off(tmp_path: Path) -> None:
    """A request that does not come to its end within request_timeout_s, wherever it stands, ends the connection;
    so does silence of idle_timeout_s, on a new connection and on a used one."""
    whole = post(GOOD)
    with (
        Daemon(tmp_path, *HURRIED) as daemon,
        Http(daemon.url) as in_line,
        Http(daemon.url) as in_headers,
        Http(daemon.url) as in_body,
        Http(daemon.url) as new,
        Http(daemon.url) as used,
    ):
        assert used.exchange(whole).status == 204
        in_line.send(whole[:7])
        in_headers.send(whole[:40])
        in_body.send(whole[:-1])
        assert in_line.is_closed()
        assert in_headers.is_closed()
        assert in_body.is_closed()
        assert new.is_closed()
        assert used.is_closed()


@pytest.mark.parametrize("part", [0, 1, 20, 60, 150, len(post(GOOD)) - 1])
def test_a_client_that_leaves_half_way(daemon: Daemon, part: int) -> None:
    """It gets nothing, and nobody notices."""
    with Http(daemon.url) as http:
        http.send(post(GOOD)[:part])
        http.half_close()
        assert http.is_closed()
    with Http(daemon.url) as http:
        http.send(post(GOOD)[:part])


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _replace(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new
