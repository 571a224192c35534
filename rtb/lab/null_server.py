"""The daemon's own HTTP edge with nothing behind it: every request gets the same winning answer.

What this serves a CPU-second is the ceiling of any exchange behind this edge on this machine; figures of the daemon are
given as shares of it, measured in the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import click
import uvloop

from rtb import openrtb
from rtb.adapters.clock import SystemClock
from rtb.edges.http1 import Connection, Server
from rtb.edges.http_responses import response
from rtb.openrtb import Bid, BidResponse, SeatBid

AUCTION_PATH = b"/openrtb2/auction"
ANSWER = response(
    b"200 OK",
    openrtb.encode(
        BidResponse(
            id="null",
            cur="USD",
            bidid="null",
            seatbid=[
                SeatBid(
                    seat="null",
                    bid=[
                        Bid(
                            id="1",
                            impid="1",
                            price=0.51,
                            nurl="https://ads.example/win?a=0123456789abcdef&p=${AUCTION_PRICE}",
                            burl="https://ads.example/bill?a=0123456789abcdef&p=${AUCTION_PRICE}",
                            adm='<a href="https://ads.example/click"><img src="https://cdn.example/300x250.png"></a>',
                            adid="ad-1",
                            adomain=["acme-shoes.example"],
                            cid="campaign-1",
                            crid="creative-1",
                            w=300,
                            h=250,
                            mtype=1,
                        )
                    ],
                )
            ],
        )
    ),
    b"x-openrtb-version: 2.6\r\nx-rtb-outcome: won\r\n",
)


class NullResponder:
    """Answers without reading."""

    def __init__(self) -> None:
        """Prepare the health page, which tells the load tool whose CPU time to watch."""
        self._health = response(b"200 OK", b'{"status":"ok","pid":%d}' % os.getpid())

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """The same answer to every request on the auction's path, the health page on any other."""
        return ANSWER if path == AUCTION_PATH else self._health


async def serve(port: int) -> None:
    """Serve on the loopback until SIGTERM or SIGINT; the first line on stdout is the port."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(Server(NullResponder(), SystemClock()), "127.0.0.1", port, backlog=1024)
    async with server:
        click.echo(server.sockets[0].getsockname()[1])
        await stopped.wait()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[int, int]]:
    """A null server in a process of its own while the block runs: (port, pid)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rtb.lab.null_server", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline()), process.pid
    finally:
        process.terminate()
        await process.wait()


@click.command()
@click.option("--port", default=0, show_default="any", help="Port on 127.0.0.1.")
def main(port: int) -> None:
    """Answer every bid request with the same bid, as fast as the HTTP edge can."""
    uvloop.run(serve(port))


if __name__ == "__main__":
    main()
