"""Certification of real servers: the lab's bidders."""

from __future__ import annotations

import asyncio

import pytest

from rtb.errors import ConfigError, HttpError
from rtb.lab.certify import Trial, certify
from rtb.lab.certify_probes import QUESTIONS
from rtb.lab.certify_report import Report
from rtb.lab.dsp import Dsp, DspScript, Misbehaviour, serving
from rtb.lab.traffic import Traffic

PATIENT_MS = 20_000
"""A tmax that nobody misses, on the slowest machine."""


async def certified(
    script: DspScript, *, requests: int = 60, tmax_ms: int = PATIENT_MS, patience_ms: int = PATIENT_MS
) -> tuple[Report, Dsp]:
    """The report on a bidder that follows a script, after so many requests."""
    async with serving([script], seed=7) as ((dsp, url),):
        seconds = requests / 300
        trial = Trial(url=url, kind="dsp", rate=300, seconds=seconds, tmax_ms=tmax_ms, patience_ms=patience_ms, seed=3)
        return await certify(trial), dsp


def drawn(script: DspScript, requests: int, least: float, most: float) -> int:
    """How many requests of the traffic a bidder draws a fate for that lies in [least, most)."""
    dsp, traffic = Dsp(script, 7), Traffic(3)
    return sum(least <= dsp.draws(traffic.request()["id"])[0] < most for _ in range(requests))


async def test_a_bidder_that_does_well_passes() -> None:
    """All that was sent is a bid or none, and the probes are answered; no share but that of bids is above 0."""
    script = DspScript(name="good", latency_ms=(0.0,), no_bid=0.3)
    found, dsp = await certified(script)
    assert (found.sent, found.timeouts, found.errors, found.invalid) == (60, 0, 0, 0)
    assert found.no_bids == drawn(script, 60, 0.0, 0.3) > 0
    assert found.bids == 60 - found.no_bids
    assert [line.name for line in found.lines if not line.passed] == []
    assert found.passed(strict=True)
    assert {line.name for line in found.lines} >= {question.name for question in QUESTIONS}
    assert dsp.counts["requests"] >= 60 + len(QUESTIONS)


async def test_errors_are_counted_one_by_one() -> None:
    """As many as the bidder drew."""
    script = DspScript(name="weak", latency_ms=(0.0,), no_bid=0.0, errors=0.3)
    found, _ = await certified(script)
    errors = drawn(script, 60, 0.0, 0.3)
    assert (found.errors, found.bids) == (errors, 60 - errors)
    assert dict(found.reasons) == {"error: HTTP status 500": errors}
    assert errors > 0
    assert not found.passed()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Misbehaviour.WRONG_JSON, "invalid: seatbid[0].bid: expected `array | null`, got `object`"),
        (Misbehaviour.WRONG_ID, "invalid: id: is not that of the request [4.2.1]"),
        (Misbehaviour.WRONG_CURRENCY, "invalid: no bid can be taken: invalid response (3)"),
    ],
)
async def test_invalid_answers_are_told_by_what_is_wrong(kind: Misbehaviour, reason: str) -> None:
    """As many as the bidder drew, and too many."""
    script = DspScript(name="wrong", latency_ms=(0.0,), no_bid=0.0, misbehaves=0.3, misbehaviour=kind)
    found, _ = await certified(script)
    invalid = drawn(script, 60, 0.0, 0.3)
    assert (found.invalid, dict(found.reasons)) == (invalid, {reason: invalid})
    assert not found.passed()


@pytest.mark.parametrize(
    ("kind", "reason"), [(Misbehaviour.RESET, "error: closed"), (Misbehaviour.GARBAGE, "error: malformed")]
)
async def test_what_breaks_a_connection_is_an_error(kind: Misbehaviour, reason: str) -> None:
    """It may cost a neighbour its answer, too: at least as many as the bidder drew."""
    script = DspScript(name="rude", latency_ms=(0.0,), no_bid=0.0, misbehaves=0.3, misbehaviour=kind)
    found, _ = await certified(script)
    assert found.errors >= drawn(script, 60, 0.0, 0.3)
    assert any(name.startswith(reason) for name in found.reasons)
    assert not found.passed()


async def test_a_bidder_that_hangs_fails_by_its_timeouts() -> None:
    """And by the probes. What is never answered took as long as it was waited for."""
    script = DspScript(name="dead", latency_ms=(0.0,), misbehaves=1.0, misbehaviour=Misbehaviour.HANG)
    found, _ = await certified(script, requests=20, tmax_ms=50, patience_ms=250)
    assert (found.timeouts, found.timeout_share) == (20, 1.0)
    assert dict(found.reasons) == {"timeout: no answer": 20}
    failed = {line.name for line in found.lines if not line.passed}
    assert failed >= {"timeouts", "timeouts, to qualify", "p50", "p95", "p99", "video", "a private deal"}
    assert "no bid request" not in failed  # that it refuses at once
    assert found.p50_ms >= 300


async def test_an_answer_after_tmax_is_a_timeout_that_took_so_long() -> None:
    """Here each takes 30 ms, and may take 1."""
    found, _ = await certified(DspScript(name="slow", latency_ms=(30.0,)), requests=20, tmax_ms=1)
    assert (found.timeouts, dict(found.reasons)) == (20, {"timeout: the answer came after tmax": 20})
    assert found.p50_ms >= 30


async def test_requests_are_tests_unless_they_are_to_be_live() -> None:
    """With the tmax and the headers that were asked for."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            heard.append(head + await reader.readexactly(length))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        for test in (True, False):
            heard.clear()
            headers = {"authorization": "Bearer t"}
            await certify(
                Trial(url=url, kind="exchange", rate=100, seconds=0.05, tmax_ms=PATIENT_MS, test=test, headers=headers)
            )
            requests = [body for body in heard if b'"device"' in body]
            assert len(requests) >= 5
            for body in requests:
                assert (b'"test":1' in body) is test
                assert b'"tmax":20000' in body
                assert b"authorization: Bearer t\r\n" in body


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def test_where_nobody_answers_there_is_nothing_to_certify() -> None:
    """One line, as for a URL that is none."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(HttpError, match=r"nobody answers there"):
        await certify(Trial(url=f"http://127.0.0.1:{port}/", kind="dsp"))
    with pytest.raises(ConfigError, match=r"http or https"):
        await certify(Trial(url="nonsense", kind="dsp"))
    with pytest.raises(ConfigError, match=r"cannot be sent"):
        await certify(Trial(url="http://127.0.0.1/", kind="dsp", headers={"host": "x"}))
