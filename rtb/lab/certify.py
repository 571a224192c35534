"""Certification: bid requests to an exchange or a bidder at a steady rate, then one of each special kind; every answer
is judged, and the times count from when a request was due."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from rtb import openrtb
from rtb.adapters.clock import SystemClock
from rtb.adapters.http_client import Call, Endpoint, Failure, FanoutClient, Limits
from rtb.errors import HttpError
from rtb.lab.certify_probes import QUESTIONS, TRIES, Question
from rtb.lab.certify_report import Count, Probe, Report, report
from rtb.lab.certify_verdict import Kind, Verdict, judged
from rtb.lab.load.loops import OpenLoop, constant
from rtb.lab.load.run import send_all
from rtb.lab.load.tally import Outcome, percentile_us
from rtb.lab.traffic import Traffic
from rtb.openrtb import BidRequest

_MS = 1_000_000
_S = 1_000_000_000
_MEETING_NS = 2 * _S
_ANYWHERE = ("0.0.0.0/0", "::/0")  # whoever calls this has chosen the server
_LATE = "the answer came after tmax"
_NEVER = "no answer"
_OUTCOMES = {Kind.BID: Outcome.WON, Kind.NO_BID: Outcome.NO_BID, Kind.TIMEOUT: Outcome.TIMEOUT}


class Trial(Struct, frozen=True, kw_only=True):
    """What to send.

    Attributes:
        url: where requests are posted.
        kind: exchange or dsp.
        rate: requests a second.
        seconds: how long.
        tmax_ms: sent as ``tmax``.
        patience_ms: how much longer an answer is waited for, to tell how late it is.
        seed: of the traffic; None for traffic that was never sent before.
        test: whether requests say that they are a test, so that nobody pays.
        headers: sent with each request.
    """

    url: str
    kind: str
    rate: float = 50.0
    seconds: float = 10.0
    tmax_ms: int = 100
    patience_ms: int = 1_000
    seed: int | None = None
    test: bool = True
    headers: Mapping[str, str] = {}

    @property
    def give_up_ns(self) -> int:
        """How long an answer is waited for."""
        return (self.tmax_ms + self.patience_ms) * _MS


async def certify(trial: Trial) -> Report:
    """Send it, and judge.

    Raises:
        ConfigError: the URL, or a header, is none.
        HttpError: nobody answers there.
    """
    clock = SystemClock()
    client = FanoutClient(clock, allow=_ANYWHERE)
    try:
        limits = Limits(connections=256, warm=8, waiting=100_000, connect_s=5.0)
        headers = {"x-openrtb-version": "2.6", **trial.headers}
        endpoint = client.endpoint(trial.url, headers=headers, limits=limits)
        client.start()
        await _meet(client, endpoint, trial)
        target = _Target(client, endpoint, trial)
        begin_ns = time.monotonic_ns()
        times = constant(trial.rate, begin_ns, begin_ns + int(trial.seconds * _S))
        loop = target.loop = OpenLoop(target, time.monotonic_ns, 0, times, 1 << 62)
        await send_all(loop)
        while not loop.finished:
            await target.over.wait()
            target.over.clear()
        probes = await asyncio.gather(*(_probe(client, endpoint, trial, question) for question in QUESTIONS))
        return report(
            target.count,
            probes,
            url=trial.url,
            kind=trial.kind,
            tmax_ms=trial.tmax_ms,
            rate=trial.rate,
            seconds=trial.seconds,
            lag_p99_ms=percentile_us(loop.tally.lags_us, 99) / 1000,
        )
    finally:
        await client.close()


class _Target:
    """Where the loop sends; it judges what comes back."""

    loop: OpenLoop

    def __init__(self, client: FanoutClient, endpoint: Endpoint, trial: Trial) -> None:
        self.count = Count()
        self.over = asyncio.Event()
        self._client = client
        self._endpoint = endpoint
        self._tmax_ms = trial.tmax_ms
        self._give_up_ns = trial.give_up_ns
        self._bodies = _Bodies(trial)

    def send(self, intended_ns: int, now_ns: int) -> bool:
        """Take a request, always; its time runs from when it was due."""
        body = self._bodies.next()
        self._client.call(self._endpoint, body, self._ended, intended_ns + self._give_up_ns, (intended_ns, body))
        return True

    def sweep(self, now_ns: int) -> None:
        """The client gives up by itself."""

    def _ended(self, call: Call) -> None:
        intended_ns, body = call.context
        took_ns = call.ended_ns - intended_ns
        verdict = _verdict(call, openrtb.decode_request(body), took_ns, self._tmax_ms)
        self.count.add(verdict, took_ns)
        self.loop.over(intended_ns, _OUTCOMES.get(verdict.kind, Outcome.ERROR), verdict.reason, call.ended_ns)
        self.over.set()


class _Bodies:
    """Lab traffic, with the `tmax` of a trial and ids of its own."""

    def __init__(self, trial: Trial) -> None:
        self._traffic = Traffic(secrets.randbits(32) if trial.seed is None else trial.seed)
        self._fields: dict[str, Any] = {"tmax": trial.tmax_ms, **({"test": 1} if trial.test else {})}

    def next(self) -> bytes:
        return orjson.dumps(self._traffic.request() | self._fields)


async def _meet(client: FanoutClient, endpoint: Endpoint, trial: Trial) -> None:
    """Send one request that does not count: connections are made, and what is no server is found out."""
    body = QUESTIONS[0].body(secrets.token_hex(16), trial.tmax_ms, test=trial.test)
    call = await _asked(client, endpoint, body, time.monotonic_ns() + max(_MEETING_NS, trial.give_up_ns))
    if call.failure is not None and not call.sent_ns:
        raise HttpError(f"{trial.url}: nobody answers there: {call.detail}")


async def _probe(client: FanoutClient, endpoint: Endpoint, trial: Trial, question: Question) -> Probe:
    why = ""
    for _ in range(TRIES):
        body = question.body(secrets.token_hex(16), trial.tmax_ms, test=trial.test)
        asked_ns = time.monotonic_ns()
        call = await _asked(client, endpoint, body, asked_ns + trial.give_up_ns)
        request = BidRequest(id="") if question.wrong else openrtb.decode_request(body)
        verdict = _verdict(call, request, call.ended_ns - asked_ns, trial.tmax_ms)
        why = question.objection(verdict, call.status)
        if not why:
            break
    return Probe(name=question.name, why=why)


def _verdict(call: Call, request: BidRequest, took_ns: int, tmax_ms: int) -> Verdict:
    if call.failure is Failure.TIMEOUT:
        return Verdict(Kind.TIMEOUT, _NEVER)
    if call.failure is not None:
        return Verdict(Kind.ERROR, f"{call.failure.value}: {call.detail}")
    if took_ns > tmax_ms * _MS:
        return Verdict(Kind.TIMEOUT, _LATE)
    return judged(request, call.status, call.content)


async def _asked(client: FanoutClient, endpoint: Endpoint, body: bytes, deadline_ns: int) -> Call:
    ended: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
    client.call(endpoint, body, ended.set_result, deadline_ns)
    return await ended
