"""Remote bidders over all instances."""

from __future__ import annotations

from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.domain.bidder_policy import BidderSettings, Skip
from rtb.domain.histogram import Histogram
from rtb.domain.metrics import BidderTally, Frame
from rtb.domain.privacy import Reason
from rtb.services.bidder_board import BidderBoard, BidderRow
from rtb.services.bidder_health import BidderHealth

SECOND = 10**9


class Sender:
    """An instance that sends a frame a second about one bidder."""

    def __init__(self, board: BidderBoard, name: str) -> None:
        self.board = board
        self.frame = Frame(instance=name, seq=0, time=0.0, uptime_ns=0)

    def send(self, tally: BidderTally) -> None:
        """The next frame."""
        before = self.frame
        self.frame = replace(before, seq=before.seq + 1, uptime_ns=before.uptime_ns + SECOND, bidders=(tally,))
        self.board.receive(before, self.frame)


def packed(*durations_ms: float) -> tuple[int, ...]:
    """The wire form of answers that took so long."""
    histogram = Histogram()
    for duration in durations_ms:
        histogram.record(round(duration * 1e6))
    return histogram.pack()


def only(rows: tuple[BidderRow, ...]) -> BidderRow:
    """The one row there is."""
    [row] = rows
    return row


def test_a_bidder_is_the_sum_of_its_instances() -> None:
    """Counters and rates add; latencies merge: the p99 of 99 answers of 1 ms and 99 of 80 ms is 80, not the mean."""
    board = BidderBoard(ManualClock())
    one, two = Sender(board, "one"), Sender(board, "two")
    one.send(BidderTally(name="d", calls=100, answers=99, bids=50, wins=10, timeouts=1, latency=packed(*[1.0] * 99)))
    two.send(
        BidderTally(
            name="d",
            state="open",
            share=0.01,
            in_flight=3,
            calls=100,
            answers=99,
            spend_nanos=2_500_000_000,
            errors={"status-500": 1},
            skipped={"breaker": 7},
            latency=packed(*[80.0] * 99),
        )
    )
    row = only(board.rows([one.frame, two.frame]))
    assert (row.name, row.state, row.states, row.share, row.in_flight) == ("d", "open", {"two": "open"}, 0.01, 3)
    assert (row.calls, row.answers, row.bids, row.wins, row.timeouts, row.spend) == (200, 198, 50, 10, 1, 2.5)
    assert (row.errors, row.skipped) == ({"status-500": 1}, {"breaker": 7})
    assert (row.calls_per_s, row.bids_per_s, row.timeouts_per_s, row.errors_per_s, row.skipped_per_s) == (
        200.0,
        50.0,
        1.0,
        1.0,
        7.0,
    )
    assert (row.bid_rate, row.win_rate, row.timeout_rate, row.error_rate) == (0.25, 0.2, 0.005, 0.005)
    assert row.p50_ms is not None
    assert row.p99_ms is not None
    assert 1.0 <= row.p50_ms <= 1.04
    assert 80.0 <= row.p99_ms <= 82.5


def test_shares_are_of_the_last_minute() -> None:
    """Calls of more than a minute ago count in the sums alone."""
    clock = ManualClock()
    board = BidderBoard(clock)
    sender = Sender(board, "one")
    sender.send(BidderTally(name="d", calls=10, timeouts=10))
    clock.advance(65)
    sender.send(BidderTally(name="d", calls=30, bids=5, timeouts=10))
    row = only(board.rows([sender.frame]))
    assert (row.calls, row.timeouts, row.bid_rate, row.timeout_rate) == (30, 10, 0.25, 0.0)
    clock.advance(65)
    assert only(board.rows([sender.frame])).bid_rate is None


def test_a_bidder_configured_anew_counts_from_the_beginning() -> None:
    """Its counters run backwards; what it did since is what it counts now."""
    board = BidderBoard(ManualClock())
    sender = Sender(board, "one")
    sender.send(BidderTally(name="d", calls=100, bids=40))
    sender.send(BidderTally(name="d", calls=4, bids=2))
    row = only(board.rows([sender.frame]))
    assert (row.calls, row.calls_per_s, row.bids_per_s) == (4, 4.0, 2.0)


def test_of_an_instance_met_in_the_middle_of_its_life_no_rate_is_known_yet() -> None:
    """Its counters are shown at once."""
    board = BidderBoard(ManualClock())
    frame = Frame(instance="a", seq=9, time=0.0, uptime_ns=9 * SECOND, bidders=(BidderTally(name="d", calls=90),))
    board.receive(frame, frame)
    row = only(board.rows([frame]))
    assert (row.calls, row.calls_per_s, row.bid_rate) == (90, 0.0, None)


def test_a_bidder_that_nobody_has_any_more_is_gone() -> None:
    """Rows are of live instances."""
    board = BidderBoard(ManualClock())
    sender = Sender(board, "one")
    sender.send(BidderTally(name="d", calls=1))
    assert board.rows([]) == ()


def test_a_tally_has_all_counters_and_only_the_new_latencies() -> None:
    """As its instance sends it once a second."""
    clock = ManualClock()
    health = BidderHealth(BidderSettings(name="d", url="http://d.test/bid", max_in_flight=2), clock)
    now_ns = clock.monotonic_ns()
    assert health.refusal(now_ns) is None
    assert health.refusal(now_ns) is None
    assert health.refusal(now_ns) is Skip.IN_FLIGHT
    health.ended()
    health.answered(now_ns, 40, 2, 1)
    health.won(1_500)
    health.stripped["coppa"] += 1
    first = health.tally()
    assert (first.calls, first.answers, first.bids, first.rejected, first.wins, first.spend_nanos) == (
        2,
        1,
        2,
        1,
        1,
        1_500,
    )
    assert (first.in_flight, first.state, first.share, first.latency) == (1, "closed", 1.0, (40, 40, 1))
    assert first.stripped == {"coppa": 1}
    health.ended()
    health.timed_out(now_ns)
    second = health.tally()
    assert (second.timeouts, second.in_flight, second.latency) == (1, 0, ())


def test_what_became_of_requests_at_the_privacy_gate() -> None:
    """Of both instances, the most frequent reason first; other reasons for not being asked are none of it."""
    board = BidderBoard(ManualClock())
    one, two = Sender(board, "one"), Sender(board, "two")
    coppa, geo, us = Reason.COPPA.value, Reason.GDPR_GEO.value, Reason.US.value
    one.send(BidderTally(name="d", calls=10, stripped={coppa: 1, geo: 2}, skipped={us: 3, "country": 5}))
    two.send(BidderTally(name="d", calls=20, stripped={Reason.LMT.value: 4}, skipped={us: 1}))
    privacy = only(board.rows([one.frame, two.frame])).privacy
    assert (privacy.whole, privacy.coarse, privacy.not_asked) == (23, {geo: 2}, {us: 4})
    assert list(privacy.anonymous.items()) == [(Reason.LMT.value, 4), (coppa, 1)]
