"""A web server that answers as it is told, well or badly, and remembers what it was asked.

async with HttpServer() as server:
    server.replies += [Reply(500), Reply(), RESET]      one a request, in order; afterwards `server.default`
    ... server.url("/win") ...
    await server.asked(3)
    server.requests[0].target, .headers
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping
from types import TracebackType

from msgspec import Struct

NO_HEADERS: Mapping[str, str] = {}


class Reply(Struct, frozen=True):
    """What becomes of a request: `body` is sent as it is; with `hang` nothing at all comes, with `reset` an RST.

    `raw` is sent instead of all that, and the connection then closed, as it is after an answer that is to `close` it.
    """

    status: int = 204
    headers: Mapping[str, str] = NO_HEADERS
    body: bytes = b""
    hang: bool = False
    reset: bool = False
    raw: bytes = b""
    close: bool = False


HANG = Reply(hang=True)
RESET = Reply(reset=True)


class Request(Struct, frozen=True):
    """What was asked; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class HttpServer:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self, default: Reply | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.default = default or Reply()
        self.replies: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.connections = 0
        self.most_at_once = 0
        self.port = 0
        self.hold = asyncio.Event()
        """While it is cleared every answer waits."""
        self.hold.set()
        self._at_once = 0
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> HttpServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
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

    def url(self, target: str = "/", host: str = "127.0.0.1") -> str:
        """Of this server."""
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{target}"

    @property
    def targets(self) -> list[str]:
        """Paths with their queries, in the order they were asked for."""
        return [request.target for request in self.requests]

    async def asked(self, times: int) -> None:
        """Wait until so many requests have come; fails the test after a minute."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= times)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

        def closed(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            writer.transport.abort()

        task.add_done_callback(closed)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = first.split(" ")
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            async with self._news:
                self.requests.append(Request(method, target, headers, body))
                self._news.notify_all()
            await self.hold.wait()
            return await self._reply(self.replies.popleft() if self.replies else self.default, writer)
        finally:
            self._at_once -= 1

    async def _reply(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        if reply.hang:
            await asyncio.Event().wait()
        if reply.reset:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply.raw:
            writer.write(reply.raw)
            await writer.drain()
            return False
        lines = {"content-length": str(len(reply.body)), **reply.headers}
        top = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {reply.status} .\r\n{top}\r\n".encode() + reply.body)
        await writer.drain()
        return not reply.close
