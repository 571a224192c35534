"""Facebook as a metric source, against a local server that speaks the Graph API."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from aiohttp import web

from rtb.adapters.clock import ManualClock
from rtb.adapters.facebook_answers import held_off_s
from rtb.adapters.facebook_insights import MAX_PAGES, FacebookInsights
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.ports.metric_source import BidUpdate, MetricSource, SourceError, SourceFailure
from rtb.services.request_gate import Gate
from tests.support.graph import TOKEN, Graph, error, row, serving

JANUARY = Days(date(2026, 1, 1), date(2026, 1, 31))
NOTHING = CampaignMetrics(Figures(), "USD")


class Bench:
    """A source, its gate and the server it asks."""

    def __init__(self, graph: Graph, http: OutgoingHttp) -> None:
        self.graph = graph
        self.http = http
        self.clock = ManualClock()
        self.gate = Gate(self.clock, asyncio.Semaphore(100), per_second=1e9)

    def source(self, **more: Any) -> FacebookInsights:
        """The source, asking the server."""
        told = {"token": TOKEN, "currency": "USD", "url": self.graph.url, **more}
        return FacebookInsights(self.http, self.gate, **told)

    async def fetch(self, *ids: str, **more: Any) -> dict[str, CampaignMetrics | SourceFailure]:
        """What it tells of campaigns in January."""
        return dict(await self.source(**more).fetch(ids, JANUARY))

    async def reason(self, campaign_id: str, **more: Any) -> str:
        """Why it tells nothing of a campaign."""
        try:
            found = (await self.fetch(campaign_id, **more))[campaign_id]
        except SourceError as error:
            return str(error)
        assert isinstance(found, SourceFailure)
        return found.reason

    async def bid(self, *updates: BidUpdate, **more: Any) -> list[tuple[int | None, str]]:
        """What becomes of updates."""
        results = await self.source(**more).update_bids(updates)
        assert [result.update for result in results] == list(updates)
        return [(result.applied_nanos, result.reason) for result in results]


def cents(target_id: str, amount_cents: int, campaign_id: str = "7") -> BidUpdate:
    """An update in USD."""
    return BidUpdate("facebook", campaign_id, target_id, amount_cents * 10_000_000, "USD")


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """A source and a server."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    async with serving() as graph:
        yield Bench(graph, http)
        await http.close()


async def test_a_campaign_is_read_as_published(bench: Bench) -> None:
    """Strings become numbers: 20.54 of spend is 20,540,000,000 nanos; one action type is conversions and revenue, for
    the others overlap with it."""
    source: MetricSource = bench.source()
    bench.graph.pages["7"] = [
        [
            row(
                9708,
                120,
                "20.54",
                clicks="180",
                actions=[
                    {"action_type": "link_click", "value": "120"},
                    {"action_type": "purchase", "value": "3"},
                    {"action_type": "omni_purchase", "value": "4"},
                ],
                action_values=[{"action_type": "omni_purchase", "value": "81.6"}],
            )
        ]
    ]
    told = Figures(9708, 120, 4_000_000, 20_540_000_000, 81_600_000_000)
    assert await source.fetch(["7"], JANUARY) == {"7": CampaignMetrics(told, "USD")}
    query = parse_qs(urlsplit(bench.graph.batches[0][0]["relative_url"]).query)
    assert json.loads(query["time_range"][0]) == {"since": "2026-01-01", "until": "2026-01-31"}
    assert query["fields"] == ["impressions,inline_link_clicks,spend,actions,action_values,account_currency"]


async def test_clicks_and_conversions_can_be_others(bench: Bench) -> None:
    """All clicks instead of those that lead to the advertiser; leads instead of purchases."""
    actions = [{"action_type": "lead", "value": "2"}, {"action_type": "omni_purchase", "value": "9"}]
    bench.graph.pages["7"] = [[row(10, 1, "1", clicks="5", actions=actions)]]
    found = await bench.fetch("7", click_field="clicks", conversion="lead")
    assert found == {"7": CampaignMetrics(Figures(10, 5, 2_000_000, 10**9), "USD")}
    query = parse_qs(urlsplit(bench.graph.batches[0][0]["relative_url"]).query)
    assert query["fields"] == ["impressions,clicks,spend,actions,action_values,account_currency"]


