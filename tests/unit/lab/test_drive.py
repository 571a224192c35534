"""The demo's traffic."""

from __future__ import annotations

import asyncio
import contextlib

from rtb.lab.drive import drive
from rtb.lab.traffic import Traffic
from rtb.openrtb import decode_request

NO_BID = b"HTTP/1.1 204 No Content\r\nx-rtb-outcome: no-bid\r\n\r\n"


async def test_traffic_flows_until_it_is_stopped() -> None:
    """Valid requests with different ids arrive until the event is set; then it ends, connections and all."""
    stop = asyncio.Event()
    ids: set[str | None] = set()
    gone: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed = asyncio.Event()
        gone.append(closed)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split()[0])
                ids.add(decode_request(await reader.readexactly(length)).id)
                writer.write(NO_BID)
                if len(ids) == 10:
                    stop.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            closed.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        answers = await drive(f"http://127.0.0.1:{port}/", Traffic(1, users=100), 500, stop, connections=2)
        await asyncio.gather(*(closed.wait() for closed in gone))
    assert len(ids) >= 10
    assert answers >= 8


async def test_slow_answers_do_not_slow_the_traffic_down() -> None:
    """At 200 a second an auction of 100 ms is under way with nineteen others: here none is answered before twenty
    wait."""
    stop = asyncio.Event()
    gone: list[asyncio.Event] = []
    most = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        gone.append(asyncio.Event())
        closed = gone[-1]
        most[0] = max(most[0], sum(not one.is_set() for one in gone))
        if most[0] == 20:
            stop.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        closed.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        await drive(f"http://127.0.0.1:{port}/", Traffic(1, users=100), 200, stop)
        await asyncio.gather(*(closed.wait() for closed in gone))
    assert most == [20]
