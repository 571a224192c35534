"""The system itself: who asks, the daemons, the bidders, the broker's queues, the last hour by the minute."""

from __future__ import annotations

from aiohttp import web

from dashboard.access import IDENTITY
from dashboard.answers import BidderList, InstanceList, Me, QueueList, ReportList
from dashboard.api.requests import Route, answer, get
from dashboard.feeds import Feeds
from rtb.services.frame_source import MetricsSource


class SystemResource:
    """``/api/me``, ``/api/instances``, ``/api/bidders``, ``/api/queues``, ``/api/reports``."""

    def __init__(self, feeds: Feeds, snapshots: MetricsSource) -> None:
        """See `Api`."""
        self._feeds = feeds
        self._snapshots = snapshots

    def routes(self) -> list[Route]:
        """Each of them."""
        return [
            (get("/api/me", "Who asks.", Me), self._me),
            (get("/api/instances", "The daemons.", InstanceList), self._instances),
            (get("/api/bidders", "The bidders over HTTP.", BidderList), self._bidders),
            (get("/api/queues", "The broker's queues.", QueueList), self._queues),
            (get("/api/reports", "The last hour, minute by minute.", ReportList), self._reports),
        ]

    async def _me(self, request: web.Request) -> web.Response:
        identity = request.get(IDENTITY)
        return answer(Me("", "operator") if identity is None else Me(identity.name, identity.role.value))

    async def _instances(self, _request: web.Request) -> web.Response:
        return answer(self._feeds.instances())

    async def _bidders(self, _request: web.Request) -> web.Response:
        return answer(self._feeds.bidders())

    async def _queues(self, _request: web.Request) -> web.Response:
        return answer(self._feeds.queue_list())

    async def _reports(self, _request: web.Request) -> web.Response:
        return answer(ReportList(list(self._snapshots.reports)))
