"""Metrics from several sources: asked together, kept apart, merged, and never zero for want of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import date

import pytest
import pytest_asyncio

from rtb.adapters.clock import ManualClock
from rtb.adapters.facebook_insights import FacebookInsights
from rtb.adapters.google_ads import GoogleAds
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.domain.money import Rates
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, Reading, Standing
from rtb.errors import ConfigError, StoreError
from rtb.ports.metric_source import BidResult, BidUpdate, SourceError, SourceFailure
from rtb.services.metric_sources import ABREAST, MetricSources
from rtb.services.own_figures import OwnFigures
from rtb.services.request_gate import IN_FLIGHT, Gate
from tests.support import adwords, graph

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
YESTERDAY = Days(date(2025, 12, 31), date(2025, 12, 31))
ONE = CampaignMetrics(Figures(1), "USD")


class Platform:
    """A source that a test plays: it tells `told`, when `ready`, or raises `error`."""

    def __init__(self, name: str, batch: int = 2) -> None:
        self.name = name
        self.batch = batch
        self.told: dict[str, CampaignMetrics | SourceFailure] = {}
        self.error: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()
        self.asked: list[tuple[str, ...]] = []
        self.arrived = asyncio.Semaphore(0)
        self.inside = self.most = 0
        self.refuse: Callable[[BidUpdate], str] = lambda update: ""

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """Tell."""
        self.asked.append(tuple(ids))
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.arrived.release()
        try:
            await asyncio.sleep(0)
            await self.ready.wait()
        finally:
            self.inside -= 1
        if self.error is not None:
            raise self.error
        return {campaign_id: self.told[campaign_id] for campaign_id in ids if campaign_id in self.told}

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Apply, or refuse."""
        self.asked.append(tuple(update.target_id for update in updates))
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        return [self._result(update) for update in updates]

    def _result(self, update: BidUpdate) -> BidResult:
        reason = self.refuse(update)
        return BidResult(update, None if reason else update.bid_nanos, reason)


class Bench:
    """Two sources and what is asked of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.one = Platform("one")
        self.two = Platform("two")
        self.ids: dict[str, dict[str, str]] = {name: {"one": f"1{name}", "two": f"2{name}"} for name in "abcde"}
        self.made: list[MetricSources] = []

    def sources(self, **more: object) -> MetricSources:
        """The service over both."""
        rates = Rates("USD", {"EUR": 1.5})
        made = MetricSources(
            [self.one, self.two],
            lambda name: self.ids.get(name, {}),
            rates,
            self.clock,
            **more,  # type: ignore[arg-type]
        )
        self.made.append(made)
        return made

    def tell(self, campaign_id: str, one: CampaignMetrics, two: CampaignMetrics) -> None:
        """Let both know of a campaign."""
        self.one.told[f"1{campaign_id}"] = one
        self.two.told[f"2{campaign_id}"] = two


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Two sources; who still asks at the end is sent home."""
    bench = Bench()
    yield bench
    for made in bench.made:
        await made.close()


async def test_two_sources_become_one(bench: Bench) -> None:
    """2 EUR at 1.50 and 1 USD are 4 USD; both are fresh and named."""
    bench.tell(
        "a",
        CampaignMetrics(Figures(1000, 10, 1_000_000, 10**9, 3 * 10**9), "USD"),
        CampaignMetrics(Figures(3000, 30, 500_000, 2 * 10**9, 0), "EUR"),
    )
    merged = (await bench.sources().get(["a"], TODAY))["a"]
    assert merged.totals == Figures(4000, 40, 1_500_000, 4 * 10**9, 3 * 10**9)
    assert merged.standing is Standing.FRESH
    assert merged.currency == "USD"
    assert [reading.source for reading in merged.readings] == ["one", "two"]


