"""Requests to servers outside: what comes back, what servers do wrong, and where they may not lead."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from rtb.adapters.lean_http import LeanHttp
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import HttpClient, HttpResponse, Method
from tests.support.http_server import HANG, RESET, HttpServer, Reply

LOCAL = ("127.0.0.0/8",)
Make = Callable[..., HttpClient]


class Names(AbstractResolver):
    """A name server of the test's own: each look-up of a name takes the next of its answers, the last for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer."""
        self.asked.append(host)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing to close."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A server outside."""
    async with HttpServer() as running:
        yield running


@pytest.fixture(params=[OutgoingHttp, LeanHttp])
def client_of(request: pytest.FixtureRequest) -> Make:
    """Each of the clients; they behave alike."""
    made: Make = request.param
    return made


class Patient:
    """A client whose calls have plenty of time, however busy the machine, unless they say otherwise."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def send(self, method: Method, url: str, **options: Any) -> HttpResponse:
        return await self._http.send(method, url, **{"timeout_s": 60.0, **options})

    async def close(self) -> None:
        await self._http.close()


@pytest_asyncio.fixture
async def make(client_of: Make) -> AsyncIterator[Make]:
    """``make(**arguments)``: a client that is closed after the test."""
    clients: list[HttpClient] = []

    def client(**arguments: Any) -> HttpClient:
        clients.append(Patient(client_of(**arguments)))
        return clients[-1]

    yield client
    for made in clients:
        await made.close()


@pytest.fixture
def http(make: Make) -> HttpClient:
    """A client that may go to this machine."""
    return make(allow=LOCAL)


async def test_a_request_arrives_as_it_was_sent(server: HttpServer, http: HttpClient) -> None:
    """Method, target to the letter, headers and body; status, headers in lower case and body come back."""
    server.replies.append(Reply(418, {"X-Kind": "pot"}, b"short and stout"))
    target = "/a%2fb%41/?sig=%2B+~'()*!$,;:@&x=%7E"
    response = await http.send("POST", server.url(target), headers={"X-Device-User-Agent": "ua"}, body=b"tea")
    assert (response.status, response.headers["x-kind"], response.body, response.whole) == (
        418,
        "pot",
        b"short and stout",
        True,
    )
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", target, b"tea")
    assert (request.headers["x-device-user-agent"], request.headers["user-agent"]) == ("ua", "rtb")


async def test_characters_that_no_url_has_are_encoded(server: HttpServer, http: HttpClient) -> None:
    """Bidders write them: letters beyond ASCII as UTF-8, a space in the query as +, spaces around not at all."""
    await http.send("GET", f"  {server.url('/a b/é?q=ü x')} ")
    assert server.targets == ["/a%20b/%C3%A9?q=%C3%BC+x"]


async def test_connections_are_used_again(server: HttpServer, http: HttpClient) -> None:
    """One after the other on one connection."""
    for _ in range(3):
        assert (await http.send("GET", server.url())).status == 204
    assert server.connections == 1


async def test_a_connection_that_the_server_closed_meanwhile_costs_nothing(
    server: HttpServer, http: HttpClient
) -> None:
    """The server is free to close an idle one without a word; a GET is sent again on a new one, and nobody notices."""
    server.replies.append(Reply(200, close=True))
    assert (await http.send("GET", server.url("/1"))).status == 200
    assert (await http.send("GET", server.url("/2"))).status == 204
    assert server.targets == ["/1", "/2"]


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\n", 200, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nx-more: 1\r\nContent-Length: 3\r\n\r\nabc", 204, b""),
    ],
    ids=["eof", "1.0", "chunked", "hints", "two-answers"],
)
async def test_every_way_to_answer_is_understood(
    server: HttpServer, http: HttpClient, raw: bytes, status: int, body: bytes
) -> None:
    """RFC 9112: a body by chunks, by length or to the connection's end; hints first; a second answer is nobody's."""
    server.replies.append(Reply(raw=raw))
    response = await http.send("GET", server.url())
    assert (response.status, response.body, response.whole) == (status, body, True)
    assert "x-more" not in response.headers
    assert (await http.send("GET", server.url())).status == 204


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `cert` and `key`, signed by themselves, for dsp.test."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and it is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=dsp.test"
    files = ["-addext", "subjectAltName=DNS:dsp.test", "-keyout", "key", "-out", "cert"]
    subprocess.run([*command.split(), *files], cwd=folder, check=True, capture_output=True)
    return folder


async def test_certificates_are_checked(make: Make, certificate: Path) -> None:
    """By the system's authorities and those given, and against the host's name."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate / "cert", certificate / "key")
    names = Names(dsp_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    trusting = make(allow=LOCAL, resolver=names, tls=ssl.create_default_context(cafile=str(certificate / "cert")))
    async with HttpServer(tls=ours) as server:
        assert (await trusting.send("GET", server.url(host="dsp.test"))).status == 204
        with pytest.raises(HttpError, match="certificate"):
            await trusting.send("GET", server.url(host="other.test"))
        with pytest.raises(HttpError, match="certificate"):
            await make(allow=LOCAL, resolver=names).send("GET", server.url(host="dsp.test"))
        assert len(server.requests) == 1


async def test_connections_to_one_host_are_limited(make: Make, server: HttpServer) -> None:
    """Twelve requests at once over two connections; who waits for one waits within its timeout."""
    client = make(allow=LOCAL, connections_per_host=2)
    server.hold.clear()
    under_way = [asyncio.create_task(client.send("GET", server.url())) for _ in range(12)]
    await server.asked(2)
    with pytest.raises(HttpError, match=r"did not answer in 0\.05 s"):
        await client.send("GET", server.url(), timeout_s=0.05)
    server.hold.set()
    assert {response.status for response in await asyncio.gather(*under_way)} == {204}
    assert server.most_at_once == 2


async def test_a_redirect_is_an_answer(server: HttpServer, http: HttpClient) -> None:
    """It is not followed, wherever it leads."""
    server.replies.append(Reply(302, {"location": server.url("/elsewhere")}))
    response = await http.send("GET", server.url("/first"))
    assert (response.status, server.targets) == (302, ["/first"])


async def test_cookies_are_not_kept(server: HttpServer, http: HttpClient) -> None:
    """What a server wants to have remembered is not told to it again."""
    server.replies.append(Reply(200, {"set-cookie": "a=b; path=/"}))
    await http.send("GET", server.url("/1"))
    await http.send("GET", server.url("/2"))
    assert "cookie" not in server.requests[1].headers


async def test_a_huge_body_is_cut(server: HttpServer, http: HttpClient) -> None:
    """No more than the limit is kept, and the connection is closed instead of read to its end."""
    server.default = Reply(200, body=b"x" * 1_000_000)
    response = await http.send("GET", server.url(), max_body=1_000)
    assert (response.status, response.body, response.whole) == (200, b"x" * 1_000, False)
    await http.send("GET", server.url(), max_body=1_000_000)
    assert server.connections == 2


async def test_the_limit_counts_bytes_after_decompression(server: HttpServer, http: HttpClient) -> None:
    """A small body that becomes a large one is cut as a large one."""
    packed = gzip.compress(bytes(50_000_000))
    assert len(packed) < 100_000
    server.default = Reply(200, {"content-encoding": "gzip"}, packed)
    response = await http.send("GET", server.url(), max_body=1_000)
    assert (len(response.body), response.whole) == (1_000, False)


@pytest.mark.parametrize(
    ("reply", "timeout_s", "reason"),
    [
        (HANG, 0.3, "did not answer in"),
        (RESET, 60.0, "http://127.0.0.1"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), 60.0, "http://127.0.0.1"),
        (Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), 60.0, "http://127.0.0.1"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000), 60.0, "http://127.0.0.1"),
    ],
    ids=["never", "rst", "half", "no-http", "endless-header"],
)
async def test_a_bad_server_is_one_error(
    server: HttpServer, http: HttpClient, reply: Reply, timeout_s: float, reason: str
) -> None:
    """Whatever it does wrong, in one line that names the server but neither path nor query."""
    server.default = reply
    with pytest.raises(HttpError, match=reason) as caught:
        await http.send("GET", server.url("/secret?token=1"), timeout_s=timeout_s)
    assert not isinstance(caught.value, HttpRefused)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_nobody_there_is_an_error(http: HttpClient) -> None:
    """A closed port."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(HttpError, match=r"127\.0\.0\.1"):
            await http.send("GET", f"http://127.0.0.1:{closed.getsockname()[1]}/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "dsp.test/win",
        "//dsp.test/win",
        "file:///etc/passwd",
        "ftp://dsp.test/",
        "javascript:alert(1)",
        "http://",
        "http:///win",
        "http://dsp.test:99999/",
        "http://dsp.test:x/",
        "http://[::1/",
        "http://good.test\\@127.0.0.1/",
        "http://dsp.test/" + "x" * 10_000,
    ],
)
async def test_what_is_no_web_address_is_refused(http: HttpClient, url: str) -> None:
    """Only absolute http and https URLs of a bearable length."""
    with pytest.raises(HttpRefused):
        await http.send("GET", url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0",
        "0x7f000001",
        "0177.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "\u2460\u2461\u2466.0.0.1",
        "localhost",
        "LOCALHOST.",
        "user@127.0.0.1",
        "dsp.test@127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "169.254.169.254",
    ],
)
async def test_every_way_to_write_an_internal_address_is_refused(make: Make, server: HttpServer, host: str) -> None:
    """With the system's resolver; nothing arrives."""
    client = make()
    with pytest.raises(HttpError):
        await client.send("GET", server.url(host=host))
    assert server.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.8", "169.254.169.254", "::1", "::ffff:127.0.0.1", "0.0.0.0"])
