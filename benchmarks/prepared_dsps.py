"""The bidders of `rtb lab dsps`, with the answers to the benchmark's requests made ahead.

    python -m benchmarks.prepared_dsps COUNT            prints their URLs, then "ready"

They say the same, after as long, over HTTP/1.1 on the loopback. But a request costs them a look-up in place of an
answer, so that one process of five keeps an exchange busy in another: the lab's own take longer for five answers than
an exchange for its auction, and what then is measured is how long it waits for them.
"""

from __future__ import annotations

import asyncio
import gc
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import click
import orjson
import uvloop

from rtb.lab.dsp import BID_PATH, Dsp, DspScript
from rtb.lab.traffic import Traffic

REQUESTS = 4_000
BODY_BYTES = 1024
_SLOT_S = 0.001
"""What is to be said within a millisecond is said together: timers of the loop are no finer."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_ID = re.compile(rb'\{"id":"([^"]+)"')
_NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"

Answers = Mapping[bytes, tuple[float, bytes]]
"""By a request's id: after how many seconds, and what."""


def requests() -> list[bytes]:
    """The requests of the benchmark, without their users: whom profiles cost what is another benchmark's question."""
    traffic = Traffic(1)
    found = []
    for _ in range(REQUESTS):
        request = orjson.loads(traffic.body(BODY_BYTES))
        request.pop("user", None)
        found.append(orjson.dumps(request))
    return found


def answers_of(dsp: Dsp, bodies: Sequence[bytes]) -> Iterator[tuple[bytes, tuple[float, bytes]]]:
    """What a bidder answers to each of these."""
    for body in bodies:
        found = _ID.match(body)
        delay_s, answer = dsp.answer_to(body)
        assert found is not None
        assert isinstance(answer, bytes)
        yield found[1], (delay_s, answer)


class Agenda:
    """What is to be said, and when."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, list[tuple[asyncio.Transport, bytes]]] = {}

    def note(self, delay_s: float, transport: asyncio.Transport, answer: bytes) -> None:
        """Have it said after so long, to the millisecond."""
        slot = int((self._loop.time() + delay_s) / _SLOT_S) + 1
        noted = self._slots.get(slot)
        if noted is None:
            noted = self._slots[slot] = []
            self._loop.call_at(slot * _SLOT_S, self._say, slot)
        noted.append((transport, answer))

    def _say(self, slot: int) -> None:
        for transport, answer in self._slots.pop(slot):
            if not transport.is_closing():
                transport.write(answer)


class Prepared(asyncio.Protocol):
    """One connection, whose client waits for an answer before it asks again."""

    def __init__(self, answers: Answers, agenda: Agenda, lengths: dict[bytes, int]) -> None:
        """`lengths` are those of bodies, by the heads that were read."""
        self._answers, self._agenda, self._lengths = answers, agenda, lengths
        self._transport: asyncio.Transport | None = None
        self._come = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Look the answer up once a request is whole."""
        if self._come:
            data = self._come + data
        head, _, body = data.partition(_HEAD_END)
        length = self._lengths.get(head)
        if length is None:
            length = self._lengths[head] = _body_length(head)
        if len(body) < length or self._transport is None:
            self._come = data
            return
        self._come = b""
        found = _ID.match(body)
        delay_s, answer = self._answers.get(found[1] if found else b"", (0.0, _NOTHING))
        self._agenda.note(delay_s, self._transport, answer)


def _body_length(head: bytes) -> int:
    """Of the body after a head; more than any while the head is not whole."""
    found = _LENGTH.search(head)
    return 1 << 30 if found is None else int(found[1])


async def serve(count: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    bodies, agenda = requests(), Agenda()
    for n in range(1, count + 1):
        answers = dict(answers_of(Dsp(DspScript(name=f"dsp{n}")), bodies))
        server = await loop.create_server(partial(Prepared, answers, agenda, {}), "127.0.0.1", 0)
        click.echo(f"dsp{n} http://127.0.0.1:{server.sockets[0].getsockname()[1]}{BID_PATH.decode()}")
    gc.collect()
    gc.freeze()
    click.echo("ready")
    await stopped.wait()


@click.command()
@click.argument("count", type=click.IntRange(1, 100), default=5)
def main(count: int) -> None:
    """Serve COUNT bidders, each on a port of its own, until stopped; prints their URLs."""
    uvloop.run(serve(count))


if __name__ == "__main__":
    main()