async def test_nothing_is_not_zero(bench: Bench) -> None:
    """Before anything was fetched there are no totals, and a campaign that no source has is unknown."""
    sources = bench.sources()
    merged = sources.known("a", TODAY)
    assert (merged.totals, merged.standing, merged.unknown) == (None, Standing.UNKNOWN, ("one", "two"))
    assert merged.readings[0].reason == "not fetched yet"
    alien = (await sources.get(["nobody"], TODAY))["nobody"]
    assert (alien.totals, alien.standing, alien.readings) == (None, Standing.UNKNOWN, ())


async def test_a_misspelt_source_is_not_passed_over(bench: Bench) -> None:
    """A campaign that names a source that is not there says so; two sources of one name are refused."""
    bench.ids["a"]["facebok"] = "1"
    bench.tell("a", ONE, ONE)
    merged = (await bench.sources().get(["a"], TODAY))["a"]
    assert (merged.totals, merged.unknown) == (Figures(2), ("facebok",))
    assert merged.readings[0].reason == "no source of this name is set up"
    bench.two.name = "one"
    with pytest.raises(ConfigError, match="two metric sources are named 'one'"):
        bench.sources()


async def test_what_fails_keeps_its_last_figures(bench: Bench) -> None:
    """Stale with age and reason, and part of the totals; the other source goes on, and a recovery ends it."""
    sources = bench.sources()
    bench.tell("a", ONE, CampaignMetrics(Figures(10), "USD"))
    await sources.get(["a"], TODAY)
    bench.clock.advance(400)
    bench.one.error = SourceError("HTTP 500")
    bench.two.told["2a"] = CampaignMetrics(Figures(20), "USD")
    merged = (await sources.get(["a"], TODAY))["a"]
    assert merged.totals == Figures(21)
    assert (merged.standing, merged.stale) == (Standing.STALE, ("one",))
    assert merged.readings == (
        Reading("one", Standing.STALE, Figures(1), 400.0, "HTTP 500"),
        Reading("two", Standing.FRESH, Figures(20), 0.0),
    )
    bench.one.error = None
    bench.one.told["1a"] = CampaignMetrics(Figures(5), "USD")
    bench.clock.advance(15)
    merged = (await sources.get(["a"], TODAY))["a"]
    assert (merged.totals, merged.standing) == (Figures(25), Standing.FRESH)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceError("Limit reached (code 17)"), "Limit reached (code 17)"),
        (StoreError("the database is away"), "the database is away"),
        (ValueError("secret"), "the source failed with ValueError"),
    ],
)
async def test_a_source_that_never_answered_is_unknown(bench: Bench, error: Exception, reason: str) -> None:
    """Whatever it raises; what is no error of ours is named by its kind alone, for its text may hold a token."""
    bench.tell("a", ONE, ONE)
    bench.one.error = error
    merged = (await bench.sources().get(["a"], TODAY))["a"]
    assert (merged.totals, merged.standing, merged.unknown) == (Figures(1), Standing.UNKNOWN, ("one",))
    assert merged.readings[0] == Reading("one", Standing.UNKNOWN, reason=reason)


async def test_one_campaign_fails_alone(bench: Bench) -> None:
    """Refused, left out, or in a currency without a rate: each says why, the others are whole."""
    bench.one.told = {"1a": ONE, "1b": SourceFailure("no permission"), "1d": CampaignMetrics(Figures(1), "JPY")}
    for name in "abcd":
        del bench.ids[name]["two"]
    found = await bench.sources().get(["a", "b", "c", "d"], TODAY)
    assert {name: merged.readings[0].reason for name, merged in found.items()} == {
        "a": "",
        "b": "no permission",
        "c": "the source told nothing of this campaign",
        "d": "there is no exchange rate for JPY",
    }
    assert [merged.totals for merged in found.values()] == [Figures(1), None, None, None]