async def test_a_name_that_leads_inside_is_refused(make: Make, server: HttpServer, address: str) -> None:
    """A bidder's own name server can say what it likes."""
    client = make(resolver=Names(dsp_test=[[address]]))
    with pytest.raises(HttpRefused, match=r"dsp\.test leads to .*, not a public address"):
        await client.send("GET", server.url(host="dsp.test"))
    assert server.connections == 0


async def test_only_the_allowed_addresses_of_a_name_are_tried(make: Make, server: HttpServer) -> None:
    """Among several, the internal ones are left out."""
    client = make(allow=["127.0.0.1"], resolver=Names(dsp_test=[["127.0.0.2", "10.0.0.1", "127.0.0.1"]]))
    assert (await client.send("GET", server.url(host="dsp.test"))).status == 204


async def test_a_name_that_changes_its_mind_gains_nothing(make: Make, server: HttpServer) -> None:
    """DNS rebinding: the address that is checked is the one connected to, also when the name is looked up anew."""
    names = Names(dsp_test=[["127.0.0.1"], ["127.0.0.2"]])
    client = make(allow=["127.0.0.1"], resolver=names)
    server.replies.append(Reply(200, {"connection": "close"}))
    assert (await client.send("GET", server.url(host="dsp.test"))).status == 200
    other = "dsp.test:1"  # the names of another port are looked up separately
    with pytest.raises(HttpRefused, match=r"127\.0\.0\.2"):
        await client.send("GET", f"http://{other}/")
    assert names.asked == ["dsp.test", "dsp.test"]


