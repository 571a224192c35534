"""One measurement: a plan in, a result out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from rtb.lab.load import tally as tallies
from rtb.lab.load.alarm import Alarm
from rtb.lab.load.http_target import HttpTarget, Report
from rtb.lab.load.loops import ClosedLoop, OpenLoop, constant, poisson
from rtb.lab.load.loops import Target as Sends
from rtb.lab.load.payload import Payload, payloads, request_ids
from rtb.lab.load.plan import Latency, Plan, Result, Server
from rtb.lab.load.tally import Outcome, Tally
from rtb.lab.load.usage import Meter, Usage, own_cpu_s

SWEEP_S = 0.1
_LEAD_NS = 20_000_000

Progress = Callable[[str], None]


class Target(Sends, Protocol):
    """A target with its life: open, send, sweep, close."""

    async def open(self, report: Report) -> None:
        """Get ready; `report` learns of every request once."""
        ...

    async def close(self) -> None:
        """Report what is under way as lost, and let go."""
        ...


def bodies(plan: Plan) -> list[Payload]:
    """The bodies of a plan, which take a moment to make."""
    return payloads(plan.body, plan.unique, plan.seed, plan.users)


async def run_http(plan: Plan, prepared: list[Payload], progress: Progress) -> Result:
    """Measure over HTTP.

    Raises:
        OSError: nobody answers at the plan's URL.
        ConfigError: the URL is none.
    """
    target = HttpTarget(
        plan.url,
        prepared,
        request_ids(time.time_ns()),
        connections=plan.connections,
        pipeline=plan.pipeline,
        give_up_ns=plan.give_up_ns,
        check_ids=plan.check_ids,
    )
    return await measure(plan, target, prepared, progress)


async def measure(plan: Plan, target: Target, prepared: list[Payload], progress: Progress) -> Result:
    """Run the plan against a target."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    clock_ns = time.monotonic_ns
    meter = None if plan.pid is None else Meter(plan.pid)
    relay = _Relay()
    await target.open(relay)
    try:
        begin_ns = clock_ns() + (0 if plan.rate is None else _LEAD_NS)
        measure_from_ns = begin_ns + int(plan.warmup_s * 1e9)
        end_ns = measure_from_ns + int(plan.duration_s * 1e9)
        loop: OpenLoop | ClosedLoop
        if plan.rate is None:
            loop = ClosedLoop(target, clock_ns, measure_from_ns, end_ns)
        else:
            times = (
                poisson(plan.rate, begin_ns, end_ns, plan.seed)
                if plan.poisson
                else constant(plan.rate, begin_ns, end_ns)
            )
            loop = OpenLoop(target, clock_ns, measure_from_ns, times, plan.give_up_ns)
        relay.report = loop.over
        window = _Window(loop, meter)
        watch = asyncio.create_task(_watch(loop, window, (measure_from_ns, end_ns), progress))
        if isinstance(loop, OpenLoop):
            await send_all(loop)
        await watch
    finally:
        await target.close()
    return _result(plan, loop.tally, window, started, prepared)


class _Relay:
    """Lets the target open before the loop exists."""

    report: Report

    def __call__(self, intended_ns: int, outcome: Outcome, reason: str, now_ns: int) -> None:
        self.report(intended_ns, outcome, reason, now_ns)


class _Window:
    """What changed during the measured part."""

    def __init__(self, loop: OpenLoop | ClosedLoop, meter: Meter | None) -> None:
        self._loop = loop
        self._meter = meter
        self.before: Usage | None = None
        self.after: Usage | None = None
        self.seconds = self.tool_cpu_s = 0.0
        self.answers = 0

    def open(self) -> None:
        """The measured part begins."""
        self.before = self._meter.read() if self._meter else None
        self.answers = self._loop.answers
        self.seconds = time.monotonic()
        self.tool_cpu_s = own_cpu_s()

    def close(self) -> None:
        """The measured part ends."""
        self.tool_cpu_s = own_cpu_s() - self.tool_cpu_s
        self.seconds = time.monotonic() - self.seconds
        self.answers = self._loop.answers - self.answers
        self.after = self._meter.read() if self._meter else None

    def server(self) -> Server | None:
        """None when the process is unknown or ended."""
        if self._meter is None or self.before is None or self.after is None:
            return None
        cpu_s = self.after.cpu_s - self.before.cpu_s
        return Server(
            pid=self._meter.pid,
            cpu_s=cpu_s,
            cores=cpu_s / self.seconds,
            rss_bytes=self.after.rss_bytes,
            answers=self.answers,
        )