async def test_the_deadline_takes_only_what_hangs(bench: Bench) -> None:
    """A source that never answers is stale after the deadline, at once with the other's answer."""
    bench.tell("a", ONE, ONE)
    sources = bench.sources(deadline_s=0.02)
    await sources.get(["a"], TODAY)
    bench.one.ready.clear()
    await sources.refresh(["a"], TODAY)
    merged = sources.known("a", TODAY)
    assert merged.readings[0].reason == "no answer within 0.02 s"
    assert (merged.totals, merged.stale) == (Figures(2), ("one",))


async def test_sources_and_chunks_are_asked_at_once(bench: Bench) -> None:
    """Five campaigns in chunks of two at two sources: six calls under way before any is answered."""
    for name in "abcde":
        bench.tell(name, ONE, ONE)
    bench.one.ready.clear()
    bench.two.ready.clear()
    getting = asyncio.create_task(bench.sources().get("abcde", TODAY))
    for platform in (bench.one, bench.two):
        for _ in range(3):
            await platform.arrived.acquire()
        platform.ready.set()
    assert all(merged.totals == Figures(2) for merged in (await getting).values())
    assert bench.one.asked == [("1a", "1b"), ("1c", "1d"), ("1e",)]


async def test_a_campaign_is_asked_for_once_at_a_time(bench: Bench) -> None:
    """Ten who ask share one answer; who is cancelled meanwhile does not take it with him."""
    bench.tell("a", ONE, ONE)
    bench.one.ready.clear()
    sources = bench.sources()
    getting = [asyncio.create_task(sources.get(["a"], TODAY)) for _ in range(9)]
    getting.append(asyncio.create_task(sources.refresh(["a"], TODAY)))  # type: ignore[arg-type]
    await bench.one.arrived.acquire()
    getting[0].cancel()
    bench.one.ready.set()
    await asyncio.wait(getting)
    assert [task.result()["a"].totals for task in getting[1:9]] == [Figures(2)] * 8
    assert (len(bench.one.asked), len(bench.two.asked)) == (1, 1)


async def test_fresh_figures_are_not_asked_for_again(bench: Bench) -> None:
    """For five minutes; after a failure for fifteen seconds."""
    bench.tell("a", ONE, ONE)
    bench.two.error = SourceError("HTTP 500")
    sources = bench.sources()
    calls: list[tuple[int, int]] = []
    for seconds in (0, 14.9, 0.1, 284.9, 0.1):
        bench.clock.advance(seconds)
        await sources.get(["a"], TODAY)
        calls.append((len(bench.one.asked), len(bench.two.asked)))
    assert calls == [(1, 1), (1, 1), (1, 2), (1, 3), (2, 3)]


async def test_a_source_that_is_away_is_left_alone(bench: Bench) -> None:
    """For 15 s nobody asks it, for whatever campaign, and the reason is told; then it is tried, and back."""
    for name in "ab":
        bench.tell(name, ONE, ONE)
    bench.one.error = SourceError("HTTP 500")
    sources = bench.sources()
    await sources.get(["a"], TODAY)
    other = (await sources.get(["b"], TODAY))["b"]
    assert other.readings[0] == Reading("one", Standing.UNKNOWN, reason="HTTP 500")
    assert sources.away == {"one": "HTTP 500"}
    assert bench.one.asked == [("1a",)]
    bench.one.error = None
    bench.clock.advance(15)
    found = await sources.get("ab", TODAY)
    assert [merged.standing for merged in found.values()] == [Standing.FRESH] * 2
    assert sources.away == {}


async def test_many_campaigns_are_refreshed_a_few_calls_at_a_time(bench: Bench) -> None:
    """In rounds of as many calls as go abreast; a source that hangs takes one deadline, and nothing from the other."""
    ids = [f"{n:04}" for n in range(2 * ABREAST * 2 + 1)]
    bench.ids = {name: {"one": f"1{name}", "two": f"2{name}"} for name in ids}
    for name in ids:
        bench.tell(name, ONE, ONE)
    bench.one.ready.clear()
    sources = bench.sources(deadline_s=0.02)
    await sources.refresh([*ids, *ids], TODAY)
    assert len(bench.one.asked) == ABREAST
    assert sorted(name for asked in bench.two.asked for name in asked) == [f"2{name}" for name in ids]
    assert bench.two.most == ABREAST
    assert all(sources.known(name, TODAY).totals == Figures(1) for name in ids)