async def test_a_name_without_addresses_is_an_error(make: Make) -> None:
    """Not a refusal: it may have some later."""
    client = make(resolver=Names(dsp_test=[[]]))
    with pytest.raises(HttpError, match=r"dsp\.test has no address") as caught:
        await client.send("GET", "http://dsp.test/")
    assert not isinstance(caught.value, HttpRefused)


async def test_an_allowed_name_may_lead_anywhere(make: Make, server: HttpServer) -> None:
    """For development: its host is on the list."""
    client = make(allow=["dsp.test"], resolver=Names(dsp_test=[["127.0.0.1"]]))
    assert (await client.send("GET", server.url(host="dsp.test"))).status == 204


async def test_a_header_with_a_line_break_is_refused(server: HttpServer, http: HttpClient) -> None:
    """It would be a header of somebody else's choice."""
    with pytest.raises(HttpRefused):
        await http.send("GET", server.url(), headers={"X-Device-User-Agent": "a\r\nX-Admin: 1"})
    assert server.requests == []


def test_all_of_it_works_on_uvloop(client_of: Make) -> None:
    """The daemon's loop; its transports and errors differ in details from asyncio's."""

    async def run() -> None:
        client = client_of(allow=LOCAL)
        async with HttpServer() as server:
            for _ in range(2):
                assert (await client.send("POST", server.url(), body=b"x", timeout_s=60)).status == 204
            for trouble in (RESET, HANG, Reply(raw=b"no http at all\r\n\r\n")):
                server.default = trouble
                with pytest.raises(HttpError, match="http://127"):
                    await client.send("GET", server.url(), timeout_s=0.1 if trouble is HANG else 60)
            assert server.connections >= 4
        with pytest.raises(HttpError):
            await client.send("GET", server.url())
        with pytest.raises(HttpRefused):
            await client.send("GET", "http://10.0.0.1/")
        await client.close()

    uvloop.run(run())


async def test_closing_ends_what_is_under_way(server: HttpServer, http: HttpClient) -> None:
    """Nobody waits for a server that does not answer."""
    server.default = HANG
    under_way = asyncio.create_task(http.send("GET", server.url(), timeout_s=60))
    await server.asked(1)
    await http.close()
    with pytest.raises(HttpError):
        await under_way
