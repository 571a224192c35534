"""Notices on their way out, to web servers that behave and that do not; retries by a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio

from rtb.adapters.clock import ManualClock
from rtb.adapters.lean_http import LeanHttp
from rtb.ports.http import MAX_BODY, NOTHING_MORE, Answered
from rtb.services.notice_sender import SICK_AFTER, Kind, Notice, NoticeSender, Tally
from tests.support.http_server import HANG, RESET, HttpServer, Reply

Make = Callable[..., NoticeSender]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A bidder's server."""
    async with HttpServer() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    """Time, for retries."""
    return ManualClock()


@pytest_asyncio.fixture
async def make(clock: ManualClock) -> AsyncIterator[Make]:
    """``make(**options)``: a sender that may go to this machine."""
    http = LeanHttp(allow=["127.0.0.1"])
    senders: list[NoticeSender] = []

    def sender(**options: Any) -> NoticeSender:
        senders.append(NoticeSender(http, clock, **{"timeout_s": 60.0, **options}))
        return senders[-1]

    yield sender
    for made in senders:
        await made.stop(0)
    await http.close()


@pytest.mark.parametrize(
    ("kind", "waits_s"), [(Kind.BILLING, [10] * 6), (Kind.WIN, [1, 5, 25]), (Kind.LOSS, [5])], ids=str
)
async def test_a_failing_server_is_tried_on_a_schedule(
    make: Make, clock: ManualClock, server: HttpServer, kind: Kind, waits_s: list[float]
) -> None:
    """Billing every 10 s for the next minute (7.8), wins after 1, 5 and 25 s, losses after 5 s; then given up."""
    server.default = Reply(500)
    sender = make()
    sender.send(Notice(kind, server.url("/x")))
    for tries, wait_s in enumerate(waits_s, 1):
        await sender.quiet()
        assert len(server.requests) == tries
        clock.advance(wait_s - 0.001)
        await sender.quiet()
        assert len(server.requests) == tries
        clock.advance(0.001)
    await sender.quiet()
    clock.advance(1_000)
    await sender.quiet()
    assert len(server.requests) == len(waits_s) + 1
    assert sender.tallies[kind] == Tally(retried=len(waits_s), failed=1)
    assert sender.waiting == 0


@pytest.mark.parametrize(
    "trouble", [Reply(500), Reply(503), Reply(429), RESET, HANG], ids=["500", "503", "429", "rst", "hang"]
)
async def test_trouble_that_passes_costs_nothing(
    make: Make, clock: ManualClock, server: HttpServer, trouble: Reply
) -> None:
    """The second attempt succeeds, and there is no third."""
    sender = make(timeout_s=5.0 if trouble is HANG else 60.0)  # a busy machine is no second trouble
    for kind in Kind:
        server.replies.append(trouble)
        sender.send(Notice(kind, server.url(f"/{kind}")))
    await sender.quiet()
    clock.advance(10)
    await sender.quiet()
    clock.advance(1_000)
    await sender.quiet()
    assert sorted(server.targets) == ["/billing", "/billing", "/loss", "/loss", "/win", "/win"]
    assert {kind: sender.tallies[kind] for kind in Kind} == dict.fromkeys(Kind, Tally(fired=1, retried=1))


@pytest.mark.parametrize(
    ("status", "billing", "win"), [(200, 1, 1), (204, 1, 1), (202, 2, 1), (302, 2, 1), (404, 2, 1)]
)
async def test_what_counts_as_delivered(
    make: Make, clock: ManualClock, server: HttpServer, status: int, billing: int, win: int
) -> None:
    """Billing: 200 and 204 alone, anything else is tried again (7.8). Wins: what a client error says holds."""
    server.default = Reply(status, {"location": server.url("/elsewhere")})
    sender = make()
    sender.send(Notice(Kind.BILLING, server.url("/b")))
    sender.send(Notice(Kind.WIN, server.url("/w")))
    await sender.quiet()
    clock.advance(10)
    await sender.quiet()
    assert (server.targets.count("/b"), server.targets.count("/w")) == (billing, win)
    assert "/elsewhere" not in server.targets


