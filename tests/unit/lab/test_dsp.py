"""Simulated bidders: what they do is decided by seed, name and request alone."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.adapters.clock import SystemClock
from rtb.adapters.http_client import Call, FanoutClient
from rtb.lab.dsp import Dsp, DspScript, Misbehaviour, quantile, serving
from tests.support.fanout import LOCAL, ask


def body(request_id: str) -> bytes:
    """A bid request of two imps."""
    imps = [{"id": "1", "banner": {"w": 300, "h": 250}}, {"id": "2", "video": {"mimes": ["video/mp4"]}}]
    return json.dumps({"id": request_id, "imp": imps}).encode()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=5).map(sorted), st.floats(0, 1))
def test_a_quantile_is_between_its_neighbours(curve: list[float], at: float) -> None:
    """And at the ends it is the least and the most."""
    assert curve[0] - 1e-9 <= quantile(curve, at) <= curve[-1] + 1e-9
    assert (quantile(curve, 0), quantile(curve, 1)) == (curve[0], pytest.approx(curve[-1]))


def test_the_median_is_the_middle_of_the_curve() -> None:
    """(5, 8, 40): 8 at one half, 6.5 at a quarter, 24 at three quarters."""
    assert [quantile((5, 8, 40), at) for at in (0.25, 0.5, 0.75)] == [6.5, 8, 24]


async def run(seed: int, count: int = 200) -> tuple[list[tuple[int, bytes]], Counter[str]]:
    """What a bidder answers to some requests, and what it counted."""
    script = DspScript(name="a", latency_ms=(0.0,), no_bid=0.3, errors=0.1)
    client = FanoutClient(SystemClock(), allow=LOCAL)
    async with serving([script], seed=seed) as ((dsp, url),):
        endpoint = client.endpoint(url)
        calls = [await ask(client, endpoint, body(f"r{n}")) for n in range(count)]
        await client.close()
        return [(call.status, call.content) for call in calls], dsp.counts


async def test_a_seed_decides_what_a_bidder_does() -> None:
    """The shares are those of the script, the answers the same in every run, and others with another seed."""
    first, counts = await run(1)
    assert (await run(1))[0] == first
    assert (await run(2))[0] != first
    assert counts["requests"] == 200
    assert counts["no_bids"] == pytest.approx(60, abs=25)
    assert counts["errors"] == pytest.approx(20, abs=15)
    bid = json.loads(next(content for status, content in first if status == 200))
    assert [(each["impid"], each.get("w")) for each in bid["seatbid"][0]["bid"]] == [("1", 300), ("2", None)]
    assert all(0.5 <= each["price"] <= 4 for each in bid["seatbid"][0]["bid"])


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        (Misbehaviour.HANG, "timeout"),
        (Misbehaviour.DRIP, "timeout"),
        (Misbehaviour.FLOOD, "too-large"),
        (Misbehaviour.RESET, "closed"),
        (Misbehaviour.GARBAGE, "malformed"),
    ],
)
async def test_misbehaviour_is_what_it_says(kind: Misbehaviour, failure: str) -> None:
    """As the client sees it."""
    client = FanoutClient(SystemClock(), allow=LOCAL)
    async with serving([DspScript(name="a", latency_ms=(0.0,), misbehaves=1, misbehaviour=kind)]) as ((dsp, url),):
        within_s = 1 if failure == "timeout" else 20  # on a busy machine, too, the server has heard of it by then
        call: Call = await ask(client, client.endpoint(url), body("r"), within_s=within_s)
        assert (call.failure, dsp.counts[kind.value]) == (failure, 1)
        await client.close()


async def test_what_is_no_bid_request_is_an_error() -> None:
    """And a notice is counted by its path."""
    client = FanoutClient(SystemClock(), allow=LOCAL)
    async with serving([DspScript(name="a")]) as ((dsp, url),):
        assert (await ask(client, client.endpoint(url), b"{}")).status == 400
        assert (await ask(client, client.endpoint(url.replace("/bid", "/win?price=1")), b"")).status == 204
        stats = await ask(client, client.endpoint(url.replace("/bid", "/stats")), b"")
        assert json.loads(stats.content) == {"requests": 1, "invalid": 1, "win": 1} == dict(dsp.counts)
        await client.close()


def test_draws_are_shares() -> None:
    """Evenly spread, independent of each other."""
    draws = [Dsp(DspScript(name="a")).draws(str(n)) for n in range(2_000)]
    for column in zip(*draws, strict=True):
        assert 0 <= min(column) < 0.01
        assert 0.99 < max(column) < 1
        assert sum(column) / len(column) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("steps", range(5))
async def test_a_connection_that_comes_as_the_server_closes_is_closed(steps: int) -> None:
    """In whatever step of the loop it is accepted: no socket is left open, of which pytest would warn."""
    async with serving([DspScript(name="a")]) as ((_, url),):
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))):
            for _ in range(steps):
                await asyncio.sleep(0)
    gc.collect()


async def test_the_command_serves_until_it_is_stopped() -> None:
    """It prints name and URL of each bidder, then that it is ready; SIGTERM ends it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtb.cli.lab_dsps", "2", "--port", "0", "--misbehave", "2:hang"),
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
    assert [line[0] for line in lines] == ["dsp1", "dsp2", "ready"]
    client = FanoutClient(SystemClock(), allow=LOCAL)
    assert (await ask(client, client.endpoint(lines[0][1]), body("r"))).status in (200, 204)
    await client.close()
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
