"""Google Ads as a metric source, against a local server that speaks its REST interface."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from rtb.adapters.clock import ManualClock
from rtb.adapters.google_ads import MAX_PAGES, GoogleAds
from rtb.adapters.google_token import GoogleToken
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.adapters.source_http import retry_after_s
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.ports.metric_source import BidUpdate, MetricSource, SourceError, SourceFailure
from rtb.services.request_gate import Gate
from tests.support.adwords import (
    ACCESS_TOKEN,
    CUSTOMER,
    DEVELOPER_TOKEN,
    AdWords,
    Granted,
    failed,
    metrics,
    serving,
)
from tests.support.adwords import (
    status as refused,
)

JANUARY = Days(date(2026, 1, 1), date(2026, 1, 31))
QUERY = (
    "SELECT campaign.id, customer.currency_code, metrics.impressions, metrics.clicks, metrics.cost_micros, "
    "metrics.conversions, metrics.conversions_value FROM campaign "
    "WHERE campaign.id IN (1, 2) AND segments.date BETWEEN '2026-01-01' AND '2026-01-31'"
)


class Bench:
    """A source, its gate and the server it asks."""

    def __init__(self, adwords: AdWords, http: OutgoingHttp) -> None:
        self.adwords = adwords
        self.http = http
        self.clock = ManualClock()
        self.gate = Gate(self.clock, asyncio.Semaphore(100), per_second=1e9)

    def source(self, **more: Any) -> GoogleAds:
        """The source, asking the server."""
        told = {
            "access_token": Granted(),
            "developer_token": DEVELOPER_TOKEN,
            "customer_id": CUSTOMER,
            "currency": "EUR",
            "url": self.adwords.url,
            **more,
        }
        return GoogleAds(self.http, self.gate, **told)

    async def fetch(self, *ids: str, **more: Any) -> dict[str, CampaignMetrics | SourceFailure]:
        """What it tells of campaigns in January."""
        return dict(await self.source(**more).fetch(ids, JANUARY))

    async def reason(self, **more: Any) -> str:
        """Why it tells nothing at all."""
        with pytest.raises(SourceError) as caught:
            await self.fetch("1", **more)
        return str(caught.value)

    async def bid(self, *updates: BidUpdate, **more: Any) -> list[tuple[int | None, str]]:
        """What becomes of updates."""
        results = await self.source(**more).update_bids(updates)
        assert [result.update for result in results] == list(updates)
        return [(result.applied_nanos, result.reason) for result in results]

    def token(self) -> GoogleToken:
        """Tokens of the server."""
        told = {"client_id": "me", "client_secret": "secret-1", "refresh_token": "refresh-1"}
        return GoogleToken(self.http, self.gate, self.clock, url=f"{self.adwords.url}/token", **told)


def euros(target_id: str, micros: int) -> BidUpdate:
    """An update in EUR."""
    return BidUpdate("google", "1", target_id, micros * 1_000, "EUR")


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """A source and a server."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    async with serving() as adwords:
        yield Bench(adwords, http)
        await http.close()


async def test_a_report_is_read_as_published(bench: Bench) -> None:
    """1,234,567 micros are 1,234,567,000 nanos; 2.5 conversions stay 2.5; the currency is what the answer says."""
    source: MetricSource = bench.source(customer_id="123-456-7890", login_customer_id="9-9")
    bench.adwords.campaigns = {"1": metrics(1000, 20, 1_234_567, 2.5, 10.1), "2": metrics()}
    assert await source.fetch(["1", "2"], JANUARY) == {
        "1": CampaignMetrics(Figures(1000, 20, 2_500_000, 1_234_567_000, 10_100_000_000), "EUR"),
        "2": CampaignMetrics(Figures(), "EUR"),
    }
    assert bench.adwords.asked == [{"query": QUERY}]
    assert bench.adwords.headers[0]["login-customer-id"] == "99"


