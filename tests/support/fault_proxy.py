"""A TCP proxy that spoils the connection between a client and a real server.

async with FaultProxy(server.port) as proxy:
    connect(proxy.port)
    proxy.to_client.delay_s = 0.15      answers come 150 ms late, in order
    proxy.stall()                       everything stands still, connections stay open; `flow` lets it go on
    proxy.to_server.stall()             ... in one direction only
    proxy.to_client.drip_bytes = 1      one byte at a time, each after drip_s
    proxy.reset()                       RST to both ends of every connection; new ones are welcome
    await proxy.cut()                   RST, and nobody listens any more, until `restore`
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType

CHUNK = 1 << 16
RST = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST instead of FIN


class Direction:
    """What happens to the bytes that go one way."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.drip_bytes = 0  # 0: as they come
        self.drip_s = 0.01
        self.passed = 0  # bytes
        self._flows = asyncio.Event()
        self._flows.set()

    def stall(self) -> None:
        """Hold what comes."""
        self._flows.clear()

    def flow(self) -> None:
        """Let it go on."""
        self._flows.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the reader ends, then end the writer (half-close)."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1_000)

        async def deliver() -> None:
            while (item := await under_way.get())[1]:
                due, data = item
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await self._write(writer, data)
            await self._flows.wait()
            if writer.can_write_eof():
                writer.write_eof()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(deliver())
            while True:
                data = await reader.read(CHUNK)
                await under_way.put((loop.time() + self.delay_s, data))
                if not data:
                    break

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        step = self.drip_bytes or len(data)
        for begin in range(0, len(data), step):
            if self.drip_bytes:
                await asyncio.sleep(self.drip_s)
            await self._flows.wait()
            writer.write(data[begin : begin + step])
            await writer.drain()
            self.passed += len(data[begin : begin + step])


class FaultProxy:
    """Listens on a port of 127.0.0.1 and carries each connection to `target_port` there."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.to_server = Direction()
        self.to_client = Direction()
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> FaultProxy:
        await self.restore()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._connections)

    def stall(self) -> None:
        """Both directions stand still."""
        self.to_server.stall()
        self.to_client.stall()

    def flow(self) -> None:
        """Both directions go on."""
        self.to_server.flow()
        self.to_client.flow()

    def reset(self) -> None:
        """RST to both ends of every connection."""
        for task, writers in self._connections.items():
            for writer in writers:
                _abort(writer)
            task.cancel()

    async def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def restore(self) -> None:
        """Listen (again), on the port of before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        writers = self._connections[task] = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.to_server.pump(reader, far_writer))
                tasks.create_task(self.to_client.pump(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # one end is gone, so the other goes too
        finally:
            for open_writer in writers:
                _abort(open_writer)
            del self._connections[task]


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # closed already
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    writer.transport.abort()
