"""The HTTP side against a real local server that behaves as scripted, also badly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from rtb.errors import ConfigError
from rtb.lab.load.http_target import HttpTarget
from rtb.lab.load.payload import Payload, payloads, request_ids, split
from rtb.lab.load.plan import Plan, Result
from rtb.lab.load.run import run_http

Script = Callable[[int], str]


class Server:
    """Answers each request as the script says for its number, and counts what it did."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.did: Counter[str] = Counter()
        self.ids: list[str] = []
        self.bodies: list[dict[str, object]] = []
        self.silent = asyncio.Event()
        self.port = 0
        self.handlers: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.add(asyncio.current_task())
        try:
            while await self.answer(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.handlers.discard(asyncio.current_task())
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        request = orjson.loads(await reader.readexactly(length))
        self.ids.append(request["id"])
        self.bodies.append(request)
        what = self.script(len(self.ids) - 1)
        self.did[what] += 1
        if what == "close":
            return False
        if what == "never":
            await self.silent.wait()
            return False
        if what == "cut off":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
            return False
        writer.write(ANSWERS[what].replace(b"$ID", request["id"].encode()))
        return what != "last"


def answer(status: str, body: bytes = b"", headers: str = "") -> bytes:
    """An answer with Content-Length; $ID becomes the request's id."""
    length = "" if status.startswith("204") else f"Content-Length: {len(body.replace(b'$ID', b'0' * 32))}\r\n"
    return f"HTTP/1.1 {status}\r\n{headers}{length}\r\n".encode() + body


BID = b'{"id":"$ID","seatbid":[{"bid":[{"id":"1","impid":"1","price":0.5}]}]}'
ANSWERS = {
    "won": answer("200 OK", BID, "x-rtb-outcome: won\r\n"),
    "no-bid": answer("204 No Content", b"", "x-rtb-outcome: no-bid\r\n"),
    "nbr": answer("200 OK", b'{"id":"$ID","nbr":500}'),
    "timeout": answer("204 No Content", b"", "x-rtb-outcome: timeout\r\n"),
    "shed": answer("204 No Content", b"", "x-rtb-outcome: shed\r\n"),
    "refused": answer("400 Bad Request", b"imp: required"),
    "failed": answer("500 Internal Server Error"),
    "garbage": b"what?\r\n\r\n",
    "stranger": answer("200 OK", BID.replace(b"$ID", b"f" * 32)),
    "last": answer("200 OK", BID, "Connection: close\r\n"),
}


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """A scripted server on a free port."""
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.silent.set()
        listener.close()
        await listener.wait_closed()
        await asyncio.gather(*[task for task in server.handlers if task])


async def load(server: Server, **settings: float | int | str | None) -> Result:
    """A short run without warm-up."""
    plan = Plan(
        url=f"http://127.0.0.1:{server.port}/openrtb2/auction",
        **{
            "rate": 400,
            "duration_s": 0.5,
            "warmup_s": 0,
            "connections": 8,
            "unique": 5,
            "give_up_ms": 30_000,
            **settings,
        },
    )
    return await run_http(plan, payloads("1k", plan.unique, plan.seed, plan.users), lambda _: None)


async def test_every_kind_of_answer_is_accounted_for() -> None:
    """What the server says it did is what the report says happened, and nothing is left over."""
    kinds = [
        "won",
        "no-bid",
        "nbr",
        "timeout",
        "shed",
        "refused",
        "failed",
        "garbage",
        "stranger",
        "last",
        "cut off",
        "close",
    ]
    async with serving(lambda number: kinds[number % len(kinds)]) as server:
        result = await load(server)
    did = server.did
    assert result.balances
    assert result.sent == 200
    assert result.lost == did["close"] > 0
    assert result.won == did["won"] + did["last"]
    assert result.no_bid == did["no-bid"] + did["nbr"]
    assert result.timeout == did["timeout"]
    assert result.shed == did["shed"]
    assert result.error == sum(did[kind] for kind in ("refused", "failed", "garbage", "stranger", "cut off"))
    assert result.reasons == {
        "answer to another request": did["stranger"],
        "broken: cut off": did["cut off"],
        "broken: not HTTP/1.1": did["garbage"],
        "connection closed": did["close"],
        "status 400": did["refused"],
        "status 500": did["failed"],
    }


async def test_a_server_that_never_answers_loses_everything() -> None:
    """Each connection is given up and opened anew, what waits for one is never sent, and the account still balances."""
    async with serving(lambda _: "never") as server:
        result = await load(server, connections=2, give_up_ms=300)
    assert result.balances
    assert result.lost == result.sent == 200
    assert set(result.reasons) <= {"unanswered", "never sent"}
    assert result.reasons["unanswered"] >= 2
    assert result.answers_per_s == 0
    assert result.latency.max_ms == 0


async def test_every_request_has_an_id_of_its_own() -> None:
    """Five bodies sent 200 times carry 200 ids."""
    async with serving(lambda _: "won") as server:
        result = await load(server)
    assert result.won == result.sent == len(server.ids)
    assert len(set(server.ids)) == len(server.ids)
    assert len({str(body["user"]) for body in server.bodies}) <= 5


async def test_a_pipeline_is_answered_in_order() -> None:
    """Several requests under way on one connection each get their own answer, however busy the machine."""
    async with serving(lambda number: "won" if number % 2 else "no-bid") as server:
        result = await load(server, connections=1, pipeline=16, rate=2000)
    assert result.balances
    assert (result.won, result.no_bid, result.lost) == (server.did["won"], server.did["no-bid"], 0)


async def test_a_closed_loop_balances() -> None:
    """Saturation sends as fast as answers come, and accounts for all of it."""
    async with serving(lambda number: "close" if number % 50 == 49 else "won") as server:
        result = await load(server, rate=None, duration_s=0.3)
    assert result.balances
    assert result.won == server.did["won"] > 0
    assert result.lost == server.did["close"]


async def test_nobody_there_is_an_error_at_once() -> None:
    """A run does not start against a closed port."""
    async with serving(lambda _: "won") as server:
        pass
    with pytest.raises(OSError, match=str(server.port)):
        await load(server)


async def test_a_server_that_comes_back_is_used_again() -> None:
    """When every connection breaks, they are opened anew, and requests flow again."""
    async with serving(lambda number: "close" if number < 8 else "won") as server:
        result = await load(server)
    assert result.balances
    assert result.lost == 8
    assert result.won == result.sent - 8


async def test_an_answer_in_many_pieces_is_put_together() -> None:
    """Heads and bodies may be split anywhere."""
    outcomes: list[str] = []
    done = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]}")
        for byte in ANSWERS["won"].replace(b"$ID", b"0" * 32) + ANSWERS["shed"]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await done.wait()
        writer.close()

    listener = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        body = split(b'{"id":"' + b"0" * 32 + b'","imp":[{"x":1}]}', b"0" * 32)
        target = HttpTarget(f"http://127.0.0.1:{port}/", [body], iter([b"0" * 32] * 2), connections=1, pipeline=2)
        both = asyncio.Event()

        def report(intended_ns: int, outcome: object, reason: str, now_ns: int) -> None:
            outcomes.append(f"{intended_ns} {outcome!r} {reason}")
            if len(outcomes) == 2:
                both.set()

        await target.open(report)
        assert target.send(1, 1)
        assert target.send(2, 2)
        assert not target.send(3, 3)
        await both.wait()
        done.set()
        await target.close()
    assert outcomes == ["1 <Outcome.WON: 0> ", "2 <Outcome.SHED: 3> "]


def test_only_http_urls() -> None:
    """TLS and other schemes are refused when the target is made."""
    with pytest.raises(ConfigError, match="http://host:port/path"):
        HttpTarget("https://localhost/", [Payload(b"", b"")], request_ids(1))