async def test_pages_are_added_up_by_their_cursors(bench: Bench) -> None:
    """Campaigns end on different pages, and an empty page is not the last while it has a next one."""
    bench.graph.pages = {"1": [[row(1, 1, "0.1")], [], [row(2, 0, "0.2")]], "2": [[row(5, 0, "1")]], "3": []}
    found = await bench.fetch("1", "2", "3")
    assert found == {
        "1": CampaignMetrics(Figures(3, 1, 0, 300_000_000), "USD"),
        "2": CampaignMetrics(Figures(5, 0, 0, 10**9), "USD"),
        "3": NOTHING,  # no rows: the source says that nothing was delivered
    }
    assert [len(batch) for batch in bench.graph.batches] == [3, 1, 1]


async def test_endless_pages_end(bench: Bench) -> None:
    """A source that always has a next page is a failure, not a loop."""
    bench.graph.pages["1"] = [[row(1)]] * (MAX_PAGES + 1)
    assert await bench.reason("1") == f"more than {MAX_PAGES} pages of insights"
    assert len(bench.graph.batches) == MAX_PAGES


async def test_one_campaign_fails_alone(bench: Bench) -> None:
    """Each answer of a batch stands for itself: refused, unfinished (null), unknown, no number."""
    bench.graph.pages["1"] = [[row(1)]]
    bench.graph.refused["2"] = 403, error(200, "Missing permissions")
    bench.graph.refused["3"] = 500, error(2, "Service temporarily unavailable", is_transient=True)
    bench.graph.unfinished.add("4")
    assert await bench.fetch("1", "2", "3", "4", "5", "6/insights?x=") == {
        "1": CampaignMetrics(Figures(1), "USD"),
        "2": SourceFailure("Missing permissions (code 200)"),
        "3": SourceFailure("Service temporarily unavailable (code 2, passing)"),
        "4": SourceFailure("not finished in time, within its batch"),
        "5": SourceFailure("Unsupported request. Object with ID '5' does not exist (code 100, subcode 33)"),
        "6/insights?x=": SourceFailure("campaign id '6/insights?x=' is not a number"),
    }
    assert bench.gate.held_s == 0


async def test_a_later_page_that_fails_takes_only_its_campaign(bench: Bench) -> None:
    """What ended before is kept; half of a campaign is none of it."""
    bench.graph.pages = {"1": [[row(1)]], "2": [[row(2)], [row(2, spend="1 USD")]]}
    found = await bench.fetch("1", "2")
    assert found["1"] == CampaignMetrics(Figures(1), "USD")
    assert found["2"] == SourceFailure("malformed answer: '1 USD' is not a number")


async def test_a_second_batch_that_fails_takes_only_who_is_in_it(bench: Bench) -> None:
    """What the first one told stays."""
    bench.graph.pages = {"1": [[row(1)]], "2": [[row(2)], [row(2)]]}
    bench.graph.instead_of[1] = web.Response(status=500)
    assert await bench.fetch("1", "2") == {
        "1": CampaignMetrics(Figures(1), "USD"),
        "2": SourceFailure("HTTP 500"),
    }


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"impressions": "-1"}, "malformed answer: -1 is not between 0 and 10**15"),
        ({"impressions": "1.5"}, "malformed answer: '1.5' is not a whole number"),
        ({"spend": "NaN"}, "malformed answer: NaN is not between 0 and 10**15"),
        ({"spend": "1e999999"}, "malformed answer: 1e999999 is not between 0 and 10**15"),
        ({"spend": None}, "malformed answer: Expected `float | str`, got `null` - at `$.data[0].spend`"),
    ],
)
async def test_figures_that_are_none(bench: Bench, told: dict[str, Any], reason: str) -> None:
    """A failure with its place, never a zero."""
    bench.graph.pages["1"] = [[row(1) | told]]
    assert await bench.reason("1") == reason


async def test_a_figure_that_is_missing(bench: Bench) -> None:
    """Spend is always told; without it nothing is known."""
    bench.graph.pages["1"] = [[{"impressions": "3", "account_currency": "USD"}]]
    assert await bench.reason("1") == "malformed answer: Object missing required field `spend` - at `$.data[0]`"


