"""The load tool and the null server as users run them, in processes of their own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from rtb.lab.load.plan import Report
from rtb.lab.null_server import running

ROOT = Path(__file__).parents[2]
LENIENT = ("--max-lag-ms", "60000", "--give-up-ms", "60000")
"""A busy machine is not what this is about."""


async def load(*arguments: str) -> tuple[int, str]:
    """Run benchmarks/load.py: its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "benchmarks/load.py", *arguments, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_run_against_the_null_server(tmp_path: Path) -> None:
    """An open loop of 300 requests is answered in full; the report balances and knows the server's process and CPU."""
    file = tmp_path / "run.json"
    async with running() as (port, pid):
        code, output = await load(
            "--url", f"http://127.0.0.1:{port}/openrtb2/auction", "--any-id", "--rate", "300", "--duration", "1",
            "--warmup", "0.2", "--unique", "20", *LENIENT, "--json", str(file),
        )  # fmt: skip
    assert code == 0, output
    assert "sent 300 = won 300 + no-bid 0 + timeout 0 + shed 0 + error 0 + lost 0" in output
    result = msgspec.json.decode(file.read_bytes(), type=Report).result
    assert result.balances
    assert result.server is not None
    assert result.server.pid == pid
    assert result.server.rss_bytes > 0


async def test_saturation_with_the_share_of_a_null_server() -> None:
    """--null runs the same plan against a server of its own and prints the share."""
    async with running() as (port, _):
        code, output = await load(
            "--url", f"http://127.0.0.1:{port}/openrtb2/auction", "--any-id", "--saturate", "--null",
            "--duration", "2", "--warmup", "0.1", "--unique", "20", *LENIENT,
        )  # fmt: skip
    assert code == 0, output
    assert "of the null server, same plan" in output
    assert "INVALID" not in output


async def test_a_lagging_tool_makes_the_run_invalid() -> None:
    """With a bound that no tool can keep, the run is marked and the exit code says so."""
    async with running() as (port, _):
        code, output = await load(
            "--url", f"http://127.0.0.1:{port}/openrtb2/auction", "--any-id", "--rate", "200", "--duration", "0.5",
            "--warmup", "0", "--unique", "5", "--max-lag-ms", "0",
        )  # fmt: skip
    assert code == 1
    assert "INVALID: the tool lagged" in output


async def test_a_run_against_the_daemon(tmp_path: Path) -> None:
    """The demo daemon answers every request in full: wins and no-bids only, each with its own request's id."""
    file = tmp_path / "run.json"
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rtb", "demo", "--rate", "0", "--set", "http.port=0", "--set", "dashboard.port=0",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert daemon.stdout is not None
        ready = ""
        while not ready.startswith("ready "):
            line = await daemon.stdout.readline()
            assert line, "the daemon ended before it was ready"
            ready = line.decode()
        url = dict(word.split("=", 1) for word in ready.split()[1:])["http"]
        code, output = await load(
            "--url", f"{url}/openrtb2/auction", "--rate", "200", "--duration", "1", "--warmup", "0.5",
            "--unique", "200", *LENIENT, "--json", str(file),
        )  # fmt: skip
    finally:
        daemon.terminate()
        await daemon.communicate()
    assert code == 0, output
    result = msgspec.json.decode(file.read_bytes(), type=Report).result
    assert result.balances
    assert result.sent == 200
    assert result.error == result.lost == 0, output
    assert result.won > 0
    assert result.server is not None
    assert result.server.pid == daemon.pid
