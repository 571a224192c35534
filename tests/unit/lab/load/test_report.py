"""What is printed, and the files that are compared."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from msgspec import structs

from rtb.lab.load import report
from rtb.lab.load.command import load, verdict
from rtb.lab.load.plan import Latency, Plan, Report, Result, Server, Trial

RESULT = Result(
    plan=Plan(rate=1000),
    started="2026-01-01T00:00:00+00:00",
    seconds=10.0,
    body_bytes=1000.0,
    sent=10_000,
    won=6000,
    no_bid=3000,
    timeout=500,
    shed=300,
    error=150,
    lost=50,
    reasons={"status 500": 150, "connection closed": 50},
    misses=199,
    answers_per_s=995.0,
    latency=Latency(p50_ms=1, p90_ms=2, p95_ms=3, p99_ms=4, p999_ms=5, max_ms=6, mean_ms=1.5),
    lag_p99_ms=0.1,
    lag_max_ms=0.5,
    tool_cores=0.2,
    server=Server(pid=7, cpu_s=2.0, cores=0.2, rss_bytes=100 * 2**20, answers=10_000),
    invalid="",
    hdr="",
)


def test_the_account_is_printed_as_an_equation() -> None:
    """All six outcomes stand beside what was sent, and reasons below."""
    text = report.text(RESULT)
    assert "sent 10,000 = won 6,000 + no-bid 3,000 + timeout 500 + shed 300 + error 150 + lost 50" in text
    assert "status 500: 150, connection closed: 50" in text
    assert RESULT.balances


def test_misses_are_a_share_of_answers() -> None:
    """199 misses of 9,950 answers are 2 %."""
    assert RESULT.miss_share == pytest.approx(0.02)
    assert "deadline 100 ms missed by 2.000 % of answers" in report.text(RESULT)


def test_answers_per_cpu_second() -> None:
    """10,000 answers for 2 CPU-seconds are 5,000 a CPU-second."""
    assert "5,000 answers/CPU-s" in report.text(RESULT)


def test_an_invalid_run_says_so() -> None:
    """Nobody may overlook it."""
    assert "INVALID: the tool lagged" in report.text(structs.replace(RESULT, invalid="the tool lagged"))


def test_a_closed_loop_says_what_its_latency_is() -> None:
    """Latencies of a closed loop are not from intended times, and the report does not pretend so."""
    closed = structs.replace(RESULT, plan=Plan(rate=None))
    assert "latency from sending, closed loop" in report.text(closed)
    assert "latency from intended time" in report.text(RESULT)


def test_share_of_the_null_server() -> None:
    """5,000 a CPU-second against 15,000 and 25,000 of a server that does nothing, before and after, are 25 %."""
    nulls = [
        structs.replace(RESULT, server=Server(pid=8, cpu_s=cpu_s, cores=0.05, rss_bytes=1, answers=15_000))
        for cpu_s in (1.0, 0.6)
    ]
    assert "100 % of its answers/s, 25 % of its answers/CPU-s (15,000, 25,000)" in report.share(RESULT, nulls)


def test_compare_shows_the_relative_change(tmp_path: Path) -> None:
    """p99 from 4 to 6 ms is +50 % and marked as worse; 5,000 to 6,250 a CPU-second is +25 % and is not."""
    faster = structs.replace(
        RESULT,
        latency=structs.replace(RESULT.latency, p99_ms=6),
        server=Server(pid=7, cpu_s=1.6, cores=0.2, rss_bytes=100 * 2**20, answers=10_000),
    )
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_bytes(msgspec.json.encode(Report(result=RESULT)))
    b.write_bytes(msgspec.json.encode(Report(result=faster, trials=[Trial(rate=1.0, p99_ms=1.0, why="")])))
    result = CliRunner().invoke(load, ["compare", str(a), str(b)])
    assert result.exit_code == 0
    rows = {line.split("  ")[0]: line.split() for line in result.output.splitlines()}
    assert rows["p99, ms"][-5:] == ["4.000", "6.000", "+50.0", "%", "*"]
    assert rows["answers/CPU-s"][-4:] == ["5,000", "6,250", "+25.0", "%"]
    assert rows["p50, ms"][-4:] == ["1.000", "1.000", "+0.0", "%"]


def test_compare_refuses_other_files(tmp_path: Path) -> None:
    """A file that no run wrote is named."""
    file = tmp_path / "x.json"
    file.write_text("{}")
    result = CliRunner().invoke(load, ["compare", str(file), str(file)])
    assert result.exit_code == 1
    assert "x.json is not a load report" in result.output


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"lost": 1}, "1 lost"),
        ({"error": 2}, "2 errors"),
        ({"shed": 3}, "3 shed"),
        ({"invalid": "the tool lagged"}, "the tool lagged"),
        ({"latency": structs.replace(RESULT.latency, p99_ms=50.1)}, "p99 above 50 ms"),
    ],
)
def test_a_rate_passes_when_valid_answered_and_in_time(change: dict[str, object], why: str) -> None:
    """Lost, error, shed, invalid or a p99 over the bound each fail a rate of a search."""
    clean = structs.replace(RESULT, lost=0, error=0, shed=0)
    assert verdict(structs.replace(clean, **change), 50.0) == why


def test_search_prints_trials_and_the_best() -> None:
    """Each rate tried has its verdict."""
    trials = [Trial(rate=1000.0, p99_ms=1.0, why=""), Trial(rate=2000.0, p99_ms=80.0, why="p99 above 50 ms")]
    text = report.search(trials, 1000.0, 50.0)
    assert "passes" in text
    assert text.endswith("highest rate with p99 <= 50 ms and every request answered: 1,000/s")
    assert report.search([], 0.0, 50.0).endswith("none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--saturate", "--rate", "5"], "--saturate has no rate"),
        (["--rate", "-1"], "--rate"),
        (["--url", "http://127.0.0.1:1/x", "--unique", "1"], "http://127.0.0.1:1/x"),
        (["--body", "/no/such/file"], "/no/such/file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    """A wrong option, an address where nobody listens and a missing file end with a line that names them."""
    result = CliRunner().invoke(load, arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
