"""What a certification came to: shares, percentiles, and a line for each limit.

Sources of the limits: Google's Authorized Buyers ask for 85 % of the answers within the deadline and throttle a bidder
with more than 15 % of timeouts and invalid responses together ("Latency Restrictions", "Callout Quota System"). The 2 %
to qualify are a bound of our own: no large exchange publishes what it expects of a bidder that gets all of its traffic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from rtb.lab.certify_verdict import Kind, Verdict

MOST_TIMEOUTS = 0.15
QUALIFYING = 0.02
LAG_MS = 5.0


class Line(Struct, frozen=True, kw_only=True):
    """A limit and what was measured. One that is not `required` tells whether the bidder qualifies for more."""

    name: str
    measured: str
    limit: str
    passed: bool
    required: bool = True


class Probe(Struct, frozen=True, kw_only=True):
    """A request of a certain kind; `why` is "" when it was answered as it should."""

    name: str
    why: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """A certification. Shares are of `sent`; times are milliseconds, those never answered count as given up on.

    `reasons` tell timeouts, errors and invalid answers apart, `refused` the bids that would not be taken, by loss
    reason. `note` says why the figures may be unjust to the server.
    """

    url: str
    kind: str
    tmax_ms: int
    rate: float
    seconds: float
    sent: int
    bids: int
    no_bids: int
    timeouts: int
    errors: int
    invalid: int
    timeout_share: float
    error_share: float
    invalid_share: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    reasons: Mapping[str, int]
    refused: Mapping[str, int]
    lag_p99_ms: float
    note: str
    lines: Sequence[Line]

    def passed(self, *, strict: bool = False) -> bool:
        """Whether every required line passed; with `strict` all of them."""
        return all(line.passed for line in self.lines if line.required or strict)


class Count:
    """Verdicts and times, as they come."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.kinds: Counter[Kind] = Counter()
        self.reasons: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.took_us: list[int] = []

    def add(self, verdict: Verdict, took_ns: int) -> None:
        """One request is over."""
        self.kinds[verdict.kind] += 1
        self.took_us.append(took_ns // 1000)
        self.refused.update(verdict.refused)
        if verdict.reason:
            self.reasons[f"{verdict.kind.value}: {verdict.reason}"] += 1

    def percentile_ms(self, percent: int) -> float:
        """The least time that so many percent are at or below; 0 of nothing."""
        ranked = sorted(self.took_us)
        return ranked[-(-len(ranked) * percent // 100) - 1] / 1000 if ranked else 0.0


def report(
    count: Count,
    probes: Sequence[Probe],
    *,
    url: str,
    kind: str,
    tmax_ms: int,
    rate: float,
    seconds: float,
    lag_p99_ms: float,
) -> Report:
    """The report of what was counted."""
    kinds = count.kinds
    sent = sum(kinds.values())
    percentiles = {percent: count.percentile_ms(percent) for percent in (50, 95, 99)}
    timeouts, errors, invalid = kinds[Kind.TIMEOUT], kinds[Kind.ERROR], kinds[Kind.INVALID]
    note = ""
    if lag_p99_ms > LAG_MS:
        note = f"this tool was late itself (p99 {lag_p99_ms:.1f} ms): the times are at most what is said here"
    return Report(
        url=url,
        kind=kind,
        tmax_ms=tmax_ms,
        rate=rate,
        seconds=seconds,
        sent=sent,
        bids=kinds[Kind.BID],
        no_bids=kinds[Kind.NO_BID],
        timeouts=timeouts,
        errors=errors,
        invalid=invalid,
        timeout_share=_share(timeouts, sent),
        error_share=_share(errors, sent),
        invalid_share=_share(invalid, sent),
        p50_ms=percentiles[50],
        p95_ms=percentiles[95],
        p99_ms=percentiles[99],
        reasons=dict(count.reasons.most_common()),
        refused=dict(count.refused.most_common()),
        lag_p99_ms=lag_p99_ms,
        note=note,
        lines=[
            _share_line("timeouts", timeouts, sent, MOST_TIMEOUTS),
            _share_line("timeouts, errors and invalid answers", timeouts + errors + invalid, sent, MOST_TIMEOUTS),
            _share_line("timeouts, to qualify", timeouts, sent, QUALIFYING, required=False),
            _share_line("errors, to qualify", errors, sent, QUALIFYING, required=False),
            _share_line("invalid answers, to qualify", invalid, sent, QUALIFYING, required=False),
            *(
                Line(
                    name=f"p{percent}",
                    measured=f"{took_ms:.1f} ms",
                    limit=f"tmax, {tmax_ms} ms",
                    passed=bool(sent) and took_ms <= tmax_ms,
                    required=percent == 50,
                )
                for percent, took_ms in percentiles.items()
            ),
            *(
                Line(
                    name=probe.name,
                    measured=probe.why or "as it should be",
                    limit="a valid answer",
                    passed=not probe.why,
                )
                for probe in probes
            ),
        ],
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _share_line(name: str, part: int, whole: int, most: float, *, required: bool = True) -> Line:
    share = _share(part, whole)
    return Line(
        name=name,
        measured=f"{100 * share:.2f} %",
        limit=f"at most {100 * most:g} %",
        passed=bool(whole) and share <= most,
        required=required,
    )
