"""What to run, and what came out of it. A Result is what ``--json`` writes and ``compare`` reads."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """A measurement. `rate` is requests a second; without one, the loop is closed (saturation)."""

    target: str = "http"
    url: str = "http://127.0.0.1:8080/openrtb2/auction"
    rate: float | None = None
    poisson: bool = False
    duration_s: float = 10.0
    warmup_s: float = 2.0
    connections: int = 32
    pipeline: int = 1
    body: str = "1k"
    unique: int = 10_000
    users: int = 100_000
    seed: int = 1
    deadline_ms: float = 100.0
    give_up_ms: float = 2000.0
    max_lag_ms: float = 5.0
    pid: int | None = None
    check_ids: bool = True

    @property
    def give_up_ns(self) -> int:
        """How long the client waits for an answer."""
        return int(self.give_up_ms * 1e6)


class Latency(Struct, frozen=True, kw_only=True):
    """Percentiles in milliseconds."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    mean_ms: float


class Server(Struct, frozen=True, kw_only=True):
    """What the server's processes used during the measured part, and what they did for it."""

    pid: int
    cpu_s: float
    cores: float
    rss_bytes: int
    answers: int

    @property
    def per_cpu_s(self) -> float:
        """Answers a CPU-second."""
        return self.answers / self.cpu_s if self.cpu_s else 0.0


class Result(Struct, frozen=True, kw_only=True):
    """A run: sent = won + no_bid + timeout + shed + error + lost, always.

    Latencies count from the intended send time in an open loop. `misses` are answers later than the deadline. `lag` is
    the tool's own lateness in noticing that a request was due; `invalid` says why the run must not be believed, and is
    empty when it may. `hdr` is the encoded HdrHistogram of the latencies, in microseconds.
    """

    plan: Plan
    started: str
    seconds: float
    body_bytes: float
    sent: int
    won: int
    no_bid: int
    timeout: int
    shed: int
    error: int
    lost: int
    reasons: dict[str, int]
    misses: int
    answers_per_s: float
    latency: Latency
    lag_p99_ms: float
    lag_max_ms: float
    tool_cores: float
    server: Server | None
    invalid: str
    hdr: str

    @property
    def answered(self) -> int:
        """Requests with an answer of any kind."""
        return self.sent - self.lost

    @property
    def miss_share(self) -> float:
        """Share of answers later than the deadline."""
        return self.misses / self.answered if self.answered else 0.0

    @property
    def balances(self) -> bool:
        """Whether every request sent has exactly one outcome."""
        return self.sent == self.won + self.no_bid + self.timeout + self.shed + self.error + self.lost


class Report(Struct, frozen=True, kw_only=True):
    """The file that ``--json`` writes: the result, the same plan against a server that does nothing, before and after
    it (what differs between these two is the machine's own unrest), and what a search for the highest rate tried."""

    result: Result
    null: list[Result] = []
    trials: list[Trial] = []


class Trial(Struct, frozen=True, kw_only=True):
    """One rate that a search tried; `why` is empty when it passed."""

    rate: float
    p99_ms: float
    why: str
