"""Shares, percentiles and limits."""

from __future__ import annotations

import pytest

from rtb.lab.certify_report import Count, Probe, Report, report
from rtb.lab.certify_verdict import Kind, Verdict

MS = 1_000_000


def made(*verdicts: tuple[Verdict, int], probes: tuple[Probe, ...] = (), lag_p99_ms: float = 0.0) -> Report:
    """Of verdicts and their milliseconds."""
    count = Count()
    for verdict, took_ms in verdicts:
        count.add(verdict, took_ms * MS)
    return report(count, probes, url="u", kind="dsp", tmax_ms=100, rate=50.0, seconds=2.0, lag_p99_ms=lag_p99_ms)


BID = Verdict(Kind.BID)
LATE = Verdict(Kind.TIMEOUT, "no answer")
WRONG = Verdict(Kind.INVALID, "no JSON", ("size (203)",))
BROKEN = Verdict(Kind.ERROR, "HTTP status 500")


def failing(found: Report) -> list[str]:
    """The names of lines that did not pass."""
    return [line.name for line in found.lines if not line.passed]


def test_percentiles_are_of_the_nearest_rank() -> None:
    """1 to 100 ms: p50 is 50, p95 is 95, p99 is 99."""
    found = made(*((BID, n) for n in range(100, 0, -1)))
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (50.0, 95.0, 99.0)
    assert (found.sent, found.bids, failing(found)) == (100, 100, [])


@pytest.mark.parametrize(
    ("bad", "lines", "required"),
    [
        (2, ["p99"], True),
        (3, ["timeouts, to qualify", "p99"], True),
        (15, ["timeouts, to qualify", "p95", "p99"], True),
        (
            16,
            ["timeouts", "timeouts, errors and invalid answers", "timeouts, to qualify", "p95", "p99"],
            False,
        ),
    ],
)
def test_timeouts_may_be_15_in_a_hundred_and_2_to_qualify(bad: int, lines: list[str], required: bool) -> None:
    """At the limit is within it. What qualifies counts only when it is strict."""
    found = made(*((BID, 10) for _ in range(100 - bad)), *((LATE, 1_100) for _ in range(bad)))
    assert failing(found) == lines
    assert (found.timeout_share, found.passed(), found.passed(strict=True)) == (bad / 100, required, False)


def test_errors_and_invalid_answers_count_with_timeouts() -> None:
    """Six of each of a hundred are 18 %: too many together, none alone."""
    found = made(*[(BID, 10)] * 82, *[(LATE, 1_100)] * 6, *[(WRONG, 10)] * 6, *[(BROKEN, 10)] * 6)
    assert (found.timeout_share, found.error_share, found.invalid_share) == (0.06, 0.06, 0.06)
    assert not found.passed()
    assert [line.name for line in found.lines if line.required and not line.passed] == [
        "timeouts, errors and invalid answers"
    ]
    assert dict(found.reasons) == {"timeout: no answer": 6, "invalid: no JSON": 6, "error: HTTP status 500": 6}
    assert dict(found.refused) == {"size (203)": 6}


def test_a_probe_that_failed_is_a_line_that_failed() -> None:
    """With what is wrong."""
    found = made((BID, 10), probes=(Probe(name="video"), Probe(name="audio", why="no answer")))
    assert failing(found) == ["audio"]
    assert (found.lines[-1].measured, found.passed()) == ("no answer", False)


def test_nothing_sent_passes_nothing() -> None:
    """There are no shares of nothing."""
    assert not any(line.passed for line in made().lines)


def test_who_measures_late_says_so() -> None:
    """Above 5 ms of lag of its own."""
    assert made((BID, 1), lag_p99_ms=5.0).note == ""
    assert "this tool was late itself (p99 5.1 ms)" in made((BID, 1), lag_p99_ms=5.1).note
