"""Whatever a platform answers: figures, reasons, or one error of the port, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.adapters.clock import ManualClock
from rtb.adapters.facebook_insights import FacebookInsights
from rtb.adapters.google_ads import GoogleAds
from rtb.domain.source_metrics import CampaignMetrics, Days
from rtb.ports.http import MAX_BODY, NOTHING_MORE, HttpResponse, Method
from rtb.ports.metric_source import BidUpdate, MetricSource, SourceError, SourceFailure
from rtb.services.request_gate import Gate
from tests.support import adwords, graph

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
UPDATES = [BidUpdate("x", "1", "11", 10**9, "USD"), BidUpdate("x", "2", "12", 10**9, "USD")]
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
USAGES = ("x-app-usage", "x-ad-account-usage", "x-business-use-case-usage", "x-fb-ads-insights-throttle")
HEADER = st.sampled_from(["retry-after", "date", *USAGES])
USAGE = JSON.map(json.dumps) | JSON.map(lambda value: json.dumps({"1": [{"call_count": value, "total_time": value}]}))
HEADERS = st.dictionaries(HEADER, st.text(max_size=20) | USAGE, max_size=3)
STATUS = st.sampled_from([200, 200, 200, 400, 401, 403, 429, 500, 503])


class Canned:
    """An HTTP client that always has the same response."""

    def __init__(self, response: HttpResponse) -> None:
        self.response = response

    async def send(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] = NOTHING_MORE,
        body: bytes = b"",
        timeout_s: float = 5.0,
        max_body: int = MAX_BODY,
    ) -> HttpResponse:
        """Give it."""
        return self.response

    async def close(self) -> None:
        """Nothing is open."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[found for key, inner in items for found in places(inner, (*path, key))]]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with something else at a path; ... leaves it out."""
    if not path:
        return None if new is ... else new
    copy = deepcopy(value)
    at = copy
    for key in path[:-1]:
        at = at[key]
    if new is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return copy


@st.composite
def spoilt(draw: st.DrawFn, *valid: Any) -> Any:
    """A valid answer with something else at one to three places."""
    value = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 3))):
        value = put(value, draw(st.sampled_from(places(value))), draw(JSON | st.just(...)))
    return value


async def check(source: MetricSource) -> None:
    """Ask for metrics and set bids."""
    found: Mapping[str, CampaignMetrics | SourceFailure]
    try:
        found = await source.fetch(["1", "2"], TODAY)
    except SourceError as error:
        found = {"1": SourceFailure(str(error))}
    assert set(found) <= {"1", "2"}
    for told in found.values():
        if isinstance(told, CampaignMetrics):
            figures = told.figures
            assert min(figures.impressions, figures.clicks, figures.conversions_micros) >= 0
            assert min(figures.spend_nanos, figures.revenue_nanos) >= 0
        else:
            assert told.reason
            assert "\n" not in told.reason
    results = await source.update_bids(UPDATES)
    assert [result.update for result in results] == UPDATES
    assert all((result.applied_nanos is None) == bool(result.reason) for result in results)


def response(status: int, headers: Mapping[str, str], answer: Any) -> Canned:
    """A client whose server answers so."""
    return Canned(HttpResponse(status, headers, answer if isinstance(answer, bytes) else json.dumps(answer).encode()))


def gate() -> Gate:
    """One that a hold never closes for long."""
    return Gate(ManualClock(), asyncio.Semaphore(1), per_second=1e9, patience_s=1e9, sleep=lambda _: asyncio.sleep(0))


PAGE = {
    "data": [graph.row(1, 1, "1", actions=[{"action_type": "omni_purchase", "value": "1"}])],
    "paging": {"cursors": {}},
}
MORE = {"data": [], "paging": {"cursors": {"after": "a"}, "next": "https://graph.example/"}}
USED = [{"name": "X-App-Usage", "value": '{"call_count":100}'}]


@settings(max_examples=120, deadline=None)
@given(STATUS, HEADERS, spoilt(PAGE, MORE, graph.error(17, "no"), {"success": True}), st.data())
def test_facebook(status: int, headers: dict[str, str], body: Any, data: st.DataObject) -> None:
    """Answers that are spoilt within an item, or as a whole."""
    item = {"code": data.draw(STATUS), "headers": USED, "body": json.dumps(body)}
    batch = [item, data.draw(st.just(None) | spoilt(item))]
    answer = data.draw(st.just(batch) | spoilt(batch, graph.error(4, "no")) | st.binary(max_size=20))
    asyncio.run(check(FacebookInsights(response(status, headers, answer), gate(), token="t0ken", currency="USD")))


ROW = {"campaign": {"id": "1"}, "customer": {"currencyCode": "USD"}, "metrics": adwords.metrics(1, 1, 1, 1.5, 2.5)}
FAILED = adwords.failed(1, "quotaError", "RESOURCE_EXHAUSTED", "no")
FAILED["details"] = {"quotaErrorDetails": {"retryDelay": "30s"}}
REFUSED = adwords.status(429, "RESOURCE_EXHAUSTED", "no", FAILED)
CHANGED = {"results": [{"resourceName": "customers/1/adGroups/11"}, {}], "partialFailureError": REFUSED["error"]}


@settings(max_examples=120, deadline=None)
@given(
    STATUS,
    HEADERS,
    spoilt({"results": [ROW], "nextPageToken": "n"}, {"results": [ROW]}, CHANGED, REFUSED, [REFUSED])
    | st.binary(max_size=20),
)
def test_google(status: int, headers: dict[str, str], answer: Any) -> None:
    """Reports, mutations and refusals, spoilt."""
    client = response(status, headers, answer)
    source = GoogleAds(
        client, gate(), access_token=adwords.Granted(), developer_token="t", customer_id="1", currency="USD"
    )
    asyncio.run(check(source))
