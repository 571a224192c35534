"""Whatever sources do in whatever order, what is known of them is what a plain list of their answers says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.adapters.clock import ManualClock
from rtb.domain.money import Rates
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, Standing, total
from rtb.ports.metric_source import BidResult, BidUpdate, SourceError, SourceFailure
from rtb.services.metric_sources import MetricSources

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
FRESH_S, RETRY_S = 300.0, 15.0
CAMPAIGNS = ("a", "b")
Answer = int | str | None
"""Of a campaign: its impressions, why it failed, or nothing. Of a source: None when it raises."""
ANSWERS: st.SearchStrategy[Answer] = st.one_of(st.integers(0, 10**6), st.sampled_from(["refused", "broken"]), st.none())
SOURCES = st.one_of(st.none(), st.fixed_dictionaries(dict.fromkeys(CAMPAIGNS, ANSWERS)))
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 5.0, 10.0, 15.0, 299.0, 301.0]), st.booleans(), st.lists(SOURCES, min_size=3, max_size=3)
    ),
    max_size=12,
)


class Player:
    """A source that answers as it is told, and its history: when it was asked, and what it said."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.name = name
        self.batch = 10
        self.clock = clock
        self.next: Mapping[str, Answer] | None = None
        self.said: list[tuple[int, str, Answer]] = []

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """Answer."""
        found: dict[str, CampaignMetrics | SourceFailure] = {}
        for campaign_id in ids:
            answer = "away" if self.next is None else self.next[campaign_id]
            self.said.append((self.clock.monotonic_ns(), campaign_id, answer))
            if isinstance(answer, int):
                found[campaign_id] = CampaignMetrics(Figures(answer), "USD")
            elif answer is not None:
                found[campaign_id] = SourceFailure(answer)
        if self.next is None:
            raise SourceError("away")
        return found

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """None are sent."""
        return []

    def expected(self, campaign_id: str) -> tuple[Standing, Figures | None, float | None]:
        """What follows from the history."""
        said = [(time_ns, answer) for time_ns, of, answer in self.said if of == campaign_id]
        told = [(time_ns, answer) for time_ns, answer in said if isinstance(answer, int)]
        if not told:
            return Standing.UNKNOWN, None, None
        time_ns, impressions = told[-1]
        age_s = (self.clock.monotonic_ns() - time_ns) / 1e9
        is_fresh = isinstance(said[-1][1], int) and age_s <= FRESH_S
        return Standing.FRESH if is_fresh else Standing.STALE, Figures(impressions), age_s


async def play(steps: list[tuple[float, bool, list[Mapping[str, Answer] | None]]]) -> None:
    """Take the steps, and compare after each."""
    clock = ManualClock()
    players = [Player(name, clock) for name in ("one", "three", "two")]
    ids = {player.name: campaign_id for player in players for campaign_id in CAMPAIGNS}
    sources = MetricSources(
        players, lambda campaign_id: dict.fromkeys(ids, campaign_id), Rates(), clock, fresh_s=FRESH_S, retry_s=RETRY_S
    )
    for seconds, is_refresh, answers in steps:
        clock.advance(seconds)
        for player, answer in zip(players, answers, strict=True):
            player.next = answer
        if is_refresh:
            await sources.refresh(CAMPAIGNS, TODAY)
        else:
            await sources.get(CAMPAIGNS, TODAY)
        for campaign_id in CAMPAIGNS:
            merged = sources.known(campaign_id, TODAY)
            expected = [player.expected(campaign_id) for player in players]
            assert [(told.standing, told.figures, told.age_s) for told in merged.readings] == expected
            known = [figures for _, figures, _ in expected if figures is not None]
            assert merged.totals == (total(known) if known else None)
            assert all(told.reason == "" or told.standing is not Standing.FRESH for told in merged.readings)
            assert all(told.reason or told.standing is Standing.FRESH for told in merged.readings)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_what_is_known_is_what_was_said(steps: list[tuple[float, bool, list[Mapping[str, Answer] | None]]]) -> None:
    """The last figures that a source told, with their age; stale unless they are its last word and young; unknown when
    there are none. Every mark but fresh has a reason."""
    asyncio.run(play(steps))
