"""Steady traffic for the demo: an open loop without an end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator

import orjson

from rtb.lab.load.http_target import HttpTarget
from rtb.lab.load.loops import OpenLoop, constant
from rtb.lab.load.payload import Payload, request_ids, split
from rtb.lab.load.run import SWEEP_S, send_all
from rtb.lab.traffic import Traffic

GIVE_UP_NS = 2_000_000_000
CONNECTIONS = 4
ANSWER_S = 0.1
"""What an auction takes at most, when it waits for bidders."""
_NEVER_NS = 1 << 62


async def drive(
    url: str,
    traffic: Traffic,
    rate: float,
    stop: asyncio.Event,
    *,
    connections: int | None = None,
    on_won: Callable[[bytes], None] | None = None,
) -> int:
    """Send `rate` requests a second to the auction at `url` until `stop` is set; how many were answered.

    `on_won` gets every response with a bid. Unless told otherwise there are `connections` enough for answers that take
    ANSWER_S each; those that break are opened anew. Nothing is measured: see rtb.lab.load for that.

    Raises:
        OSError: nobody answers at the start.
        ConfigError: the URL is none.
    """
    if connections is None:
        connections = max(CONNECTIONS, math.ceil(rate * ANSWER_S))
    target = HttpTarget(
        url, _bodies(traffic), request_ids(time.time_ns()), connections=connections, give_up_ns=GIVE_UP_NS
    )
    target.on_won = on_won
    times = constant(rate, time.monotonic_ns(), _NEVER_NS)
    loop = OpenLoop(target, time.monotonic_ns, _NEVER_NS, times, GIVE_UP_NS)
    sending: asyncio.Task[None] | None = None
    try:
        await target.open(loop.over)
        sending = asyncio.create_task(send_all(loop))
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SWEEP_S)
            loop.sweep()
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await target.close()
    return loop.answers


def _bodies(traffic: Traffic) -> Iterator[Payload]:
    for request in traffic.requests():
        yield split(orjson.dumps(request), request["id"].encode())
