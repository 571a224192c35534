"""How sources are asked: together, once, in time, not too often, and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from rtb.adapters.facebook_insights import FacebookInsights
from rtb.adapters.google_ads import GoogleAds
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.domain.money import Rates
from rtb.domain.source_metrics import Figures, Reading, Standing
from rtb.ports.metric_source import SourceError
from rtb.services.metric_sources import ABREAST, MetricSources
from rtb.services.request_gate import IN_FLIGHT, Gate
from tests.support import adwords, graph
from tests.unit.metric_parts import ONE, TODAY, Bench, opened


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Two sources."""
    async with opened() as bench:
        yield bench


async def test_the_deadline_takes_only_what_hangs(bench: Bench) -> None:
    """A source that never answers is stale after the deadline, at once with the other's answer."""
    bench.tell("a", ONE, ONE)
    sources = bench.sources(deadline_s=0.5)
    await sources.get(["a"], TODAY)
    bench.one.ready.clear()
    await sources.refresh(["a"], TODAY)
    merged = sources.known("a", TODAY)
    assert merged.readings[0].reason == "no answer within 0.5 s"
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
    sources = bench.sources(deadline_s=0.5)
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


async def test_the_real_adapters_side_by_side(bench: Bench) -> None:
    """Facebook in dollars and Google in euros, over HTTP; when Facebook is away its figures stay, marked."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    overall = asyncio.Semaphore(IN_FLIGHT)

    def gate() -> Gate:
        return Gate(bench.clock, overall, per_second=1e9)

    async with graph.serving() as facebook, adwords.serving() as google:
        facebook.pages["7"] = [[graph.row(100, 5, "1.5")]]
        google.campaigns["9"] = adwords.metrics(50, 1, 2_000_000)
        sources = MetricSources(
            [
                FacebookInsights(http, gate(), token=graph.TOKEN, currency="USD", url=facebook.url),
                GoogleAds(
                    http,
                    gate(),
                    access_token=adwords.Granted(),
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