async def test_closing_ends_what_is_under_way(bench: Bench) -> None:
    """Also a call that has not begun; who waits is told what is known."""
    bench.one.ready.clear()
    sources = bench.sources()
    getting = asyncio.create_task(sources.get("abc", TODAY))
    await bench.one.arrived.acquire()
    late = asyncio.create_task(sources.get("d", TODAY))
    await asyncio.sleep(0)
    await sources.close()
    assert (await getting)["a"].standing is Standing.UNKNOWN
    assert (await late)["d"].standing is Standing.UNKNOWN


async def test_figures_grow_old_by_themselves(bench: Bench) -> None:
    """Nobody asked for longer than they are fresh: stale, with their age."""
    bench.tell("a", ONE, ONE)
    sources = bench.sources()
    await sources.get(["a"], TODAY)
    bench.clock.advance(301)
    reading = sources.known("a", TODAY).readings[0]
    assert (reading.standing, reading.age_s, reading.reason) == (Standing.STALE, 301.0, "not asked for again since")


async def test_days_are_apart(bench: Bench) -> None:
    """Figures of one range say nothing of another."""
    bench.tell("a", ONE, ONE)
    sources = bench.sources()
    await sources.get(["a"], TODAY)
    assert sources.known("a", YESTERDAY).totals is None


async def test_memory_is_bounded(bench: Bench) -> None:
    """The campaign that was fetched longest ago is forgotten, and unknown again."""
    for name in "abc":
        bench.tell(name, ONE, ONE)
    sources = bench.sources(keep=2)
    found = await sources.get("abc", TODAY)
    assert all(merged.totals == Figures(2) for merged in found.values())
    assert [sources.known(name, TODAY).standing for name in "abc"] == [
        Standing.UNKNOWN,
        Standing.FRESH,
        Standing.FRESH,
    ]


async def test_the_house_is_a_source_of_every_campaign(bench: Bench) -> None:
    """By the campaign's own id; what its ledger leaves out is unknown, and its bids are not set here."""

    async def ledger(ids: Sequence[str], days: Days) -> Mapping[str, Figures]:
        return {"a": Figures(7)} if "a" in ids and days == TODAY else {}

    bench.tell("a", ONE, ONE)
    sources = bench.sources(house=OwnFigures(ledger, "USD"))
    found = await sources.get(["a", "mine"], TODAY)
    assert found["a"].totals == Figures(9)
    assert found["mine"].unknown == ("house",)
    update = BidUpdate("house", "a", "a", 1, "USD")
    assert await sources.update_bids([update]) == [
        BidResult(update, reason="a bid of the house is set by changing its campaign")
    ]


def bid(source: str, campaign_id: str, target_id: str) -> BidUpdate:
    """Two dollars."""
    return BidUpdate(source, campaign_id, target_id, 2 * 10**9, "USD")


