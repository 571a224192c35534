"""Simulated bidders over HTTP: how long they take, what they bid, how often they fail and how they misbehave.

What a bidder does with a request depends on the seed, its name and the request's id alone, so that a run can be
repeated. Distributions are quantile curves: (5, 8, 40) is 5 at the least, 8 at the median, 40 at the most, linear
between. They send nothing by themselves; win and billing notices that reach them are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from hashlib import blake2b

import msgspec
from msgspec import Struct

from rtb import openrtb
from rtb.adapters.clock import SystemClock
from rtb.edges.http1 import Connection, Server, Slot
from rtb.edges.http_responses import response
from rtb.openrtb import Bid, BidResponse, SeatBid

BID_PATH = b"/bid"
STATS_PATH = b"/stats"
_NOTHING = response(b"204 No Content", b"")
_ERROR = response(b"500 Internal Server Error", b"this bidder fails now and then\n", content_type=b"text/plain")
_DRIP_S = 0.02
_STEPS_IN = 6
"""Of the loop: a connection that is accepted takes three until it is known, and one more until it is gone."""
_FLOOD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n" + b"x" * 0x10_0000 + b"\r\n"


class Misbehaviour(StrEnum):
    """What a bidder does instead of answering."""

    NONE = "none"
    HANG = "hang"
    DRIP = "drip"
    FLOOD = "flood"
    RESET = "reset"
    GARBAGE = "garbage"
    WRONG_JSON = "wrong-json"
    WRONG_CURRENCY = "wrong-currency"
    WRONG_ID = "wrong-id"


class DspScript(Struct, frozen=True, kw_only=True):
    """How a bidder behaves.

    Attributes:
        name: its name and seat.
        latency_ms: quantiles of how long it thinks.
        cpm: quantiles of its bids, in `cur`.
        no_bid: share of requests without a bid; `errors`: answered with HTTP 500; `misbehaves`: with `misbehaviour`.
    """

    name: str
    latency_ms: tuple[float, ...] = (5.0, 40.0)
    cpm: tuple[float, ...] = (0.5, 1.0, 4.0)
    cur: str = "USD"
    no_bid: float = 0.3
    errors: float = 0.0
    misbehaves: float = 0.0
    misbehaviour: Misbehaviour = Misbehaviour.NONE


class _Imp(Struct, gc=False):
    id: str
    banner: openrtb.Banner | None = None


class _Request(Struct, gc=False):
    id: str
    imp: list[_Imp]


_decode = msgspec.json.Decoder(_Request).decode


def quantile(curve: Sequence[float], at: float) -> float:
    """The value of a quantile curve, 0 <= at <= 1."""
    place = at * (len(curve) - 1)
    index = min(int(place), len(curve) - 2)
    if index < 0:
        return curve[0]
    return curve[index] + (curve[index + 1] - curve[index]) * (place - index)


class Dsp:
    """A bidder: a responder for rtb.edges.http1."""

    def __init__(self, script: DspScript, seed: int = 1) -> None:
        """Behave as the script says."""
        self.script = script
        self.counts: Counter[str] = Counter()
        self._key = f"{seed}/{script.name}".encode()[:64]

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """A bid request is answered after a while, a notice at once."""
        if path == STATS_PATH:
            return response(b"200 OK", msgspec.json.encode(self.counts))
        if path != BID_PATH:
            self.counts[path.decode("latin-1").lstrip("/")] += 1
            return _NOTHING
        self.counts["requests"] += 1
        try:
            request = _decode(body)
        except msgspec.DecodeError as error:
            self.counts["invalid"] += 1
            return response(b"400 Bad Request", str(error).encode(), content_type=b"text/plain")
        delay_s, answer = self._said(request)
        act = self._act(answer)
        if delay_s <= 0 and isinstance(answer, bytes):
            return answer
        asyncio.get_running_loop().call_later(delay_s, act, connection, connection.slot)
        return None

    def answer_to(self, body: bytes) -> tuple[float, bytes | Misbehaviour]:
        """After how many seconds it says what to a bid request.

        Raises:
            msgspec.DecodeError: it is none.
        """
        return self._said(_decode(body))

    def _said(self, request: _Request) -> tuple[float, bytes | Misbehaviour]:
        what, when, price = self.draws(request.id)
        return quantile(self.script.latency_ms, when) / 1000, self._answer(request, what, price)

    def draws(self, request_id: str) -> tuple[float, float, float]:
        """Three numbers in [0, 1) for what it does, how long that takes, and how much it bids."""
        words = struct.unpack("3I", blake2b(request_id.encode(), digest_size=12, key=self._key).digest())
        return words[0] / 2**32, words[1] / 2**32, words[2] / 2**32

    def _answer(self, request: _Request, what: float, price: float) -> bytes | Misbehaviour:
        script = self.script
        if what < script.misbehaves:
            self.counts[script.misbehaviour.value] += 1
            return self._wrong(request, price)
        what -= script.misbehaves
        if what < script.errors:
            self.counts["errors"] += 1
            return _ERROR
        if what < script.errors + script.no_bid:
            self.counts["no_bids"] += 1
            return _NOTHING
        self.counts["bids"] += 1
        return self._bids(request, price)

    def _wrong(self, request: _Request, price: float) -> bytes | Misbehaviour:
        kind = self.script.misbehaviour
        if kind is Misbehaviour.GARBAGE:
            return b"\0\1\2 this is not HTTP\r\n\r\n"
        if kind is Misbehaviour.WRONG_JSON:
            return response(b"200 OK", b'{"id":"1","seatbid":[{"bid":{"price":"much"}}]}')
        if kind is Misbehaviour.WRONG_CURRENCY:
            return self._bids(request, price, cur="XTS")
        if kind is Misbehaviour.WRONG_ID:
            return self._bids(_Request("another", request.imp), price)
        return kind

    def _bids(self, request: _Request, price: float, cur: str = "") -> bytes:
        name = self.script.name
        bids = []
        for imp in request.imp:
            w = h = None
            if imp.banner is not None:
                size = imp.banner.format[0] if imp.banner.format else imp.banner
                w, h = size.w, size.h
            bids.append(
                Bid(
                    id=f"{name}-{imp.id}",
                    impid=imp.id,
                    price=round(quantile(self.script.cpm, price), 4),
                    adm=f"<b>{name}</b>",
                    adomain=[f"{name}.test"],
                    crid=name,
                    w=w,
                    h=h,
                )
            )
        answer = BidResponse(id=request.id, cur=cur or self.script.cur, seatbid=[SeatBid(seat=name, bid=bids)])
        return response(b"200 OK", openrtb.encode(answer))

    def _act(self, answer: bytes | Misbehaviour) -> Callable[[Connection, Slot], None]:
        """What is done when the time has come."""
        if isinstance(answer, bytes):
            return lambda connection, slot: connection.answer(slot, answer)
        return {
            Misbehaviour.DRIP: _drip,
            Misbehaviour.FLOOD: lambda connection, slot: connection.answer(slot, _FLOOD),
            Misbehaviour.RESET: lambda connection, slot: connection.abort(),
        }.get(answer, lambda connection, slot: None)


class _LeakyConnection(Connection):
    """A connection on which something may be said out of turn."""

    def write(self, data: bytes) -> bool:
        """Say it; False when the connection has gone."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True