@pytest.mark.parametrize("body", ["<html>", "{", "{}", "[1]", "[]", "[" * 5_000, "\ud800"])
async def test_an_answer_that_is_none(bench: Bench, body: str) -> None:
    """Not JSON, of another shape, too few answers, too deep, no text: every campaign fails with the reason."""
    bench.graph.instead = web.Response(body=body.encode("utf-8", "surrogatepass"))
    assert (await bench.reason("1")).startswith("malformed answer: ")


async def test_http_500_with_a_page_for_people(bench: Bench) -> None:
    """The status is the reason."""
    bench.graph.instead = web.Response(status=500, text="<html>Sorry</html>")
    assert await bench.reason("1") == "HTTP 500"
    assert bench.gate.held_s == 0


async def test_the_token_is_in_no_reason(bench: Bench) -> None:
    """The platform quotes a token that it does not know; the reason does not. A proof goes along when asked for."""
    wrong = "EAAB-wrong"
    assert await bench.reason("1", token=wrong, app_secret="app-secret") == "Malformed access token *** (code 190)"
    assert (
        bench.graph.forms[0]["appsecret_proof"] == hmac.new(b"app-secret", wrong.encode(), hashlib.sha256).hexdigest()
    )


async def test_nobody_there(bench: Bench) -> None:
    """No connection is one line."""
    reason = await bench.reason("1", url="http://127.0.0.1:9")
    assert reason.startswith("http://127.0.0.1:9: ")
    assert TOKEN not in reason


async def test_a_hanging_server_is_left(bench: Bench) -> None:
    """Each request has its time."""
    bench.graph.hang = asyncio.Event()
    assert await bench.reason("1", timeout_s=0.05) == f"{bench.graph.url} did not answer in 0.05 s"


@pytest.mark.parametrize("code", [4, 17, 32, 613, 80_000, 80_004])
async def test_a_refusal_for_the_rate_closes_the_gate(bench: Bench, code: int) -> None:
    """Also when one answer of a batch has it: nothing is asked for a minute, and then again."""
    bench.graph.pages["1"] = [[row(1)]]
    bench.graph.refused["2"] = 400, error(code, "Limit reached")
    found = await bench.fetch("1", "2")
    assert found == {
        "1": CampaignMetrics(Figures(1), "USD"),
        "2": SourceFailure(f"Limit reached (code {code})"),
    }
    again = f"Limit reached (code {code}); nothing is asked for another 60 s"
    assert await bench.reason("1") == again
    assert len(bench.graph.batches) == 1
    bench.clock.advance(60)
    assert await bench.fetch("1") == {"1": CampaignMetrics(Figures(1), "USD")}


async def test_a_throttled_batch_waits_for_the_header(bench: Bench) -> None:
    """The header says 19 minutes, so nothing is asked for 1,140 s."""
    usage = {"123": [{"type": "ads_insights", "call_count": 100, "estimated_time_to_regain_access": 19}]}
    bench.graph.instead = web.json_response(
        error(80_000, "Too many calls"), status=400, headers={"X-Business-Use-Case-Usage": json.dumps(usage)}
    )
    assert await bench.reason("1") == "Too many calls (code 80000)"
    assert bench.gate.held_s == 1_140


async def test_retry_after_is_honoured(bench: Bench) -> None:
    """In seconds, with HTTP 429 and 503; 429 without it is a minute."""
    bench.graph.instead = web.Response(status=429)
    assert await bench.reason("1") == "HTTP 429"
    assert bench.gate.held_s == 60
    bench.clock.advance(60)
    bench.graph.instead = web.Response(status=503, headers={"Retry-After": "120"})
    assert await bench.reason("1") == "HTTP 503"
    assert bench.gate.held_s == 120


