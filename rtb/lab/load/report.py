"""Results as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

from rtb.lab.load.plan import Plan, Result, Trial

_Row = tuple[str, Callable[[Result], float], str, bool]

# label, value, unit, whether more is better
_ROWS: tuple[_Row, ...] = (
    ("answers/s", lambda r: r.answers_per_s, "", True),
    ("won", lambda r: 100 * r.won / max(r.sent, 1), "%", True),
    ("shed", lambda r: 100 * r.shed / max(r.sent, 1), "%", False),
    ("timeout", lambda r: 100 * r.timeout / max(r.sent, 1), "%", False),
    ("error", lambda r: 100 * r.error / max(r.sent, 1), "%", False),
    ("lost", lambda r: 100 * r.lost / max(r.sent, 1), "%", False),
    ("p50", lambda r: r.latency.p50_ms, "ms", False),
    ("p90", lambda r: r.latency.p90_ms, "ms", False),
    ("p95", lambda r: r.latency.p95_ms, "ms", False),
    ("p99", lambda r: r.latency.p99_ms, "ms", False),
    ("p99.9", lambda r: r.latency.p999_ms, "ms", False),
    ("max", lambda r: r.latency.max_ms, "ms", False),
    ("deadline misses", lambda r: 100 * r.miss_share, "%", False),
    ("answers/CPU-s", lambda r: r.server.per_cpu_s if r.server else 0.0, "", True),
    ("server cores", lambda r: r.server.cores if r.server else 0.0, "", False),
    ("server RSS", lambda r: r.server.rss_bytes / 2**20 if r.server else 0.0, "MiB", False),
)


def text(result: Result) -> str:
    """A run on a dozen lines."""
    latency, server = result.latency, result.server
    lines = [
        heading(result.plan, result.body_bytes),
        f"  sent {result.sent:,} = won {result.won:,} + no-bid {result.no_bid:,} + timeout {result.timeout:,}"
        f" + shed {result.shed:,} + error {result.error:,} + lost {result.lost:,}",
    ]
    if result.reasons:
        lines.append("  " + ", ".join(f"{reason}: {count:,}" for reason, count in result.reasons.items()))
    origin = "intended time" if result.plan.rate is not None else "sending, closed loop"
    lines += [
        f"  {result.answers_per_s:,.0f} answers/s over {result.seconds:.1f} s",
        f"  latency from {origin}, ms: p50 {latency.p50_ms:.2f}  p90 {latency.p90_ms:.2f}  p95 {latency.p95_ms:.2f}"
        f"  p99 {latency.p99_ms:.2f}  p99.9 {latency.p999_ms:.2f}  max {latency.max_ms:.2f}",
        f"  deadline {result.plan.deadline_ms:g} ms missed by {100 * result.miss_share:.3f} % of answers",
    ]
    if server is not None:
        lines.append(
            f"  server pid {server.pid}: {server.per_cpu_s:,.0f} answers/CPU-s, {server.cores:.2f} cores,"
            f" RSS {server.rss_bytes / 2**20:.0f} MiB"
        )
    lag = f", send lag p99 {result.lag_p99_ms:.2f} ms, max {result.lag_max_ms:.2f} ms" if result.plan.rate else ""
    lines.append(f"  tool: {result.tool_cores:.2f} cores{lag}")
    if result.invalid:
        lines.append(f"  INVALID: {result.invalid}")
    return "\n".join(lines)


def heading(plan: Plan, body_bytes: float) -> str:
    """What was run, on one line."""
    pace = (
        "closed loop"
        if plan.rate is None
        else f"open loop, {plan.rate:,.0f}/s {'Poisson' if plan.poisson else 'constant'}"
    )
    where = plan.url if plan.target == "http" else plan.target
    pipeline = f" x {plan.pipeline}" if plan.pipeline > 1 else ""
    return (
        f"{where}: {pace}, {plan.connections}{pipeline} connections, {plan.unique:,} bodies of {plan.body}"
        f" ({body_bytes:,.0f} bytes), {plan.warmup_s:g} s warm-up, seed {plan.seed}"
    )


def share(result: Result, nulls: Sequence[Result]) -> str:
    """The result as a share of what the same plan gives, on average, against a server that does nothing."""
    rate = mean(null.answers_per_s for null in nulls)
    lines = [f"  of the null server, same plan: {_percent(result.answers_per_s, rate)} of its answers/s"]
    served = [null.server.per_cpu_s for null in nulls if null.server]
    if result.server and served:
        runs = ", ".join(f"{per_cpu_s:,.0f}" for per_cpu_s in served)
        lines[0] += f", {_percent(result.server.per_cpu_s, mean(served))} of its answers/CPU-s ({runs})"
    p50s = ", ".join(f"{null.latency.p50_ms:.2f}" for null in nulls)
    p99s = ", ".join(f"{null.latency.p99_ms:.2f}" for null in nulls)
    lines.append(f"  null server, ms: p50 {p50s}  p99 {p99s}")
    return "\n".join(lines)


def compare(a: Result, b: Result) -> str:
    """Two runs side by side: A, B, and the change from A to B, with * where it is for the worse by over 5 %."""
    lines = [f"A  {heading(a.plan, a.body_bytes)}", f"B  {heading(b.plan, b.body_bytes)}"]
    lines += [f"{name} is INVALID: {r.invalid}" for name, r in (("A", a), ("B", b)) if r.invalid]
    lines.append(f"{'':18}{'A':>14}{'B':>14}{'change':>10}")
    for label, value, unit, more_is_better in _ROWS:
        old, new = value(a), value(b)
        change = _change(old, new)
        worse = "" if change is None or (change >= -0.05 if more_is_better else change <= 0.05) else " *"
        shown = "" if change is None else f"{100 * change:+.1f} %"
        lines.append(
            f"{label + (f', {unit}' if unit else ''):18}{_number(old):>14}{_number(new):>14}{shown:>10}{worse}"
        )
    return "\n".join(lines)


def search(trials: Sequence[Trial], best: float, p99_ms: float) -> str:
    """What a search tried and found."""
    lines = [f"{'rate/s':>12}{'p99, ms':>12}  verdict"]
    lines += [f"{trial.rate:12,.0f}{trial.p99_ms:12.2f}  {trial.why or 'passes'}" for trial in trials]
    found = f"{best:,.0f}/s" if best else "none"
    lines.append(f"highest rate with p99 <= {p99_ms:g} ms and every request answered: {found}")
    return "\n".join(lines)


def _change(old: float, new: float) -> float | None:
    """Relative; None where both are nothing, or it has no base."""
    return (new - old) / old if old else None


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "?"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.3f}"
