"""rtb.adapters.redis_link: how long a call takes, when the server hangs and when the process itself does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rtb.adapters.redis_link import ServerLink
from rtb.errors import StoreError
from tests.support.turned_loop import TurnedLoop, on_turned_loop

LIMIT_S = 600.0
"""Longer than any machine takes for a step of the loop; the clock of these tests is turned by hand."""


class Question:
    """A call whose command has arrived at a server that answers when it is told."""

    def __init__(self) -> None:
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


def test_what_comes_while_the_process_stands_still_is_an_answer() -> None:
    """The reply lies in the socket when the loop goes on, long after the time-out: it is read, and Redis is there."""

    async def test(loop: TurnedLoop) -> None:
        question = Question()
        async with question.asked() as call:
            question.answer()
            await loop.turn(10 * LIMIT_S)
            assert await call == [b"PONG"]
            assert question.link.connected

    on_turned_loop(test)


def test_a_server_that_hangs_is_given_up_at_the_limit() -> None:
    """On a loop that runs: not before, and then at once."""

    async def test(loop: TurnedLoop) -> None:
        question = Question()
        async with question.asked() as call:
            await loop.turn(0.85 * LIMIT_S)
            assert not call.done()
            await loop.turn(0.2 * LIMIT_S)
            with pytest.raises(StoreError, match="no answer within 600000 ms"):
                await call
            assert not question.link.connected

    on_turned_loop(test)


def test_a_server_that_hangs_is_given_up_after_a_standstill_too() -> None:
    """Once the loop has waited for the last part of the limit, and no longer."""

    async def test(loop: TurnedLoop) -> None:
        question = Question()
        async with question.asked() as call:
            await loop.turn(10 * LIMIT_S)
            assert not call.done()
            await loop.turn(0.2 * LIMIT_S)
            with pytest.raises(StoreError, match="no answer"):
                await call

    on_turned_loop(test)
