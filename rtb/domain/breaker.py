"""A circuit breaker: how much of the traffic a bidder that fails gets, decided from its last seconds.

Closed, everything, less of it as the share of bad calls grows; open, a trickle of probes; half-open, a tenth, until
enough of them have ended to decide. It is never shut entirely: a bidder that recovers is found out by its probes.
Times are nanoseconds on a monotonic clock; shares are kept exactly, by carrying the remainder, without randomness.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

_S = 1_000_000_000
_SLOTS = 10

Share = Annotated[float, Meta(gt=0, le=1)]


class BreakerPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to throttle and to open: shares of timeouts and errors among the calls of the last `window_s`.

    From `throttle_at` on traffic is reduced, at `open_at` the breaker opens, for `open_s` at first and twice as long
    each time, up to `open_most_s`, unless it has been closed in between. Fewer than `calls` calls decide nothing.
    Source: 15 % of timeouts is where the large exchanges begin to throttle a bidder.
    """

    window_s: Annotated[float, Meta(ge=1)] = 10.0
    calls: Annotated[int, Meta(ge=1)] = 50
    throttle_at: Share = 0.15
    open_at: Share = 0.5
    open_s: Annotated[float, Meta(gt=0)] = 2.0
    open_most_s: Annotated[float, Meta(gt=0)] = 60.0
    probe_share: Share = 0.01
    probe_every_s: Annotated[float, Meta(gt=0)] = 1.0
    half_open_share: Share = 0.1
    half_open_calls: Annotated[int, Meta(ge=1)] = 10


class State(StrEnum):
    """What a breaker does with traffic."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


_CLOSED = State.CLOSED  # a member of an enum costs ten times a name


class Breaker:
    """Decides about each call: ask `admits` before it, tell `record` after it."""

    __slots__ = (
        "_bads",
        "_credit",
        "_good",
        "_open_ns",
        "_policy",
        "_probed_ns",
        "_slot",
        "_slot_end_ns",
        "_slot_ns",
        "_total",
        "_totals",
        "_trial_bad",
        "_trial_total",
        "_until_ns",
        "bad",
        "state",
    )

    bad: int
    """Bad calls in the window; without any, a closed breaker admits all."""
    _bads: list[int]
    _good: int
    """Good calls in the latest slot, not yet among its total."""
    _slot: int
    _slot_end_ns: int
    _total: int
    _totals: list[int]
    _trial_bad: int
    _trial_total: int

    def __init__(self, policy: BreakerPolicy) -> None:
        """Closed."""
        self._policy = policy
        self.state = State.CLOSED
        self._slot_ns = int(policy.window_s * _S) // _SLOTS
        self._open_ns = int(policy.open_s * _S)
        self._until_ns = 0
        self._credit = 0.0
        self._probed_ns = 0
        self._forget()

    def admits(self, now_ns: int) -> bool:
        """Whether to make a call now."""
        if self.state is _CLOSED:
            if not self.bad:
                return True
            share = self._closed_share(now_ns)
        elif self.state is State.OPEN:
            if now_ns >= self._until_ns:
                self.state = State.HALF_OPEN
                self._trial_total = self._trial_bad = 0
            share = self._policy.probe_share
        else:
            share = self._policy.half_open_share
        return share >= 1 or self._draw(share, now_ns)

    def record(self, now_ns: int, bad: bool) -> None:
        """Count a call that ended; `bad` when it timed out or failed."""
        if self.state is _CLOSED:
            if not bad and now_ns < self._slot_end_ns:
                self._good += 1
                return
            self._count(now_ns, bad)
            if bad and self._bad_share() >= self._policy.open_at:
                self._open(now_ns)
        elif self.state is State.HALF_OPEN:
            self._trial_total += 1
            self._trial_bad += bad
            if self._trial_total >= self._policy.half_open_calls:
                if self._trial_bad / self._trial_total >= self._policy.open_at:
                    self._open(now_ns)
                else:
                    self.state = State.CLOSED
                    self._open_ns = int(self._policy.open_s * _S)
                    self._forget()

    def share(self, now_ns: int) -> float:
        """The share of the traffic that it lets through now."""
        if self.state is State.CLOSED:
            return self._closed_share(now_ns)
        return self._policy.probe_share if self.state is State.OPEN else self._policy.half_open_share

    def _closed_share(self, now_ns: int) -> float:
        """All up to `throttle_at`, from there on in proportion down to the share of a half-open breaker."""
        self._advance(now_ns)
        policy, bad = self._policy, self._bad_share()
        if bad <= policy.throttle_at:
            return 1.0
        excess = min((bad - policy.throttle_at) / max(policy.open_at - policy.throttle_at, 1e-9), 1.0)
        return 1.0 - excess * (1.0 - policy.half_open_share)

    def _draw(self, share: float, now_ns: int) -> bool:
        self._credit += share
        if self._credit >= 1 or now_ns - self._probed_ns >= self._policy.probe_every_s * _S:
            self._credit = max(self._credit - 1, 0.0)
            self._probed_ns = now_ns
            return True
        return False

    def _bad_share(self) -> float:
        return self.bad / self._total if self._total >= self._policy.calls else 0.0

    def _open(self, now_ns: int) -> None:
        self.state = State.OPEN
        self._until_ns = now_ns + self._open_ns
        self._open_ns = min(self._open_ns * 2, int(self._policy.open_most_s * _S))
        self._credit = 0.0
        self._probed_ns = now_ns

    def _count(self, now_ns: int, bad: bool) -> None:
        self._advance(now_ns)
        index = self._slot % _SLOTS
        self._totals[index] += 1
        self._total += 1
        if bad:
            self._bads[index] += 1
            self.bad += 1

    def _advance(self, now_ns: int) -> None:
        """Let go of the slots that have left the window."""
        self._totals[self._slot % _SLOTS] += self._good
        self._total += self._good
        self._good = 0
        slot = now_ns // self._slot_ns
        if slot == self._slot:
            return
        if slot - self._slot >= _SLOTS:
            self._forget()
        else:
            for passed in range(self._slot + 1, slot + 1):
                index = passed % _SLOTS
                self._total -= self._totals[index]
                self.bad -= self._bads[index]
                self._totals[index] = self._bads[index] = 0
        self._slot = max(slot, self._slot)
        self._slot_end_ns = (self._slot + 1) * self._slot_ns

    def _forget(self) -> None:
        self._slot = self._slot_end_ns = 0
        self._totals, self._bads = [0] * _SLOTS, [0] * _SLOTS
        self._total = self.bad = self._good = 0
        self._trial_total = self._trial_bad = 0
