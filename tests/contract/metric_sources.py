"""The metric sources under contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from rtb.adapters.clock import SystemClock
from rtb.adapters.facebook_insights import FacebookInsights
from rtb.adapters.google_ads import GoogleAds
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.domain.source_metrics import Days, Figures
from rtb.errors import StoreError
from rtb.ports.metric_source import MetricSource
from rtb.services.own_figures import OwnFigures
from rtb.services.request_gate import Gate
from tests.support import adwords, graph

SECRETS = (graph.TOKEN, adwords.ACCESS_TOKEN, adwords.DEVELOPER_TOKEN)


@dataclass(frozen=True)
class SourceUnderTest:
    """A source in USD with one place at its gate, and how its other side is made to have a campaign (impressions,
    clicks, spend in micros) or a bid target, to answer with errors, and to answer nothing and again."""

    source: MetricSource
    give: Callable[[str, int, int, int], None]
    give_target: Callable[[str], None]
    break_down: Callable[[], None]
    hang: Callable[[], None]
    recover: Callable[[], None]


def _gate() -> Gate:
    return Gate(SystemClock(), asyncio.Semaphore(1), in_flight=1, per_second=1e9)


@asynccontextmanager
async def facebook() -> AsyncIterator[SourceUnderTest]:
    """Facebook, against a local server."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    async with graph.serving() as server:

        def give(campaign_id: str, impressions: int, clicks: int, spend_micros: int) -> None:
            server.pages[campaign_id] = [[graph.row(impressions, clicks, f"{spend_micros / 10**6:.6f}")]]

        def give_target(target_id: str) -> None:
            server.bids[target_id] = 1

        def break_down() -> None:
            server.instead = web.Response(status=500, text=f"<html>{graph.TOKEN}")

        def hang() -> None:
            server.hang = asyncio.Event()

        def recover() -> None:
            if server.hang is not None:
                server.hang.set()
            server.hang = server.instead = None

        source = FacebookInsights(http, _gate(), token=graph.TOKEN, currency="USD", url=server.url)
        yield SourceUnderTest(source, give, give_target, break_down, hang, recover)
        await http.close()


@asynccontextmanager
async def google() -> AsyncIterator[SourceUnderTest]:
    """Google, against a local server."""
    http = OutgoingHttp(allow=["127.0.0.1"])
    async with adwords.serving() as server:
        server.currency = "USD"
        server.unlocated = adwords.failed(None, "mutateError", "RESOURCE_NOT_FOUND", "Resource was not found.")

        def give(campaign_id: str, impressions: int, clicks: int, spend_micros: int) -> None:
            server.campaigns[campaign_id] = adwords.metrics(impressions, clicks, spend_micros)

        def give_target(target_id: str) -> None:
            server.bids[target_id] = 1

        def break_down() -> None:
            server.instead[-1] = web.Response(status=500, text=f"<html>{adwords.ACCESS_TOKEN}")

        def hang() -> None:
            server.hang = asyncio.Event()

        def recover() -> None:
            if server.hang is not None:
                server.hang.set()
            server.hang = None
            server.instead = {}

        source = GoogleAds(
            http,
            _gate(),
            access_token=adwords.Granted(),
            developer_token=adwords.DEVELOPER_TOKEN,
            customer_id=adwords.CUSTOMER,
            currency="USD",
            url=server.url,
        )
        yield SourceUnderTest(source, give, give_target, break_down, hang, recover)
        await http.close()


@dataclass
class _Books:
    """A ledger that a test writes."""

    figures: dict[str, Figures] = field(default_factory=dict)
    is_away: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def look_up(self, ids: Sequence[str], days: Days) -> Mapping[str, Figures]:
        await self.open.wait()
        if self.is_away:
            raise StoreError("the database is away")
        return {campaign_id: self.figures[campaign_id] for campaign_id in ids if campaign_id in self.figures}


@asynccontextmanager
async def house() -> AsyncIterator[SourceUnderTest]:
    """The house's own figures."""
    books = _Books()
    books.open.set()

    def give(campaign_id: str, impressions: int, clicks: int, spend_micros: int) -> None:
        books.figures[campaign_id] = Figures(impressions, clicks, 0, spend_micros * 1_000)

    def break_down() -> None:
        books.is_away = True

    def recover() -> None:
        books.is_away = False
        books.open.set()

    source = OwnFigures(books.look_up, "USD")
    yield SourceUnderTest(source, give, lambda _: None, break_down, books.open.clear, recover)


SOURCES: dict[str, Callable[[], AbstractAsyncContextManager[SourceUnderTest]]] = {
    "facebook": facebook,
    "google": google,
    "house": house,
}
