"""rtb.adapters.redis_link: how long a call takes, when the server hangs and when the process itself does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rtb.adapters.redis_link import ServerLink
from rtb.errors import StoreError

LIMIT_S = 600.0
"""Longer than any machine takes for a step of the loop; the clock of these tests is turned by hand."""


class TurnedLoop(asyncio.SelectorEventLoop):
    """Its clock can be put forward, as a loop sees it after it stood still."""

    ahead_s = 0.0

    def time(self) -> float:
        """As the test has put it."""
        return super().time() + self.ahead_s


class Question:
    """A call whose command has arrived at a server that answers when it is told."""

    def __init__(self, loop: TurnedLoop) -> None:
        self._loop = loop
        self._arrived = asyncio.Event()
        self._over = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SELECT\r\n$1\r\n0\r\n")
        writer.write(b"+OK\r\n")
        await reader.readuntil(b"PING\r\n")
        self._writer = writer
        self._arrived.set()
        await reader.read()
        writer.close()
        await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})  # however it ended
        self._over.set()

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[asyncio.Task[list[Any]]]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.link = ServerLink(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1, LIMIT_S)
        call = asyncio.create_task(self.link.all([("PING",)]))
        await self._arrived.wait()
        try:
            yield call
        finally:
            await self.link.close()
            await self._over.wait()
            server.close()
            await server.wait_closed()

    def answer(self) -> None:
        """In the socket of who asked when this returns, before the loop has looked: asyncio's own sends at once."""
        assert self._writer is not None
        self._writer.write(b"+PONG\r\n")

    async def pass_by(self, limits: float) -> None:
        """The loop stands still for so many time-outs, and then goes on."""
        self._loop.ahead_s += limits * LIMIT_S
        for _ in range(10):
            await asyncio.sleep(0)


def run(test: Callable[[Question], Coroutine[Any, Any, None]]) -> None:
    async def on_its_loop() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnedLoop)
        await test(Question(loop))

    with asyncio.Runner(loop_factory=TurnedLoop) as runner:
        runner.run(on_its_loop())


def test_what_comes_while_the_process_stands_still_is_an_answer() -> None:
    """The reply lies in the socket when the loop goes on, long after the time-out: it is read, and Redis is there."""

    async def test(question: Question) -> None:
        async with question.asked() as call:
            question.answer()
            await question.pass_by(10)
            assert await call == [b"PONG"]
            assert question.link.connected

    run(test)


def test_a_server_that_hangs_is_given_up_at_the_limit() -> None:
    """On a loop that runs: not before, and then at once."""

    async def test(question: Question) -> None:
        async with question.asked() as call:
            await question.pass_by(0.85)
            assert not call.done()
            await question.pass_by(0.2)
            with pytest.raises(StoreError, match="no answer within 600000 ms"):
                await call
            assert not question.link.connected

    run(test)


def test_a_server_that_hangs_is_given_up_after_a_standstill_too() -> None:
    """Once the loop has waited for the last part of the limit, and no longer."""

    async def test(question: Question) -> None:
        async with question.asked() as call:
            await question.pass_by(10)
            assert not call.done()
            await question.pass_by(0.2)
            with pytest.raises(StoreError, match="no answer"):
                await call

    run(test)