async def test_usage_within_a_batch_counts(bench: Bench) -> None:
    """Answers of a batch have headers of their own."""
    bench.graph.pages["1"] = [[row(1)]]
    bench.graph.item_headers = [
        {"name": "X-Ad-Account-Usage", "value": '{"acc_id_util_pct":97,"reset_time_duration":42}'}
    ]
    assert await bench.fetch("1") == {"1": CampaignMetrics(Figures(1), "USD")}
    assert bench.gate.held_s == 42


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("x-business-use-case-usage", '{"1":[{"call_count":28,"total_cputime":25,"total_time":25}]}', 0),
        ("x-business-use-case-usage", '{"1":[{"call_count":1}],"2":[{"call_count":1},{"total_time":95}]}', 60),
        ("x-business-use-case-usage", '{"1":[{"call_count":1,"estimated_time_to_regain_access":3}]}', 180),
        ("x-app-usage", '{"call_count":94,"total_time":25,"total_cputime":25}', 0),
        ("x-app-usage", '{"call_count":100,"total_time":25,"total_cputime":25}', 60),
        ("x-ad-account-usage", '{"acc_id_util_pct":9.67,"reset_time_duration":100}', 0),
        ("x-ad-account-usage", '{"acc_id_util_pct":100}', 60),
        ("x-fb-ads-insights-throttle", '{"app_id_util_pct":100,"acc_id_util_pct":10}', 60),
        ("x-fb-ads-insights-throttle", '{"app_id_util_pct":1,"acc_id_util_pct":10}', 0),
        ("x-app-usage", "none of your business", 0),
        ("x-app-usage", "[" * 5_000, 0),
    ],
)
def test_usage_headers(name: str, value: str, seconds: float) -> None:
    """From 95 % used a minute's pause, or as long as the header says; what cannot be read says nothing."""
    assert held_off_s({name: value}) == seconds


async def test_bids_succeed_and_fail_one_by_one(bench: Bench) -> None:
    """What is applied is in the account's minor units, rounded down; each refusal has its reason."""
    bench.graph.bids = {"11": 1, "12": 1}
    bench.graph.refused["13"] = 400, error(100, "Invalid parameter", error_subcode=1_885_650)
    euros = BidUpdate("facebook", "4", "11", 10**9, "EUR")
    results = await bench.bid(
        BidUpdate("facebook", "1", "11", 1_239_999_999, "USD"),
        cents("13", 100, "2"),
        cents("12", 250, "3"),
        euros,
        BidUpdate("facebook", "5", "11", 9_999_999, "USD"),
        cents("14?x", 1, "6"),
    )
    assert results == [
        (1_230_000_000, ""),
        (None, "Invalid parameter (code 100, subcode 1885650)"),
        (2_500_000_000, ""),
        (None, "the bid is in EUR, the account in USD"),
        (None, "less than the smallest unit of USD that can be bid"),
        (None, "ad set id '14?x' is not a number"),
    ]
    assert bench.graph.bids == {"11": 123, "12": 250}


async def test_ad_sets_of_one_campaign_travel_apart(bench: Bench) -> None:
    """One batch may not hold two ad sets of a campaign; a batch that fails does not take the others."""
    bench.graph.bids = {"11": 1, "12": 1, "21": 1}
    results = await bench.bid(cents("11", 5, "1"), cents("12", 6, "1"), cents("21", 7, "2"))
    assert results == [(50_000_000, ""), (60_000_000, ""), (70_000_000, "")]
    assert [[order["relative_url"] for order in batch] for batch in bench.graph.batches] == [["11", "21"], ["12"]]


async def test_yen_have_no_cents(bench: Bench) -> None:
    """The offset of JPY is 1: 150 yen are 150 units."""
    bench.graph.bids = {"11": 1}
    update = BidUpdate("facebook", "1", "11", 150_900_000_000, "JPY")
    assert await bench.bid(update, currency="JPY") == [(150_000_000_000, "")]
    assert bench.graph.bids == {"11": 150}


async def test_bids_that_cannot_be_sent(bench: Bench) -> None:
    """Every one has the reason, and whether it may have been applied all the same."""
    bench.graph.instead = web.Response(status=500)
    unsure = (None, "HTTP 500; it may have been applied")
    assert await bench.bid(cents("11", 5, "1"), cents("12", 6, "2")) == [unsure] * 2
    bench.graph.instead = None
    assert await bench.bid(cents("11", 5), token="EAAB") == [(None, "Malformed access token *** (code 190)")]
    bench.graph.refused["11"] = 200, {"success": False}
    bench.graph.unfinished.add("12")
    assert await bench.bid(cents("11", 5, "1"), cents("12", 5, "2")) == [
        (None, "the source does not say that it is done"),
        (None, "not finished in time, within its batch; it may have been applied"),
    ]
