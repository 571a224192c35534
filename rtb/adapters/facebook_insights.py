"""Facebook's Marketing API as a metric source: campaign insights, and the bids of ad sets.

Sources (developers.facebook.com): docs/marketing-api/reference/ad-campaign-group/insights (fields, ``time_range``,
cursors), docs/marketing-api/reference/ads-action-stats, docs/graph-api/batch-requests (50 a batch, ``null`` for what
was not finished), docs/graph-api/results (a page without ``paging.next`` is the last), docs/marketing-api/currencies
(offsets), docs/graph-api/guides/secure-requests (``appsecret_proof``).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import msgspec
from yarl import URL

from rtb.adapters.facebook_answers import (
    NOT_FINISHED,
    Done,
    Insights,
    InsightsRow,
    Item,
    failure_of,
    held_off_s,
    item_headers,
)
from rtb.adapters.source_http import NoAnswer, SourceHttp, decoded, is_number, refusal, unsure
from rtb.domain.money import NANOS
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, count, millionths, nanos, total
from rtb.ports.http import HttpClient
from rtb.ports.metric_source import BidResult, BidUpdate, RequestGate, SourceError, SourceFailure

BATCH = 50
MAX_PAGES = 20
STEP = 5
"""Answers that are read before others of this process have a turn."""
WHOLE_UNITS = frozenset({"CLP", "COP", "CRC", "HUF", "IDR", "ISK", "JPY", "KRW", "PYG", "TWD", "VND"})
"""Currencies with the offset 1; all others have 100, whatever their own minor unit."""
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_items = msgspec.json.Decoder(list[Item | None])
_insights = msgspec.json.Decoder(Insights)
_done = msgspec.json.Decoder(Done)


class FacebookInsights:
    """One ad account, whose bids are in `currency`; implements MetricSource."""

    def __init__(
        self,
        http: HttpClient,
        gate: RequestGate,
        *,
        token: str,
        currency: str,
        app_secret: str = "",
        name: str = "facebook",
        url: str = "https://graph.facebook.com",
        version: str = "v25.0",
        click_field: str = "inline_link_clicks",
        conversion: str = "omni_purchase",
        timeout_s: float = 10.0,
    ) -> None:
        """Ask with an access token that may read, and for bids manage, the account's ads.

        Args:
            app_secret: when the app requires proofs of it; "" sends none.
            click_field: what counts as a click: inline_link_clicks (those to the advertiser), or clicks (all).
            conversion: the one action type whose count and value are conversions and revenue. Several would overlap:
                omni_purchase holds those of site, app and shop, each once.
        """
        self.name = name
        self.batch = BATCH
        self._http = SourceHttp(http, gate, timeout_s=timeout_s, secrets=(token, app_secret))
        self._url = f"{url.rstrip('/')}/{version}/"
        self._currency = currency
        self._click_field = click_field
        self._conversion = conversion
        self._access = {"access_token": token, "include_headers": "true"}
        if app_secret:
            proof = hmac.new(app_secret.encode(), token.encode(), hashlib.sha256)
            self._access["appsecret_proof"] = proof.hexdigest()

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """Each campaign's insights, summed over all pages. No rows is no delivery: zero, by the source's own word.

        Raises:
            SourceError: not even the first pages could be had.
        """
        found: dict[str, CampaignMetrics | SourceFailure] = {}
        due: dict[str, str] = {}  # campaign id -> cursor of its next page
        for campaign_id in ids:
            if is_number(campaign_id):
                due[campaign_id] = ""
            else:
                found[campaign_id] = SourceFailure(f"campaign id {campaign_id[:40]!r} is not a number")
        rows: dict[str, list[CampaignMetrics]] = {campaign_id: [] for campaign_id in due}
        query = self._query(days)
        for _ in range(MAX_PAGES):
            if not due:
                break
            due = await self._turn_page(due, query, rows, found)
        return found | dict.fromkeys(due, SourceFailure(f"more than {MAX_PAGES} pages of insights"))

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Set ad sets' bid_amount, in several batches when a campaign has several ad sets: one may not hold two."""
        results: dict[int, BidResult] = {}
        waves: list[list[tuple[int, int]]] = []
        seen: dict[str, int] = {}
        for at, update in enumerate(updates):
            units = update.bid_nanos * self._offset // NANOS
            reason = self._objection(update, units)
            if reason:
                results[at] = BidResult(update, reason=reason)
                continue
            wave = seen[update.campaign_id] = seen.get(update.campaign_id, -1) + 1
            if wave == len(waves):
                waves.append([])
            waves[wave].append((at, units))
        for wave_of in waves:
            items: Sequence[Item | SourceError | None]
            try:
                items = await self._send([self._order(updates[at], units) for at, units in wave_of])
            except SourceError as error:
                items = [error] * len(wave_of)
            for (at, units), item in zip(wave_of, items, strict=True):
                results[at] = self._result(updates[at], units, item)
        return [results[at] for at in range(len(updates))]

    @property
    def _offset(self) -> int:
        return 1 if self._currency in WHOLE_UNITS else 100

    def _objection(self, update: BidUpdate, units: int) -> str:
        if not is_number(update.target_id):
            return f"ad set id {update.target_id[:40]!r} is not a number"
        if update.currency != self._currency:
            return f"the bid is in {update.currency}, the account in {self._currency}"
        return "" if units > 0 else f"less than the smallest unit of {self._currency} that can be bid"

    async def _turn_page(
        self,
        due: Mapping[str, str],
        query: str,
        rows: Mapping[str, list[CampaignMetrics]],
        found: dict[str, CampaignMetrics | SourceFailure],
    ) -> dict[str, str]:
        """Read a page of each campaign into `rows`; those that end with it into `found`; the cursors of the others."""
        try:
            items = await self._send([_question(campaign_id, query, after) for campaign_id, after in due.items()])
        except SourceError as error:
            if not any(due.values()):
                raise
            found.update(dict.fromkeys(due, SourceFailure(str(error))))
            return {}
        more: dict[str, str] = {}
        for at, (campaign_id, item) in enumerate(zip(due, items, strict=True)):
            if at % STEP == 0:
                await asyncio.sleep(0)
            try:
                after = self._read(item, rows[campaign_id])
            except SourceError as error:
                found[campaign_id] = SourceFailure(str(error))
                continue
            if after:
                more[campaign_id] = after
            else:
                found[campaign_id] = self._summed(rows[campaign_id])
        return more

    def _query(self, days: Days) -> str:
        query = {
            "fields": f"impressions,{self._click_field},spend,actions,action_values,account_currency",
            "time_range": f'{{"since":"{days.first}","until":"{days.last}"}}',
            "limit": "100",
        }
        return urlencode(query)

    @staticmethod
    def _order(update: BidUpdate, units: int) -> dict[str, str]:
        return {"method": "POST", "relative_url": update.target_id, "body": f"bid_amount={units}"}

    async def _send(self, batch: Sequence[dict[str, str]]) -> Sequence[Item | None]:
        """The answers to a batch, in its order; raises SourceError when there are none."""
        form = {**self._access, "batch": msgspec.json.encode(batch).decode()}
        body = URL.build(path="/", query=form).raw_query_string.encode()  # as urlencode, in a seventh of the time
        response = await self._http.post(self._url, _FORM, body)
        held_s = held_off_s(response.headers)
        if response.status != 200:
            reason, throttled_s = failure_of(response.status, response.body)
            self._hold_off(max(held_s, throttled_s), reason)
            raise refusal(response.status, self._http.line(reason))
        self._hold_off(held_s, "its rate limit is used up")
        items = decoded(_items, response.body)
        if len(items) != len(batch):
            raise NoAnswer(f"malformed answer: {len(items)} answers to {len(batch)} requests")
        for item in items:
            if item is not None:
                self._hold_off(held_off_s(item_headers(item)), "its rate limit is used up")
        return items

    def _hold_off(self, seconds: float, reason: str) -> None:
        if seconds > 0:
            self._http.hold_off(seconds, reason)

    def _body(self, item: Item | None) -> str:
        if item is None:
            raise NoAnswer(NOT_FINISHED)
        body = item.body or ""
        if item.code != 200:
            reason, throttled_s = failure_of(item.code, body.encode())
            self._hold_off(throttled_s, reason)
            raise refusal(item.code, self._http.line(reason))
        return body

    def _read(self, item: Item | None, rows: list[CampaignMetrics]) -> str:
        """Add a page's rows; the cursor of the next page, "" after the last. Raises SourceError."""
        page = decoded(_insights, self._body(item))
        try:
            rows += [self._metrics(row) for row in page.data]
        except ValueError as error:
            raise SourceError(self._http.line(f"malformed answer: {error}")) from None
        if page.paging is None or not page.paging.next:
            return ""
        if page.paging.cursors is None or not page.paging.cursors.after:
            raise SourceError("malformed answer: a next page without a cursor")
        return page.paging.cursors.after

    def _metrics(self, row: InsightsRow) -> CampaignMetrics:
        clicks = row.clicks if self._click_field == "clicks" else row.inline_link_clicks
        figures = Figures(
            count(row.impressions),
            count(clicks),
            sum(millionths(action.value) for action in row.actions if action.action_type == self._conversion),
            nanos(row.spend),
            sum(nanos(action.value) for action in row.action_values if action.action_type == self._conversion),
        )
        return CampaignMetrics(figures, row.account_currency)

    def _summed(self, rows: Sequence[CampaignMetrics]) -> CampaignMetrics | SourceFailure:
        currencies = {row.currency for row in rows} or {self._currency}
        if len(currencies) > 1:
            return SourceFailure(f"malformed answer: rows in {' and '.join(sorted(currencies))}")
        return CampaignMetrics(total(row.figures for row in rows), currencies.pop())

    def _result(self, update: BidUpdate, units: int, item: Item | SourceError | None) -> BidResult:
        try:
            if isinstance(item, SourceError):
                raise item
            if not decoded(_done, self._body(item)).success:
                raise SourceError("the source does not say that it is done")
        except SourceError as error:
            return BidResult(update, reason=unsure(error))
        return BidResult(update, units * NANOS // self._offset)


def _question(campaign_id: str, query: str, after: str) -> dict[str, str]:
    if after:
        query += f"&{urlencode({'after': after})}"  # not paging.next: that URL holds the token, and leads anywhere
    return {"method": "GET", "relative_url": f"{campaign_id}/insights?{query}"}
