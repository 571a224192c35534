"""Alert rules: listed, added, changed, removed, acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web

from dashboard.answers import AlertList, AlertRow
from dashboard.api.requests import ID, Route, answer, asker, body_of, get, id_of
from dashboard.openapi import Operation
from rtb.domain.alert import CAMPAIGN_METRICS, SYSTEM_METRICS, AlertRule
from rtb.services.alerts import AlertView, AlertWatch

_PATH = "/api/alerts/{id}"


class AlertResource:
    """``/api/alerts``."""

    def __init__(self, alerts: AlertWatch, channels: Callable[[], Iterable[str]]) -> None:
        """See `Api`."""
        self._alerts = alerts
        self._channels = channels

    def routes(self) -> list[Route]:
        """List, add, one, change, remove, acknowledge."""
        adding = Operation(
            method="POST",
            path="/api/alerts",
            summary="Add an alert rule.",
            body=AlertRule,
            answer=AlertRow,
            status=201,
            refusals=(409, 503),
        )
        changing = Operation(
            method="PATCH",
            path=_PATH,
            summary="Change some fields of a rule.",
            body=AlertRule,
            partial=True,
            answer=AlertRow,
            parameters=[ID],
            refusals=(404, 409, 503),
        )
        removing = Operation(
            method="DELETE", path=_PATH, summary="Remove a rule.", status=204, parameters=[ID], refusals=(404, 503)
        )
        acknowledging = Operation(
            method="POST",
            path=f"{_PATH}/acknowledge",
            summary="Say that somebody has seen it firing.",
            answer=AlertRow,
            parameters=[ID],
            refusals=(404, 409, 503),
        )
        return [
            (get("/api/alerts", "Every alert rule.", AlertList, refusals=(503,)), self._list),
            (adding, self._add),
            (get(_PATH, "One alert rule.", AlertRow, parameters=[ID], refusals=(404, 503)), self._one),
            (changing, self._change),
            (removing, self._remove),
            (acknowledging, self._acknowledge),
        ]

    async def _list(self, _request: web.Request) -> web.Response:
        rows = [alert_row(view) for view in await self._alerts.all()]
        return answer(AlertList(rows, list(self._channels()), dict(SYSTEM_METRICS), dict(CAMPAIGN_METRICS)))

    async def _one(self, request: web.Request) -> web.Response:
        return answer(alert_row(await self._alerts.get(id_of(request))))

    async def _add(self, request: web.Request) -> web.Response:
        return answer(alert_row(await self._alerts.create(await body_of(request))), 201)

    async def _change(self, request: web.Request) -> web.Response:
        return answer(alert_row(await self._alerts.change(id_of(request), await body_of(request))))

    async def _remove(self, request: web.Request) -> web.Response:
        await self._alerts.delete(id_of(request))
        return web.Response(status=204)

    async def _acknowledge(self, request: web.Request) -> web.Response:
        return answer(alert_row(await self._alerts.acknowledge(id_of(request), asker(request))))


def alert_row(view: AlertView) -> AlertRow:
    """A rule as it is told."""
    state = view.state
    return AlertRow(
        rule=view.rule,
        phase=state.phase.value,
        since=state.since,
        value=view.value,
        incident=state.incident,
        acknowledged_by=state.acknowledged_by,
        acknowledged_at=state.acknowledged_at,
        told=state.told == state.transition,
        warning=view.warning,
    )
