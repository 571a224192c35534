"""The Google Ads API over REST as a metric source: a campaign report in GAQL, and the bids of ad groups.

Sources (developers.google.com/google-ads/api): rest/common/search (googleAds:search, page tokens),
docs/reporting/zero-metrics (a date in WHERE alone does not segment: a row a campaign, also without impressions),
rest/common/mutate, docs/best-practices/partial-failures, rest/auth (headers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from rtb.adapters.google_answers import Mutated, MutateResult, Page, Row, failure_of
from rtb.adapters.source_http import SourceHttp, decoded, is_number, refusal, unsure
from rtb.domain.money import MICROS, NANOS
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, count, millionths, nanos
from rtb.ports.http import HttpClient
from rtb.ports.metric_source import BidResult, BidUpdate, RequestGate, SourceError, SourceFailure

BATCH = 500
"""Of thousands that it would take: an answer is read in one piece, and that takes a millisecond."""
MAX_PAGES = 20
STEP = 10
"""Rows that are read before others of this process have a turn."""
NANOS_A_MICRO = NANOS // MICROS
NOT_DONE = "the source does not say that it is done"
_pages = msgspec.json.Decoder(Page)
_mutated = msgspec.json.Decoder(Mutated)


class AccessToken(Protocol):
    """Access tokens that are valid, as far as is known."""

    async def get(self) -> str:
        """One of them; raises SourceError when there is none."""
        ...

    def forget(self, token: str) -> None:
        """It was refused: give another one."""
        ...


class GoogleAds:
    """One customer account, whose bids are in `currency`; implements MetricSource."""

    def __init__(
        self,
        http: HttpClient,
        gate: RequestGate,
        *,
        access_token: AccessToken,
        developer_token: str,
        customer_id: str,
        currency: str,
        login_customer_id: str = "",
        name: str = "google",
        url: str = "https://googleads.googleapis.com",
        version: str = "v26",
        bid_field: str = "cpcBidMicros",
        bid_unit_micros: int = 10_000,
        timeout_s: float = 10.0,
    ) -> None:
        """Ask with OAuth 2.0 access tokens, which last an hour: `access_token` gives one each time (see GoogleToken).

        Args:
            customer_id: the account, with or without dashes.
            login_customer_id: the manager account through which it is reached, "" when directly.
            bid_field: the field of an ad group that bids are: cpcBidMicros, cpmBidMicros, targetCpaMicros.
            bid_unit_micros: bids are rounded down to multiples of it: currency_constant.billable_unit_micros.
        """
        self.name = name
        self.batch = BATCH
        self._http = SourceHttp(http, gate, timeout_s=timeout_s, secrets=(developer_token,))
        self._access_token = access_token
        self._customer = f"customers/{customer_id.replace('-', '')}"
        self._url = f"{url.rstrip('/')}/{version}/{self._customer}"
        self._currency = currency
        self._bid_field = bid_field
        self._unit = bid_unit_micros
        self._headers = {"content-type": "application/json", "developer-token": developer_token}
        if login_customer_id:
            self._headers["login-customer-id"] = login_customer_id.replace("-", "")

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """Each campaign's row of one report; a campaign without a row is none of this account's.

        Raises:
            SourceError: a page could not be had, so any row may be missing.
        """
        found: dict[str, CampaignMetrics | SourceFailure] = {
            campaign_id: SourceFailure("this account reports no such campaign")
            if is_number(campaign_id)
            else SourceFailure(f"campaign id {campaign_id[:40]!r} is not a number")
            for campaign_id in ids
        }
        asked = [campaign_id for campaign_id in found if is_number(campaign_id)]
        question = {"query": _query(asked, days)}
        for _ in range(MAX_PAGES if asked else 0):
            page = decoded(_pages, await self._post("googleAds:search", question))
            for at, row in enumerate(page.results):
                if row.campaign.id in found:
                    found[row.campaign.id] = _metrics(row)
                if at % STEP == 0:
                    await asyncio.sleep(0)
            if not page.next_page_token:
                break
            question = {**question, "pageToken": page.next_page_token}
        else:
            if asked:
                raise SourceError(f"more than {MAX_PAGES} pages of campaigns")
        return found

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Set ad groups' bids with partialFailure, so that one that is refused does not stop the others."""
        results: dict[int, BidResult] = {}
        sent: list[tuple[int, int]] = []
        for at, update in enumerate(updates):
            micros = update.bid_nanos // NANOS_A_MICRO // self._unit * self._unit
            reason = self._objection(update, micros)
            if reason:
                results[at] = BidResult(update, reason=reason)
            else:
                sent.append((at, micros))
        if sent:
            reasons = await self._mutate([self._order(updates[at], micros) for at, micros in sent])
            for (at, micros), reason in zip(sent, reasons, strict=True):
                applied = None if reason else micros * NANOS_A_MICRO
                results[at] = BidResult(updates[at], applied, reason)
        return [results[at] for at in range(len(updates))]

    def _objection(self, update: BidUpdate, micros: int) -> str:
        if not is_number(update.target_id):
            return f"ad group id {update.target_id[:40]!r} is not a number"
        if update.currency != self._currency:
            return f"the bid is in {update.currency}, the account in {self._currency}"
        return "" if micros > 0 else f"less than {self._unit} micros, the smallest unit that can be bid"

    def _order(self, update: BidUpdate, micros: int) -> dict[str, object]:
        name = f"{self._customer}/adGroups/{update.target_id}"
        return {"update": {"resourceName": name, self._bid_field: str(micros)}, "updateMask": self._bid_field}

    async def _mutate(self, orders: Sequence[Mapping[str, object]]) -> Sequence[str]:
        """Why each order failed, "" for those that did not."""
        try:
            body = await self._post("adGroups:mutate", {"operations": orders, "partialFailure": True})
            return self._reasons(decoded(_mutated, body), len(orders))
        except SourceError as error:
            return [unsure(error)] * len(orders)

    def _reasons(self, mutated: Mutated, asked: int) -> list[str]:
        """Of each operation, by the error that names it; one that succeeded names what it changed."""
        failure = mutated.partial_failure_error
        errors = list(failure.errors) if failure is not None else []
        if failure is not None and failure.throttled_s:
            self._http.hold_off(failure.throttled_s, failure.line)
        by_operation: dict[int | None, str] = {}
        for error in errors:
            by_operation.setdefault(error.operation, self._http.line(error.line))
        general = by_operation.get(None) or (self._http.line(failure.line) if failure is not None else NOT_DONE)
        results = [*mutated.results, *[MutateResult()] * (asked - len(mutated.results))][:asked]
        return [by_operation.get(at, "" if result.resource_name else general) for at, result in enumerate(results)]

    async def _post(self, method: str, question: Mapping[str, object]) -> bytes:
        token = await self._access_token.get()
        headers = {**self._headers, "authorization": f"Bearer {token}"}
        response = await self._http.post(f"{self._url}/{method}", headers, msgspec.json.encode(question))
        if response.status == 200:
            return response.body
        if response.status == 401:
            self._access_token.forget(token)
        reason, throttled_s = failure_of(response)
        reason = self._http.line(reason.replace(token, "***"))
        if throttled_s:
            self._http.hold_off(throttled_s, reason)
        raise refusal(response.status, reason)


def _metrics(row: Row) -> CampaignMetrics | SourceFailure:
    metrics = row.metrics
    missing = [name for name in metrics.__struct_fields__ if getattr(metrics, name) is None]
    if missing:
        return SourceFailure(f"malformed answer: no metrics.{missing[0]}")
    try:
        figures = Figures(
            count(metrics.impressions or ""),
            count(metrics.clicks or ""),
            millionths(metrics.conversions or 0),
            count(metrics.cost_micros or "") * NANOS_A_MICRO,
            nanos(metrics.conversions_value or 0),
        )
    except ValueError as error:
        return SourceFailure(f"malformed answer: {error}")
    return CampaignMetrics(figures, row.customer.currency_code)


def _query(ids: Sequence[str], days: Days) -> str:
    return (
        "SELECT campaign.id, customer.currency_code, metrics.impressions, metrics.clicks, metrics.cost_micros, "
        "metrics.conversions, metrics.conversions_value FROM campaign "
        f"WHERE campaign.id IN ({', '.join(ids)}) AND segments.date BETWEEN '{days.first}' AND '{days.last}'"
    )
