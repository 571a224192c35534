"""The system itself: who asks, the broker's queues, the daemons."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from dashboard.access import IDENTITY
from dashboard.answers import InstanceList, Me, QueueList
from dashboard.api.requests import Route, answer, get
from rtb.services.metrics import MetricsSource
from rtb.services.queue_monitor import QueueReport


class SystemResource:
    """``/api/me``, ``/api/queues``, ``/api/instances``."""

    def __init__(self, queues: Callable[[], QueueReport], waiting: Callable[[], int], snapshots: MetricsSource) -> None:
        """See `Api`."""
        self._queues = queues
        self._waiting = waiting
        self._snapshots = snapshots

    def routes(self) -> list[Route]:
        """Each of them."""
        return [
            (get("/api/me", "Who asks.", Me), self._me),
            (get("/api/queues", "The broker's queues.", QueueList), self._queue_list),
            (get("/api/instances", "The daemons.", InstanceList), self._instances),
        ]

    async def _me(self, request: web.Request) -> web.Response:
        identity = request.get(IDENTITY)
        return answer(Me("", "operator") if identity is None else Me(identity.name, identity.role.value))

    async def _queue_list(self, _request: web.Request) -> web.Response:
        report = self._queues()
        queues, minutes = list(report.queues), list(report.minutes)
        return answer(QueueList(report.time, queues, minutes, report.problem, self._waiting()))

    async def _instances(self, _request: web.Request) -> web.Response:
        snapshot = self._snapshots.latest
        return answer(InstanceList(snapshot.time, list(snapshot.instances)))