async def test_an_endless_answer_is_cut(make: Make, server: HttpServer) -> None:
    """Its status came first, and that is all that matters."""
    server.default = Reply(200, body=bytes(1_000_000))
    sender = make()
    sender.send(Notice(Kind.BILLING, server.url()))
    await sender.quiet()
    assert sender.tallies[Kind.BILLING] == Tally(fired=1)


@pytest.mark.parametrize(
    "url", ["", "dsp.test/win", "file:///etc/passwd", "http://", "http://[::1/", "http://10.0.0.1/win", "http://[::1]/"]
)
async def test_where_no_notice_may_go(make: Make, clock: ManualClock, url: str) -> None:
    """Refused at once and for good, and counted so."""
    sender = make()
    sender.send(Notice(Kind.WIN, url))
    await sender.quiet()
    clock.advance(1_000)
    assert sender.tallies[Kind.WIN] == Tally(refused=1)
    assert sender.waiting == 0


async def test_few_at_once_to_a_host_and_in_all(make: Make, server: HttpServer) -> None:
    """Two to each of three hosts would be six; four in all is less. None is forgotten."""
    async with HttpServer() as second, HttpServer() as third:
        servers = (server, second, third)
        for one in servers:
            one.hold.clear()
        sender = make(at_once=4, at_once_per_host=2)
        for one in servers:
            for number in range(5):
                sender.send(Notice(Kind.WIN, one.url(f"/{number}")))
        await server.asked(2)
        await second.asked(1)
        await third.asked(1)
        assert sorted((view.in_flight, view.waiting) for view in sender.hosts()) == [(1, 4), (1, 4), (2, 3)]
        for one in servers:
            one.hold.set()
        await sender.quiet()
        assert [one.most_at_once <= 2 and sorted(one.targets) for one in servers] == [
            ["/0", "/1", "/2", "/3", "/4"]
        ] * 3


async def test_hosts_take_turns(make: Make, server: HttpServer) -> None:
    """One that has much to hear does not keep the others waiting until it has heard all."""
    async with HttpServer() as second:
        sender = make()
        for number in range(100):
            sender.send(Notice(Kind.WIN, server.url(f"/{number}")))
        sender.send(Notice(Kind.WIN, second.url()))
        await second.asked(1)
        assert len(server.requests) < 50


async def test_a_silent_host_does_not_hold_up_the_others(make: Make, server: HttpServer) -> None:
    """It keeps its own share of places; the rest go on."""
    async with HttpServer(HANG) as silent:
        sender = make(at_once=4, at_once_per_host=2)
        for number in range(20):
            sender.send(Notice(Kind.WIN, silent.url(f"/{number}")))
        for number in range(20):
            sender.send(Notice(Kind.WIN, server.url(f"/{number}")))
        await server.asked(20)
        assert len(silent.requests) == 2


async def test_a_sick_host_gets_one_at_a_time(make: Make, server: HttpServer) -> None:
    """Until one succeeds: then all its places are open again."""
    server.default = Reply(400)
    sender = make(at_once_per_host=4)
    for number in range(SICK_AFTER):
        sender.send(Notice(Kind.WIN, server.url(f"/{number}")))
    await sender.quiet()
    assert [view.sick for view in sender.hosts()] == [True]
    server.hold.clear()
    for number in range(9):
        sender.send(Notice(Kind.WIN, server.url(f"/later/{number}")))
    await server.asked(SICK_AFTER + 1)
    assert [(view.in_flight, view.waiting) for view in sender.hosts()] == [(1, 8)]
    server.replies.append(Reply())
    server.default = HANG
    server.hold.set()
    await server.asked(SICK_AFTER + 1 + 4)
    assert [(view.in_flight, view.waiting, view.sick) for view in sender.hosts()] == [(4, 4, False)]