async def test_pages_follow_their_tokens(bench: Bench) -> None:
    """Five campaigns on three pages; the query stays the same."""
    bench.adwords.campaigns = {str(n): metrics(n) for n in range(1, 6)}
    bench.adwords.page_size = 2
    found = await bench.fetch("1", "2", "3", "4", "5")
    assert found == {str(n): CampaignMetrics(Figures(n), "EUR") for n in range(1, 6)}
    assert [asked.get("pageToken") for asked in bench.adwords.asked] == [None, "2", "4"]
    assert len({asked["query"] for asked in bench.adwords.asked}) == 1


async def test_a_page_that_fails_fails_all(bench: Bench) -> None:
    """Any row may be on it."""
    bench.adwords.campaigns = {str(n): metrics(n) for n in range(1, 4)}
    bench.adwords.page_size = 2
    bench.adwords.instead[1] = web.Response(status=500, text="<html>")
    with pytest.raises(SourceError, match=r"^HTTP 500$"):
        await bench.fetch("1", "2", "3")


async def test_endless_pages_end(bench: Bench) -> None:
    """A source that always has a next page is a failure, not a loop."""
    for at in range(MAX_PAGES + 1):
        bench.adwords.instead[at] = web.json_response({"nextPageToken": "again"})
    assert await bench.reason() == f"more than {MAX_PAGES} pages of campaigns"
    assert len(bench.adwords.asked) == MAX_PAGES


async def test_what_is_not_told_is_a_failure(bench: Bench) -> None:
    """No row, a row without a metric, with one that is none; an id that would change the query is never sent."""
    bench.adwords.campaigns = {"1": metrics(1), "3": metrics(3), "4": metrics(4), "5": {}}
    del bench.adwords.campaigns["3"]["costMicros"]
    bench.adwords.campaigns["4"]["clicks"] = "many"
    assert await bench.fetch("1", "2", "3", "4", "5", "6) OR (1") == {
        "1": CampaignMetrics(Figures(1), "EUR"),
        "2": SourceFailure("this account reports no such campaign"),
        "3": SourceFailure("malformed answer: no metrics.cost_micros"),
        "4": SourceFailure("malformed answer: 'many' is not a number"),
        "5": SourceFailure("malformed answer: no metrics.impressions"),
        "6) OR (1": SourceFailure("campaign id '6) OR (1' is not a number"),
    }


async def test_nothing_to_ask(bench: Bench) -> None:
    """No number among the ids: no request."""
    assert await bench.fetch("x") == {"x": SourceFailure("campaign id 'x' is not a number")}
    assert bench.adwords.asked == []


@pytest.mark.parametrize(
    "body", ["<html>", "[]", '{"results":3}', '{"results":[{"campaign":{"id":"1"}}]}', "[" * 5_000]
)
async def test_an_answer_that_is_none(bench: Bench, body: str) -> None:
    """Not JSON, or of another shape."""
    bench.adwords.instead[-1] = web.Response(text=body)
    assert (await bench.reason()).startswith("malformed answer: ")


