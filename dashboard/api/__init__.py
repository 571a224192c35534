"""The REST API: campaigns, metrics, alerts, auctions, instances, bidders, queues; described by ``/api/openapi.json``.

Answers are JSON; an error is ``{"error": one line}`` with a status that says what kind it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from dashboard.answers import CampaignRow
from dashboard.api.alerts import AlertResource, alert_row
from dashboard.api.auctions import AuctionResource
from dashboard.api.campaigns import CampaignResource
from dashboard.api.metrics import MetricsResource
from dashboard.api.requests import Route, guarded, json_errors
from dashboard.api.system import SystemResource
from dashboard.commands import Commands
from dashboard.feeds import AUCTIONS, Feeds
from dashboard.hub import Hub
from dashboard.openapi import document
from dashboard.trails import Trails
from rtb.domain.campaign import Campaign
from rtb.domain.pacing import Pace
from rtb.ports import Clock
from rtb.ports.history import History
from rtb.services.alerts import AlertView, AlertWatch
from rtb.services.auction_tape import AuctionRow, AuctionTape
from rtb.services.campaigns import Campaigns
from rtb.services.frame_source import MetricsSource
from rtb.services.metric_sources import MetricSources
from rtb.services.performance import Performance
from rtb.services.queue_monitor import QueueReport

__all__ = ["Api", "json_errors"]


class Api:
    """The routes of all resources, and what the WebSocket shares with them."""

    def __init__(
        self,
        *,
        catalogue: Campaigns,
        campaigns: Callable[[], Iterable[Campaign]],
        performance: Performance,
        sources: MetricSources,
        history: History,
        alerts: AlertWatch,
        channels: Callable[[], Iterable[str]],
        tape: AuctionTape,
        queues: Callable[[], QueueReport],
        waiting: Callable[[], int],
        snapshots: MetricsSource,
        clock: Clock,
        currency: str,
        funded: Callable[[str], bool] = lambda campaign_id: True,
        pace: Callable[[str], Pace | None] = lambda campaign_id: None,
    ) -> None:
        """Answer from these services.

        Args:
            catalogue: what changes campaigns.
            campaigns: all of them, in any order (`HouseBidder.campaigns`).
            performance: the ledger's figures, and today's from memory.
            sources: everybody's figures, merged.
            history: what was done to campaigns.
            alerts: the rules.
            channels: whom rules may name (`AlertNotices.channels`).
            tape: sampled auctions.
            queues: the last look at the broker (`QueueMonitor.report`).
            waiting: messages that wait for the broker (`Outbox.waiting`).
            snapshots: of all instances.
            clock: time.
            currency: of all amounts.
            funded: whether a campaign's budget can pay (`HouseBidder.is_funded`).
            pace: how a paced campaign stands (`Pacer.pace`).
        """
        self._catalogue = catalogue
        self._alerts = alerts
        self._tape = tape
        self._snapshots = snapshots
        self.feeds = Feeds(snapshots, queues, waiting)
        self._campaigns = CampaignResource(
            catalogue, campaigns, performance, clock, currency, history=history, funded=funded, pace=pace
        )
        self.trails = Trails(performance.recent, self._campaigns.look)
        self._routes: list[Route] = [
            *self._campaigns.routes(),
            *MetricsResource(catalogue, performance, sources, clock).routes(),
            *AlertResource(alerts, channels).routes(),
            *AuctionResource(tape).routes(),
            *SystemResource(self.feeds, snapshots).routes(),
        ]
        self._document = msgspec.json.encode(document([operation for operation, _ in self._routes]))

    def add_routes(self, app: web.Application) -> None:
        """Every operation, and the document that describes them."""

        async def openapi(_request: web.Request) -> web.Response:
            return web.Response(body=self._document, content_type="application/json")

        app.router.add_get("/api/openapi.json", openapi)
        for operation, handler in self._routes:
            app.router.add_route(operation.method, operation.path, guarded(handler))

    def row(self, campaign_id: str) -> CampaignRow | None:
        """A campaign at a glance, None when it is unknown."""
        return self._campaigns.row(campaign_id)

    def commands(self) -> Commands:
        """What clients of the WebSocket may say to the same services."""
        return Commands(self._catalogue, self._alerts, self._snapshots, self.row, self.feeds, self.trails)

    def broadcast(self, hub: Hub) -> Callable[[], None]:
        """Have the hub tell its clients of alerts and sampled auctions; the result ends that."""

        def alert(view: AlertView) -> None:
            hub.tell("alert", alert_row(view))

        def auction(row: AuctionRow) -> None:
            hub.tell("auction", row, channel=AUCTIONS)

        def end() -> None:
            self._alerts.listeners.remove(alert)
            self._tape.listeners.remove(auction)

        self._alerts.listeners.append(alert)
        self._tape.listeners.append(auction)
        return end
