"""What refreshing external metrics costs the daemon: campaigns per CPU-second, and how long its loop is held up.

`python -m benchmarks.metric_sources [campaigns]`: every campaign has the house's figures, a Facebook one (in batches of
50) and a Google one (in reports of 500), answered at once by clients in the process, so that what is measured is
asking, reading, converting, keeping and merging. A hold-up is the processor time between two turns of another task.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from urllib.parse import parse_qs

import uvloop

from rtb.adapters.clock import SystemClock
from rtb.adapters.facebook_insights import FacebookInsights
from rtb.adapters.google_ads import GoogleAds
from rtb.domain.money import Rates
from rtb.domain.source_metrics import Days, Figures
from rtb.ports.http import MAX_BODY, NOTHING_MORE, HttpResponse, Method
from rtb.services.metric_sources import MetricSources
from rtb.services.own_figures import OwnFigures
from rtb.services.request_gate import IN_FLIGHT, Gate

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
ROUNDS = 3
INSIGHTS = json.dumps(
    {
        "data": [
            {
                "impressions": "9708",
                "inline_link_clicks": "120",
                "spend": "20.54",
                "account_currency": "EUR",
                "actions": [
                    {"action_type": kind, "value": "4"} for kind in ("link_click", "omni_purchase", "purchase")
                ],
                "action_values": [{"action_type": "omni_purchase", "value": "81.6"}],
            }
        ],
        "paging": {"cursors": {"before": "MAZDZD", "after": "MAZDZD"}},
    }
)
METRICS = {
    "impressions": "9708",
    "clicks": "120",
    "costMicros": "20540000",
    "conversions": 4.5,
    "conversionsValue": 81.6,
}


class Platforms:
    """Both platforms, answering at once; the time they take to make their answers is not counted."""

    def __init__(self) -> None:
        self.own_s = 0.0

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
        """Answer."""
        await asyncio.sleep(0)
        began = time.process_time()
        answer = self._google(body) if "google" in url else self._facebook(body)
        self.own_s += time.process_time() - began
        return HttpResponse(200, NOTHING_MORE, answer)

    async def close(self) -> None:
        """Nothing is open."""

    def _facebook(self, body: bytes) -> bytes:
        asked = json.loads(parse_qs(body.decode())["batch"][0])
        return json.dumps([{"code": 200, "body": INSIGHTS} for _ in asked]).encode()

    def _google(self, body: bytes) -> bytes:
        listed = re.search(rb"IN \(([0-9, ]+)\)", body)
        ids = listed[1].decode().split(", ") if listed is not None else []
        rows = [{"campaign": {"id": id_}, "customer": {"currencyCode": "EUR"}, "metrics": METRICS} for id_ in ids]
        return json.dumps({"results": rows}).encode()


class Token:
    """One that is always valid."""

    async def get(self) -> str:
        """Give it."""
        return "token"

    def forget(self, token: str) -> None:
        """It is as good as any."""


async def ledger(ids: Sequence[str], days: Days) -> Mapping[str, Figures]:
    """The house's figures."""
    return dict.fromkeys(ids, Figures(1000, 10, 1_000_000, 10**9, 3 * 10**9))


async def measure(campaigns: int) -> None:
    """Refresh a few times, and read everything once."""
    clock, platforms, overall = SystemClock(), Platforms(), asyncio.Semaphore(IN_FLIGHT)

    def gate() -> Gate:
        return Gate(clock, overall, per_second=1e9)

    facebook = FacebookInsights(platforms, gate(), token="t", currency="EUR")
    google = GoogleAds(platforms, gate(), access_token=Token(), developer_token="t", customer_id="1", currency="EUR")
    ids = {f"campaign-{number}": {"facebook": str(number), "google": str(number)} for number in range(campaigns)}
    sources = MetricSources(
        [facebook, google],
        ids.__getitem__,
        Rates("USD", {"EUR": 1.1}),
        clock,
        house=OwnFigures(ledger, "USD"),
        keep=campaigns,
    )
    worst_s = 0.0

    async def others() -> None:
        nonlocal worst_s
        while True:
            left = time.process_time() - platforms.own_s
            await asyncio.sleep(0)
            worst_s = max(worst_s, time.process_time() - platforms.own_s - left)

    watching = asyncio.create_task(others())
    await sources.refresh(ids, TODAY)
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS):
        await asyncio.sleep(0.01)  # what went before is not counted
        worst_s, began_s = 0.0, time.process_time() - platforms.own_s
        await sources.refresh(ids, TODAY)
        took_s = time.process_time() - platforms.own_s - began_s
        print(f"refresh: {campaigns / took_s:,.0f} campaigns per CPU-second, longest hold-up {worst_s * 1e3:.1f} ms")
    worst_s, began_s = 0.0, time.process_time()
    merged = await sources.get(ids, TODAY)
    took_s = time.process_time() - began_s
    assert all(one.totals is not None for one in merged.values())
    print(f"read:    {campaigns / took_s:,.0f} campaigns per CPU-second, longest hold-up {worst_s * 1e3:.1f} ms")
    watching.cancel()


if __name__ == "__main__":
    uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
