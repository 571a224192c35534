"""A server that does with each request what a script says, byte by byte: for everything HTTP servers get wrong.

async with RawServer(script) as server:        async def script(reader, writer): read a request, write anything
    ... server.url ...
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request; IncompleteReadError when the client has gone."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


def answering(*answers: bytes, close: bool = False) -> Script:
    """A script that answers each request of a connection with the next of these bytes, then closes or falls silent."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read(1)

    return script


def reset(writer: asyncio.StreamWriter) -> None:
    """Have the connection end with an RST."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class RawServer:
    """Runs the script for every connection on a free port of 127.0.0.1, and closes the connection after it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.open = 0
        self.port = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Of this server."""
        return f"http://127.0.0.1:{self.port}/bid"

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for _ in range(6):  # a connection may still be on its way in, three steps of the loop, and out
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds, looked at when a connection comes or goes; fails the test after a minute."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._changed:
            self.connections += 1
            self.open += 1
            self._changed.notify_all()
        try:
            await self.script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            pass  # RuntimeError: what uvloop says of a write to a connection that has gone
        finally:
            writer.close()
            self.open -= 1
        async with self._changed:
            self._changed.notify_all()