async def send_all(loop: OpenLoop) -> None:
    """Tick until everything is sent."""
    done = asyncio.get_running_loop().create_future()

    def tick() -> None:
        next_ns = loop.tick()
        if next_ns is not None:
            alarm.set(next_ns)
        elif not done.done():
            done.set_result(None)

    alarm = Alarm(tick)
    try:
        tick()
        await done
    finally:
        alarm.close()


async def _watch(loop: OpenLoop | ClosedLoop, window: _Window, span_ns: tuple[int, int], progress: Progress) -> None:
    """Sweep, mark the measured part and tell the progress, until all is over."""
    from_ns, end_ns = span_ns
    await _at(from_ns, loop)
    window.open()
    second = 1
    while time.monotonic_ns() < end_ns:
        await _at(min(end_ns, from_ns + second * 1_000_000_000), loop)
        progress(_line(loop, second))
        second += 1
    window.close()
    while not loop.finished:
        loop.sweep()
        await asyncio.sleep(SWEEP_S)


async def _at(at_ns: int, loop: OpenLoop | ClosedLoop) -> None:
    while (left_ns := at_ns - time.monotonic_ns()) > 0:
        loop.sweep()
        await asyncio.sleep(min(SWEEP_S, left_ns / 1e9))


def _line(loop: OpenLoop | ClosedLoop, second: int) -> str:
    tally = loop.tally
    recent = tally.fold()
    counts = tally.counts
    p99_ms = tallies.percentile_us(recent, 99) / 1000
    waiting = f"  waiting {loop.waiting}" if isinstance(loop, OpenLoop) and loop.waiting else ""
    shares = "  ".join(
        f"{outcome.name.lower().replace('_', '-')} {100 * counts[outcome] / max(1, tally.over):.1f} %"
        for outcome in Outcome
        if counts[outcome]
    )
    return f"{second:4d} s  {sum(recent.values()):7,} answers/s  p99 {p99_ms:8.2f} ms  {shares}{waiting}"


def _result(plan: Plan, tally: Tally, window: _Window, started: str, prepared: list[Payload]) -> Result:
    assert tally.balances, f"{tally.sent} sent, {tally.counts} over"
    hdr = tallies.histogram(tally.latencies_us)
    lag_p99_ms = tallies.percentile_us(tally.lags_us, 99) / 1000
    invalid = ""
    if lag_p99_ms > plan.max_lag_ms:
        invalid = f"the tool lagged: its own send lag has a p99 of {lag_p99_ms:.2f} ms, above {plan.max_lag_ms:g} ms"
    elif not tally.sent:
        invalid = "nothing was sent"
    counts = tally.counts
    return Result(
        plan=plan,
        started=started,
        seconds=window.seconds,
        body_bytes=sum(body.size for body in prepared) / len(prepared),
        sent=tally.sent,
        won=counts[Outcome.WON],
        no_bid=counts[Outcome.NO_BID],
        timeout=counts[Outcome.TIMEOUT],
        shed=counts[Outcome.SHED],
        error=counts[Outcome.ERROR],
        lost=counts[Outcome.LOST],
        reasons=dict(sorted(tally.reasons.items())),
        misses=tally.misses(int(plan.deadline_ms * 1000)),
        answers_per_s=window.answers / window.seconds if window.seconds else 0.0,
        latency=Latency(
            p50_ms=hdr.get_value_at_percentile(50) / 1000,
            p90_ms=hdr.get_value_at_percentile(90) / 1000,
            p95_ms=hdr.get_value_at_percentile(95) / 1000,
            p99_ms=hdr.get_value_at_percentile(99) / 1000,
            p999_ms=hdr.get_value_at_percentile(99.9) / 1000,
            max_ms=max(tally.latencies_us, default=0) / 1000,
            mean_ms=hdr.get_mean_value() / 1000 if tally.answered else 0.0,
        ),
        lag_p99_ms=lag_p99_ms,
        lag_max_ms=max(tally.lags_us, default=0) / 1000,
        tool_cores=window.tool_cpu_s / window.seconds if window.seconds else 0.0,
        server=window.server(),
        invalid=invalid,
        hdr=hdr.encode().decode(),
    )