async def test_a_quota_closes_the_gate(bench: Bench) -> None:
    """For as long as the quota error says: 30 s; then the source is asked again."""
    quota = failed(None, "quotaError", "RESOURCE_EXHAUSTED", "Too many requests. Retry in 30 seconds.")
    quota["details"] = {"quotaErrorDetails": {"rateScope": "DEVELOPER", "rateName": "Requests", "retryDelay": "30s"}}
    told = refused(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", quota)
    bench.adwords.instead[0] = web.json_response(told, status=429)
    bench.adwords.campaigns = {"1": metrics(1)}
    said = "Too many requests. Retry in 30 seconds. (quotaError RESOURCE_EXHAUSTED)"
    assert await bench.reason() == said
    assert await bench.reason() == f"{said}; nothing is asked for another 30 s"
    assert len(bench.adwords.asked) == 1
    bench.clock.advance(30)
    assert await bench.fetch("1") == {"1": CampaignMetrics(Figures(1), "EUR")}


@pytest.mark.parametrize(
    ("more", "headers", "seconds"),
    [
        ({}, {}, 60),
        ({}, {"Retry-After": "7"}, 60),
        ({"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]}, {}, 1.5),
        ({"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "soon"}]}, {}, 60),
        ({}, {"Retry-After": "90"}, 90),
    ],
)
async def test_how_long_the_gate_is_closed(
    bench: Bench, more: dict[str, Any], headers: dict[str, str], seconds: float
) -> None:
    """RetryInfo, Retry-After, or a minute when nobody says; the longest of them."""
    told = refused(429, "RESOURCE_EXHAUSTED", "Slow down", **more)
    bench.adwords.instead[-1] = web.json_response(told, status=429, headers=headers)
    assert (await bench.reason()).startswith("Slow down (RESOURCE_EXHAUSTED)")
    assert bench.gate.held_s == seconds


async def test_a_stream_like_refusal_is_read(bench: Bench) -> None:
    """Streaming methods answer with a list."""
    bench.adwords.instead[-1] = web.json_response([refused(400, "INVALID_ARGUMENT", "Bad query")], status=400)
    assert await bench.reason() == "Bad query (INVALID_ARGUMENT)"
    bench.adwords.instead[-1] = web.json_response([], status=400)
    assert await bench.reason() == "HTTP 400"
    assert bench.gate.held_s == 0


async def test_429_alone_closes_the_gate(bench: Bench) -> None:
    """From something on the way that is not the API."""
    bench.adwords.instead[-1] = web.Response(status=429, text="<html>")
    assert await bench.reason() == "HTTP 429"
    assert bench.gate.held_s == 60


async def test_no_token_is_in_a_reason(bench: Bench) -> None:
    """Neither of the two, even when the answer quotes it."""
    told = refused(401, "UNAUTHENTICATED", f"Bad {ACCESS_TOKEN} {DEVELOPER_TOKEN}")
    bench.adwords.instead[-1] = web.json_response(told, status=401)
    assert await bench.reason() == "Bad *** *** (UNAUTHENTICATED)"
    bench.adwords.instead = {}
    assert await bench.reason(developer_token="other") == (
        "The developer token is not valid. (authenticationError DEVELOPER_TOKEN_INVALID)"
    )


async def test_a_hanging_server_is_left(bench: Bench) -> None:
    """Each request has its time."""
    bench.adwords.hang = asyncio.Event()
    assert await bench.reason(timeout_s=0.05) == f"{bench.adwords.url} did not answer in 0.05 s"


async def test_bids_succeed_and_fail_one_by_one(bench: Bench) -> None:
    """1.239 EUR become 1.23, a multiple of the billable unit; the refusal of an operation is found by its index."""
    refusal = {
        "kind": "currencyError",
        "code": "VALUE_NOT_MULTIPLE_OF_BILLABLE_UNIT",
        "message": "Bid must be a multiple",
    }
    bench.adwords.refused["12"] = refusal
    dollars = BidUpdate("google", "1", "14", 10**9, "USD")
    results = await bench.bid(
        euros("11", 1_239_000), dollars, euros("12", 500_000), euros("13", 2_000_000), euros("15", 9_999), euros("x", 1)
    )
    assert results == [
        (1_230_000_000, ""),
        (None, "the bid is in USD, the account in EUR"),
        (None, "Bid must be a multiple (currencyError VALUE_NOT_MULTIPLE_OF_BILLABLE_UNIT)"),
        (2_000_000_000, ""),
        (None, "less than 10000 micros, the smallest unit that can be bid"),
        (None, "ad group id 'x' is not a number"),
    ]
    assert bench.adwords.bids == {"11": 1_230_000, "13": 2_000_000}


async def test_an_error_without_an_operation(bench: Bench) -> None:
    """It is the reason of those that changed nothing, and of no other."""
    bench.adwords.bids = {"11": 1}
    bench.adwords.unlocated = failed(None, "internalError", "TRANSIENT_ERROR", "Try again")
    results = await bench.bid(euros("11", 10_000), euros("12", 20_000))
    assert results == [(10_000_000, ""), (None, "Try again (internalError TRANSIENT_ERROR)")]


async def test_too_few_results(bench: Bench) -> None:
    """What is not said to be done is not done."""
    bench.adwords.instead[-1] = web.json_response({"results": [{"resourceName": "customers/1/adGroups/11"}]})
    results = await bench.bid(euros("11", 10_000), euros("12", 20_000))
    assert results == [(10_000_000, ""), (None, "the source does not say that it is done")]


async def test_a_quota_within_a_partial_failure_closes_the_gate(bench: Bench) -> None:
    """An operation may be the one too many."""
    bench.adwords.refused["11"] = {"kind": "quotaError", "code": "RESOURCE_TEMPORARILY_EXHAUSTED", "message": "Slow"}
    assert await bench.bid(euros("11", 10_000)) == [(None, "Slow (quotaError RESOURCE_TEMPORARILY_EXHAUSTED)")]
    assert bench.gate.held_s == 60


@pytest.mark.parametrize(
    ("code", "body", "reason"),
    [
        (502, "<html>", "HTTP 502; it may have been applied"),
        (200, "<html>", "malformed answer: .*; it may have been applied"),
        (403, json.dumps(refused(403, "PERMISSION_DENIED", "Sorry")), r"Sorry \(PERMISSION_DENIED\)"),
    ],
)
async def test_bids_that_cannot_be_sent(bench: Bench, code: int, body: str, reason: str) -> None:
    """Each has the reason, and whether it may have been applied all the same; one that was not sent has its own."""
    bench.adwords.instead[-1] = web.Response(status=code, text=body)
    (first, why), second = await bench.bid(euros("11", 10_000), euros("12", 1))
    assert first is None
    assert re.fullmatch(reason, why)
    assert second == (None, "less than 10000 micros, the smallest unit that can be bid")


async def test_no_bids_to_send(bench: Bench) -> None:
    """No request."""
    assert await bench.bid() == []
    assert bench.adwords.asked == []


async def test_a_token_is_asked_for_once_an_hour(bench: Bench) -> None:
    """Ten who ask at once get one; a minute before its end it is replaced."""
    token = bench.token()
    assert await asyncio.gather(*[token.get() for _ in range(10)]) == [ACCESS_TOKEN] * 10
    bench.clock.advance(3_538)
    assert await token.get() == ACCESS_TOKEN
    assert len(bench.adwords.tokens) == 1
    bench.clock.advance(1)
    assert await token.get() == ACCESS_TOKEN
    assert (
        bench.adwords.tokens
        == [
            {
                "client_id": "me",
                "client_secret": "secret-1",
                "refresh_token": "refresh-1",
                "grant_type": "refresh_token",
            }
        ]
        * 2
    )


async def test_a_refused_token_is_replaced(bench: Bench) -> None:
    """A token may end before its time: the call fails, the next one has another token; an older one is no news."""
    token = bench.token()
    bench.adwords.campaigns = {"1": metrics(1)}
    bench.adwords.token = web.json_response({"access_token": "revoked", "expires_in": 3599})
    assert await bench.reason(access_token=token) == "Invalid credentials. (UNAUTHENTICATED)"
    bench.adwords.token = None
    assert await bench.fetch("1", access_token=token) == {"1": CampaignMetrics(Figures(1), "EUR")}
    token.forget("revoked")
    assert await token.get() == ACCESS_TOKEN
    assert len(bench.adwords.tokens) == 2


async def test_no_token(bench: Bench) -> None:
    """The reason is the endpoint's, without secrets, and the source's too."""
    refusal = {"error": "invalid_grant", "error_description": "Token refresh-1 has been revoked."}
    bench.adwords.token = web.json_response(refusal, status=400)
    said = "no access token: invalid_grant Token *** has been revoked."
    assert await bench.reason(access_token=bench.token()) == said
    bench.adwords.token = web.Response(status=500)
    assert await bench.reason(access_token=bench.token()) == "no access token: HTTP 500"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT", "date": "Fri, 31 Dec 2027 23:59:49 GMT"}, 10),
        ({"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT", "date": "Sat, 01 Jan 2028 00:00:00 GMT"}, 0),
        ({"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}, 60),
        ({"retry-after": "-1"}, 60),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, or a date less the response's own; a minute when it cannot be read (RFC 9110 10.2.3)."""
    assert retry_after_s(headers) == seconds
