"""``rtb certify``: its tables, its exit code, and how it refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import msgspec
import pytest
from click import BadParameter, UsageError
from click.testing import CliRunner

from rtb.cli import cli
from rtb.errors import ConfigError, HttpError
from rtb.lab.dsp import DspScript, Misbehaviour, serving

SCRIPTS = (
    DspScript(name="good", latency_ms=(0.0,), no_bid=0.5),
    DspScript(name="wrong", latency_ms=(0.0,), misbehaves=1.0, misbehaviour=Misbehaviour.WRONG_ID),
)
BRIEF = ("--rate", "200", "--duration", "0.1", "--tmax", "20000", "--seed", "1")


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Of bidders that follow SCRIPTS, in a thread of their own: the command has the main thread's loop."""
    loop, started, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[str] = []

    async def serve() -> None:
        async with serving(SCRIPTS) as served:
            found.extend(url for _, url in served)
            started.set()
            await ended.wait()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(20)
    yield found
    loop.call_soon_threadsafe(ended.set)
    thread.join()


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit code and output; errors of ours are raised, and are printed by `main`."""
    result = CliRunner().invoke(cli, ["certify", *arguments], catch_exceptions=False, standalone_mode=False)
    if isinstance(result.exception, UsageError):
        raise result.exception
    return result.exit_code, result.output


def test_tables_have_a_line_for_each_limit(urls: list[str]) -> None:
    """Whoever passes is told so, and the exit code is 0."""
    code, out = invoke(urls[0], "--dsp", *BRIEF)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("20 requests, 200 a second: ")
    assert lines[0].endswith(" without, 0 timeouts, 0 errors, 0 invalid")
    assert lines[-1] == "passed"
    columns = [line.split("  ") for line in lines if line.startswith("pass  ")]
    assert ["pass", "timeouts", "0.00 %", "at most 15 %"] in [[part.strip() for part in c if part] for c in columns]
    assert "FAIL" not in out


def test_a_failure_is_told_by_the_exit_code_and_in_json(urls: list[str]) -> None:
    """Every answer is to another request; which are the probes' lines that fail, too."""
    code, out = invoke(urls[1], "--dsp", *BRIEF)
    assert code == 1
    assert "FAIL  timeouts, errors and invalid answers  100.00 %" in out
    assert "20 x invalid: id: is not that of the request [4.2.1]" in out
    code, out = invoke(urls[1], "--dsp", "--json", *BRIEF)
    assert code == 1
    found = msgspec.json.decode(out)
    assert (found["passed"], found["sent"], found["invalid"], found["invalid_share"]) == (False, 20, 20, 1.0)
    assert {"name": "timeouts", "measured": "0.00 %", "limit": "at most 15 %", "passed": True, "required": True} in (
        found["lines"]
    )


def test_refusals_are_one_line() -> None:
    """Each says what to do."""
    with pytest.raises(UsageError, match="say what is at the URL: --exchange or --dsp"):
        invoke("http://127.0.0.1:1/")
    with pytest.raises(BadParameter, match="'x': write NAME=VALUE"):
        invoke("http://127.0.0.1:1/", "--dsp", "--header", "x")
    with pytest.raises(ConfigError, match="a URL must be http or https, with a host"):
        invoke("ftp://x", "--dsp")
    with pytest.raises(HttpError, match="nobody answers there"):
        invoke("http://127.0.0.1:1/", "--exchange")