async def test_queues_are_bounded_and_losses_go_first(make: Make, server: HttpServer) -> None:
    """Of ten places losses take five at most; the next win finds one, and what finds none is counted."""
    for options in ({"waiting": 10}, {"waiting_per_host": 10}):
        sender = make(**options)
        for kind, count in ((Kind.LOSS, 20), (Kind.WIN, 20)):
            for _ in range(count):
                sender.send(Notice(kind, server.url()))
        assert (sender.tallies[Kind.LOSS].dropped, sender.tallies[Kind.WIN].dropped) == (15, 15)
        assert sender.waiting == 10


async def test_what_rests_counts_as_waiting(make: Make, clock: ManualClock, server: HttpServer) -> None:
    """A host that fails cannot fill the memory with retries."""
    server.default = Reply(500)
    sender = make(waiting_per_host=3)
    for number in range(3):
        sender.send(Notice(Kind.BILLING, server.url(f"/{number}")))
        await sender.quiet()
    sender.send(Notice(Kind.BILLING, server.url("/4")))
    assert sender.tallies[Kind.BILLING] == Tally(retried=3, dropped=1)
    assert [view.waiting for view in sender.hosts()] == [3]


async def test_hosts_are_bounded(make: Make, server: HttpServer) -> None:
    """Bidders may invent hosts: one without work makes place, and a new one beyond the busy ones is dropped."""
    async with HttpServer() as second, HttpServer(HANG) as third:
        sender = make(hosts=2)
        sender.send(Notice(Kind.WIN, server.url()))
        await sender.quiet()
        sender.send(Notice(Kind.WIN, third.url()))
        sender.send(Notice(Kind.WIN, second.url()))
        await second.asked(1)
        await third.asked(1)
        assert {view.host for view in sender.hosts()} == {f"127.0.0.1:{one.port}" for one in (second, third)}
        second.hold.clear()
        sender.send(Notice(Kind.WIN, second.url()))
        sender.send(Notice(Kind.WIN, server.url("/no-place")))
        assert sender.tallies[Kind.WIN].dropped == 1
        second.hold.set()


async def test_the_last_error_of_a_host_can_be_seen(make: Make, clock: ManualClock, server: HttpServer) -> None:
    """With its time, in one line; it stays when things are well again."""
    server.replies.append(Reply(503))
    sender = make()
    sender.send(Notice(Kind.WIN, server.url("/secret")))
    await sender.quiet()
    failed_at = clock.time()
    clock.advance(1)
    await sender.quiet()
    (view,) = sender.hosts()
    assert (view.host, view.fired, view.failed) == (f"127.0.0.1:{server.port}", 1, 0)
    assert (view.last_error, view.last_error_at) == ("HTTP status 503", failed_at)


async def test_hosts_differ_by_name_and_port_alone(make: Make, server: HttpServer) -> None:
    """Not by the user in the URL, nor by case."""
    sender = make()
    for host in ("127.0.0.1", "a:b@127.0.0.1", "c@127.0.0.1"):
        sender.send(Notice(Kind.WIN, server.url(host=host)))
    await sender.quiet()
    assert [(view.host, view.fired) for view in sender.hosts()] == [(f"127.0.0.1:{server.port}", 3)]


class _Held:
    """An HTTP client whose answers are given by hand."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[Answered] = []

    def get(
        self,
        url: str,
        answered: Answered,
        *,
        headers: Mapping[str, str] = NOTHING_MORE,
        timeout_s: float = 5.0,
        max_body: int = MAX_BODY,
    ) -> None:
        self.asked.append(url)
        self.answers.append(answered)


async def test_nothing_is_begun_where_answers_were_taken(clock: ManualClock) -> None:
    """One notice is begun in an iteration of the loop, none in the first after an answer."""
    http = _Held()
    sender = NoticeSender(http, clock)
    for name in "abc":
        sender.send(Notice(Kind.LOSS, f"http://x.test/{name}"))
    begun = []
    for number in range(4):
        if number == 1:
            http.answers[0](204, None)
        await asyncio.sleep(0)
        begun.append(len(http.asked))
    assert begun == [1, 1, 2, 3]
    for answered in http.answers[1:]:
        answered(204, None)
    await sender.quiet()
    assert sender.tallies[Kind.LOSS] == Tally(fired=3)
