"""What the lean client does beyond the other: it calls back, keeps to few connections, and gives places in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from rtb.adapters.lean_http import LeanHttp
from rtb.errors import HttpError, HttpRefused
from tests.support.http_server import HANG, RESET, HttpServer, Reply

Make = Callable[..., LeanHttp]


class Answers:
    """What was called back, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[int, HttpError | None]] = []
        self._news = asyncio.Event()

    def __call__(self, status: int, error: HttpError | None) -> None:
        self.all.append((status, error))
        self._news.set()

    async def come(self, count: int) -> None:
        """Wait until there are so many; fails the test after 20 seconds."""
        async with asyncio.timeout(20):
            while len(self.all) < count:
                self._news.clear()
                await self._news.wait()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A server outside."""
    async with HttpServer() as running:
        yield running


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    """``make(**arguments)``: a client that may go to this machine, closed after the test."""
    clients: list[LeanHttp] = []

    def client(**arguments: Any) -> LeanHttp:
        clients.append(LeanHttp(allow=["127.0.0.1"], **arguments))
        return clients[-1]

    yield client
    for made in clients:
        await made.close()


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "192.0.2.1"}], ids=["plain", "headers"])
async def test_the_status_is_called_back(make: Make, server: HttpServer, headers: dict[str, str]) -> None:
    """Whatever it is; the request is that of `send`."""
    http, answers = make(), Answers()
    server.replies += [Reply(204), Reply(500, body=b"no")]
    for number in range(2):
        http.get(server.url(f"/{number}?a=%20"), answers, headers=headers)
        await answers.come(number + 1)
    await http.send("GET", server.url("/2"), headers=headers)
    assert answers.all == [(204, None), (500, None)]
    assert server.targets == ["/0?a=%20", "/1?a=%20", "/2"]
    assert server.requests[0].headers == server.requests[1].headers == server.requests[2].headers


@pytest.mark.parametrize("url", ["", "ftp://a.test/", "http://10.0.0.1/", "http://[::1/"])
async def test_a_refusal_is_called_back(make: Make, url: str) -> None:
    """At once, where that can be told from the URL; as is a header that cannot be sent."""
    http, answers = make(), Answers()
    http.get(url, answers)
    http.get("http://127.0.0.1/", answers, headers={"X": "a\r\nb"})
    assert [(status, type(error)) for status, error in answers.all] == [(0, HttpRefused)] * 2


@pytest.mark.parametrize(
    ("reply", "timeout_s", "says"), [(RESET, 20.0, "reset|closed"), (HANG, 0.2, "did not answer in 0.2 s")]
)
async def test_trouble_is_called_back(
    make: Make, server: HttpServer, reply: Reply, timeout_s: float, says: str
) -> None:
    """Once, as an error that names the server."""
    http, answers = make(), Answers()
    server.default = reply
    http.get(server.url("/secret"), answers, timeout_s=timeout_s)
    await answers.come(1)
    ((status, error),) = answers.all
    assert status == 0
    with pytest.raises(HttpError, match=says) as raised:
        raise error or AssertionError
    assert f"127.0.0.1:{server.port}" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_close_ends_what_is_under_way(make: Make, server: HttpServer) -> None:
    """What was asked and what waited; and nothing begins afterwards."""
    http, answers = make(connections_per_host=1), Answers()
    server.default = HANG
    for _ in range(2):
        http.get(server.url(), answers)
    await server.asked(1)
    await http.close()
    http.get(server.url(), answers)
    assert [(status, str(error).endswith("the client is closed")) for status, error in answers.all] == [(0, True)] * 3


async def test_many_at_once_share_few_connections(make: Make, server: HttpServer) -> None:
    """A hundred calls in one step do not open sixty connections to a server that answers at once."""
    http, answers = make(), Answers()
    for number in range(100):
        http.get(server.url(f"/{number}"), answers)
    await answers.come(100)
    assert answers.all == [(204, None)] * 100
    assert sorted(server.targets) == sorted(f"/{number}" for number in range(100))
    assert server.connections <= 20


async def test_a_server_that_does_not_answer_gets_others_too(make: Make, server: HttpServer) -> None:
    """While the first call hangs a second connection carries the next ones."""
    http, answers = make(), Answers()
    server.replies.append(HANG)
    for _ in range(3):
        http.get(server.url(), answers)
    await answers.come(2)
    assert answers.all == [(204, None)] * 2


async def test_servers_have_their_places_in_turn(make: Make, server: HttpServer) -> None:
    """With one place in all, the other server's call comes before the second of the first."""
    async with HttpServer() as other:
        http, answers = make(connections=1), Answers()
        server.hold.clear()
        for url in (server.url("/1"), server.url("/2"), other.url("/3")):
            http.get(url, answers)
        await server.asked(1)
        other.hold.clear()
        server.hold.set()
        await other.asked(1)
        assert server.targets == ["/1"]
        other.hold.set()
        await answers.come(3)
        assert server.targets == ["/1", "/2"]


async def test_who_does_not_wait_any_more_leaves_no_answer_behind(make: Make, server: HttpServer) -> None:
    """A cancelled call ends its connection; the next one has its own answer."""
    http = make()
    server.hold.clear()
    task = asyncio.create_task(http.send("GET", server.url("/1")))
    await server.asked(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.hold.set()
    server.default = Reply(418)
    assert (await http.send("GET", server.url("/2"))).status == 418