class _LeakyServer(Server):
    def __call__(self) -> Connection:
        return _LeakyConnection(self)


def _drip(connection: Connection, slot: Slot) -> None:
    """Begin an answer and go on with a byte of it now and then, as long as somebody listens."""
    connection.answer(slot, b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")

    def drop() -> None:
        if isinstance(connection, _LeakyConnection) and connection.write(b" "):
            asyncio.get_running_loop().call_later(_DRIP_S, drop)

    drop()


@contextlib.asynccontextmanager
async def serving(
    scripts: Sequence[DspScript], *, seed: int = 1, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[list[tuple[Dsp, str]]]:
    """Serve bidders while the block runs, on ports from `port` on (0: any): each with the URL it takes requests at."""
    clock = SystemClock()
    served: list[tuple[Dsp, str]] = []
    async with contextlib.AsyncExitStack() as stack:
        for n, script in enumerate(scripts):
            dsp = Dsp(script, seed)
            http = _LeakyServer(dsp, clock)
            listener = await asyncio.get_running_loop().create_server(http, host, port + n if port else 0, backlog=1024)
            stack.push_async_callback(_close, listener, http)
            served.append((dsp, f"http://{host}:{listener.sockets[0].getsockname()[1]}{BID_PATH.decode()}"))
        yield served


async def _close(listener: asyncio.Server, http: Server) -> None:
    loop = asyncio.get_running_loop()
    for accepting in listener.sockets:
        loop.remove_reader(accepting)
    await asyncio.sleep(0)  # asyncio lets go of a connection, open, that it has accepted in the step before the close
    listener.close()
    for _ in range(_STEPS_IN):
        for connection in [*http.connections]:
            connection.abort()
        await asyncio.sleep(0)
