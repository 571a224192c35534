"""When requests are sent. Neither the clock nor the transport is known here: both are passed in."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from rtb.lab.load.tally import Outcome, Tally

BATCH = 128


class Target(Protocol):
    """Where requests go. It reports each request it took exactly once, through `Loop.over`."""

    def send(self, intended_ns: int, now_ns: int) -> bool:
        """Take a request, or decline while there is no room for it."""
        ...

    def sweep(self, now_ns: int) -> None:
        """Give up on what waits for too long."""
        ...


def constant(rate: float, start_ns: int, end_ns: int) -> Iterator[int]:
    """Intended send times, evenly `rate` a second, computed from the start so that no error adds up."""
    number = 0
    while (at := start_ns + int(number * 1_000_000_000 / rate)) < end_ns:
        yield at
        number += 1


def poisson(rate: float, start_ns: int, end_ns: int, seed: int) -> Iterator[int]:
    """Intended send times of independent users: exponential gaps with a mean of 1 / rate."""
    rng = random.Random(seed)
    at = float(start_ns)
    while (at := at + rng.expovariate(rate) * 1e9) < end_ns:
        yield int(at)


class Loop:
    """What open and closed loops share: the account of what is under way.

    A request counts when its intended time is at or after `measure_from_ns`; before is warm-up. `answers` counts every
    answer, warm-up included, for rates over a stretch of time.
    """

    def __init__(self, target: Target, clock_ns: Callable[[], int], measure_from_ns: int) -> None:
        """Send nothing yet."""
        self.target = target
        self.tally = Tally()
        self.answers = 0
        self.under_way = 0
        self._clock_ns = clock_ns
        self._measure_from_ns = measure_from_ns

    @property
    def finished(self) -> bool:
        """Whether all is sent and over."""
        raise NotImplementedError

    def over(self, intended_ns: int, outcome: Outcome, reason: str, now_ns: int) -> None:
        """The target reports: an answer came, or none will. Latency counts from the intended time."""
        self.under_way -= 1
        if outcome is not Outcome.LOST:
            self.answers += 1
        if intended_ns >= self._measure_from_ns:
            self.tally.record(outcome, reason, now_ns - intended_ns)
        self._room(now_ns)

    def _room(self, now_ns: int) -> bool:
        """The target may take another one; whether it may take yet another."""
        raise NotImplementedError

    def _start(self, intended_ns: int) -> None:
        self.under_way += 1
        if intended_ns >= self._measure_from_ns:
            self.tally.sent += 1


class OpenLoop(Loop):
    """Sends at given times, whether or not earlier requests are answered, as users arrive whether or not others were
    served. What finds every connection busy waits in a line, and its waiting counts as latency."""

    def __init__(
        self,
        target: Target,
        clock_ns: Callable[[], int],
        measure_from_ns: int,
        times_ns: Iterator[int],
        give_up_ns: int,
    ) -> None:
        """Take the intended times in order; give up on what waits in the line for longer than `give_up_ns`."""
        super().__init__(target, clock_ns, measure_from_ns)
        self._times_ns = times_ns
        self._give_up_ns = give_up_ns
        self._line: deque[int] = deque()
        self.next_ns = next(times_ns, None)

    @property
    def finished(self) -> bool:
        """Whether all is sent and over."""
        return self.next_ns is None and not self.under_way

    @property
    def waiting(self) -> int:
        """How many are due and find no room."""
        return len(self._line)

    def tick(self) -> int | None:
        """Send what is due, at most a batch of it; when to call again, None when there is nothing left to send."""
        next_ns = self.next_ns
        for _ in range(BATCH):
            now_ns = self._clock_ns()
            if next_ns is None or next_ns > now_ns:
                break
            if next_ns >= self._measure_from_ns:
                self.tally.record_lag(now_ns - next_ns)
            self._start(next_ns)
            if self._line or not self.target.send(next_ns, now_ns):
                self._line.append(next_ns)
            next_ns = next(self._times_ns, None)
        self.next_ns = next_ns
        return next_ns

    def sweep(self) -> None:
        """Give up on what waited for too long, in the line and at the target."""
        now_ns = self._clock_ns()
        while self._line and self._line[0] + self._give_up_ns < now_ns:
            self.over(self._line.popleft(), Outcome.LOST, "never sent", now_ns)
        self.target.sweep(now_ns)
        self._room(now_ns)

    def _room(self, now_ns: int) -> bool:
        line = self._line
        while line and self.target.send(line[0], now_ns):
            line.popleft()
        return not line


class ClosedLoop(Loop):
    """Keeps the target full: the next request follows an answer, so the server sets the pace. For throughput; its
    latencies leave out what users would wait, and are not comparable with an open loop's."""

    def __init__(self, target: Target, clock_ns: Callable[[], int], measure_from_ns: int, end_ns: int) -> None:
        """Send until `end_ns`."""
        super().__init__(target, clock_ns, measure_from_ns)
        self._end_ns = end_ns

    @property
    def finished(self) -> bool:
        """Whether the end has come and nothing is under way."""
        return self._clock_ns() >= self._end_ns and not self.under_way

    def sweep(self) -> None:
        """Fill the target up, and give up on what it waits for too long."""
        now_ns = self._clock_ns()
        self.target.sweep(now_ns)
        while self._room(now_ns):
            pass

    def _room(self, now_ns: int) -> bool:
        if now_ns < self._end_ns and self.target.send(now_ns, now_ns):
            self._start(now_ns)
            return True
        return False