async def test_bids_are_reported_one_by_one(bench: Bench) -> None:
    """In order, over sources and chunks: applied, refused, unknown source, unknown campaign, named twice."""
    bench.one.refuse = lambda update: "too high" if update.target_id == "s2" else ""
    updates = [
        bid("one", "a", "s1"),
        bid("two", "a", "s1"),
        bid("one", "b", "s2"),
        bid("three", "a", "s1"),
        bid("one", "nobody", "s3"),
        bid("one", "c", "s1"),
        bid("one", "c", "s4"),
    ]
    results = await bench.sources().update_bids(updates)
    assert [result.update for result in results] == updates
    assert [(result.applied_nanos, result.reason) for result in results] == [
        (2 * 10**9, ""),
        (2 * 10**9, ""),
        (None, "too high"),
        (None, "there is no source 'three'"),
        (None, "campaign 'nobody' has no id at one"),
        (None, "an earlier update of this call has the same target"),
        (2 * 10**9, ""),
    ]
    assert sorted(bench.one.asked) == [("s1", "s2"), ("s4",)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceError("HTTP 429"), "HTTP 429"),
        (ValueError("secret"), "the source failed with ValueError; it may have been applied"),
        (None, "no answer within 0.02 s; it may have been applied"),
    ],
)
async def test_bids_that_fail_together(bench: Bench, error: Exception | None, reason: str) -> None:
    """Those of one source; the other's are applied."""
    bench.one.error = error
    if error is None:
        bench.one.ready.clear()
    results = await bench.sources(deadline_s=0.02).update_bids([bid("one", "a", "s1"), bid("two", "a", "s1")])
    assert [(result.applied_nanos, result.reason) for result in results] == [(None, reason), (2 * 10**9, "")]


async def test_the_real_adapters_side_by_side(bench: Bench) -> None:
    """Facebook in dollars and Google in euros, over HTTP; when Facebook is away its figures stay, marked."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    overall = asyncio.Semaphore(IN_FLIGHT)

    def gate() -> Gate:
        return Gate(bench.clock, overall, per_second=1e9)

    async def token() -> str:
        return adwords.ACCESS_TOKEN

    async with graph.serving() as facebook, adwords.serving() as google:
        facebook.pages["7"] = [[graph.row(100, 5, "1.5")]]
        google.campaigns["9"] = adwords.metrics(50, 1, 2_000_000)
        sources = MetricSources(
            [
                FacebookInsights(http, gate(), token=graph.TOKEN, currency="USD", url=facebook.url),
                GoogleAds(
                    http,
                    gate(),
                    access_token=token,
                    developer_token=adwords.DEVELOPER_TOKEN,
                    customer_id=adwords.CUSTOMER,
                    currency="EUR",
                    url=google.url,
                ),
            ],
            lambda campaign_id: {"facebook": "7", "google": "9"},
            Rates("USD", {"EUR": 1.5}),
            bench.clock,
            deadline_s=5,
        )
        merged = (await sources.get(["a"], TODAY))["a"]
        assert (merged.totals, merged.standing) == (Figures(150, 6, 0, 4_500_000_000), Standing.FRESH)
        facebook.instead = graph.web.Response(status=500)
        bench.clock.advance(400)
        merged = (await sources.get(["a"], TODAY))["a"]
        assert (merged.totals, merged.stale) == (Figures(150, 6, 0, 4_500_000_000), ("facebook",))
        assert merged.readings[0].reason == "HTTP 500"
        await sources.close()
    await http.close()


async def test_a_platform_is_not_overrun(bench: Bench) -> None:
    """500 campaigns are ten batches; three places at the gate: never more than three requests at the platform."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    async with graph.serving() as platform:
        ids = [str(n) for n in range(500)]
        platform.pages = {campaign_id: [[graph.row(1)]] for campaign_id in ids}
        platform.hang = asyncio.Event()
        gate = Gate(bench.clock, asyncio.Semaphore(IN_FLIGHT), in_flight=3, per_second=1e9)
        source = FacebookInsights(http, gate, token=graph.TOKEN, currency="USD", url=platform.url)
        sources = MetricSources([source], lambda name: {"facebook": name}, Rates(), bench.clock, deadline_s=20)
        getting = asyncio.create_task(sources.get(ids, TODAY))
        for _ in range(3):
            await platform.arrived.acquire()
        platform.hang.set()
        found = await getting
        assert [merged.totals for merged in found.values()] == [Figures(1)] * 500
        assert (platform.most_at_once, len(platform.batches)) == (3, 10)
    await http.close()
