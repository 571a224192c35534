"""The REST API: campaigns, metrics, alerts, auctions, queues, instances; described at ``GET /api/openapi.json``.

Answers are JSON; an error is ``{"error": one line}`` with a status that says what kind it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterable
from datetime import date
from typing import Any

import msgspec
import structlog
from aiohttp import web

from dashboard.access import IDENTITY, refusal
from dashboard.answers import (
    AlertList,
    AlertRow,
    AuctionList,
    CampaignDetail,
    CampaignMetricsAnswer,
    CampaignPage,
    CampaignRow,
    DayRow,
    FiguresRow,
    InstanceList,
    Me,
    QueueList,
    SourceRow,
)
from dashboard.commands import Commands
from dashboard.hub import Hub
from dashboard.openapi import Operation, Parameter, document
from rtb.domain import money
from rtb.domain.alert import CAMPAIGN_METRICS, SYSTEM_METRICS, AlertRule
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign, Status
from rtb.domain.campaign_change import Change
from rtb.domain.money import NANOS
from rtb.domain.pacing import Pace
from rtb.domain.performance import Counters, total
from rtb.domain.source_metrics import Days, Figures
from rtb.errors import BadRequest, InvalidCampaign, Malformed, NotFound, StoreError
from rtb.ports import Clock
from rtb.services.alerts import AlertView, AlertWatch, Conflict
from rtb.services.auction_tape import AuctionRow, AuctionStory, AuctionTape
from rtb.services.campaigns import Campaigns
from rtb.services.metric_sources import MetricSources
from rtb.services.metrics import MetricsSource
from rtb.services.performance import Performance
from rtb.services.queue_monitor import QueueReport

MAX_PAGE = 1_000
MAX_DAYS = 400
ACTOR = 64
"""Characters of an actor in the history."""

_log = structlog.get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ID = Parameter("id", {"type": "string", "minLength": 1}, "Its id.", optional=False)


def _limit(default: int, most: int) -> Parameter:
    return Parameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": most, "default": default}, "How many at most."
    )


_DATE = {"type": "string", "format": "date"}


class Api:
    """The handlers, and the table they stand in: `operations`."""

    def __init__(
        self,
        *,
        catalogue: Campaigns,
        campaigns: Callable[[], Iterable[Campaign]],
        performance: Performance,
        sources: MetricSources,
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
        self._campaigns = campaigns
        self._performance = performance
        self._sources = sources
        self._alerts = alerts
        self._channels = channels
        self._tape = tape
        self._queues = queues
        self._waiting = waiting
        self._snapshots = snapshots
        self._clock = clock
        self._currency = currency
        self._funded = funded
        self._pace = pace
        self._table = self._operations()
        self._document = msgspec.json.encode(document([operation for operation, _ in self._table]))

    def add_routes(self, app: web.Application) -> None:
        """Every operation, and the document that describes them."""

        async def openapi(_request: web.Request) -> web.Response:
            return web.Response(body=self._document, content_type="application/json")

        app.router.add_get("/api/openapi.json", openapi)
        for operation, handler in self._table:
            app.router.add_route(operation.method, operation.path, _guarded(handler))

    def _operations(self) -> list[tuple[Operation, Handler]]:
        status = Parameter("status", {"enum": [status.value for status in Status]}, "Only those of this status.")
        cursor = Parameter("cursor", {"type": "string"}, "`next` of the page before.")
        days = [Parameter("since", _DATE, "First day (today)."), Parameter("until", _DATE, "Last day (today).")]
        campaign_path, alert_path = "/api/campaigns/{id}", "/api/alerts/{id}"
        return [
            (_get("/api/me", "Who asks.", Me), self._me),
            (
                _get(
                    "/api/campaigns",
                    "Campaigns by id, page by page.",
                    CampaignPage,
                    parameters=[status, _limit(100, MAX_PAGE), cursor],
                    refusals=(400,),
                ),
                self._campaign_page,
            ),
            (_get(campaign_path, "One campaign.", CampaignDetail, parameters=[_ID], refusals=(404,)), self._campaign),
            (
                Operation(
                    method="POST",
                    path=campaign_path,
                    summary="Add a campaign.",
                    body=Campaign,
                    answer=CampaignDetail,
                    status=201,
                    parameters=[_ID],
                    refusals=(409, 503),
                ),
                self._add_campaign,
            ),
            (
                Operation(
                    method="PATCH",
                    path=campaign_path,
                    summary="Change some fields of a campaign.",
                    body=Campaign,
                    partial=True,
                    answer=CampaignDetail,
                    parameters=[_ID],
                    refusals=(404, 409, 503),
                ),
                self._change_campaign,
            ),
            (
                _get(
                    "/api/metrics/{id}",
                    "A campaign's figures from every source, merged.",
                    CampaignMetricsAnswer,
                    parameters=[_ID, *days],
                    refusals=(400, 404, 503),
                ),
                self._metrics,
            ),
            (_get("/api/alerts", "Every alert rule.", AlertList, refusals=(503,)), self._alert_list),
            (
                Operation(
                    method="POST",
                    path="/api/alerts",
                    summary="Add an alert rule.",
                    body=AlertRule,
                    answer=AlertRow,
                    status=201,
                    refusals=(409, 503),
                ),
                self._add_alert,
            ),
            (_get(alert_path, "One alert rule.", AlertRow, parameters=[_ID], refusals=(404, 503)), self._alert),
            (
                Operation(
                    method="PATCH",
                    path=alert_path,
                    summary="Change some fields of a rule.",
                    body=AlertRule,
                    partial=True,
                    answer=AlertRow,
                    parameters=[_ID],
                    refusals=(404, 409, 503),
                ),
                self._change_alert,
            ),
            (
                Operation(
                    method="DELETE",
                    path=alert_path,
                    summary="Remove a rule.",
                    status=204,
                    parameters=[_ID],
                    refusals=(404, 503),
                ),
                self._delete_alert,
            ),
            (
                Operation(
                    method="POST",
                    path=f"{alert_path}/acknowledge",
                    summary="Say that somebody has seen it firing.",
                    answer=AlertRow,
                    parameters=[_ID],
                    refusals=(404, 409, 503),
                ),
                self._acknowledge,
            ),
            (
                _get(
                    "/api/auctions/recent",
                    "The last sampled auctions.",
                    AuctionList,
                    parameters=[_limit(50, MAX_PAGE)],
                    refusals=(400,),
                ),
                self._recent,
            ),
            (
                _get("/api/auctions/{id}", "One of them, explained.", AuctionStory, parameters=[_ID], refusals=(404,)),
                self._auction,
            ),
            (_get("/api/queues", "The broker's queues.", QueueList), self._queue_list),
            (_get("/api/instances", "The daemons.", InstanceList), self._instances),
        ]

    async def _me(self, request: web.Request) -> web.Response:
        identity = request.get(IDENTITY)
        return _answer(Me("", "operator") if identity is None else Me(identity.name, identity.role.value))

    async def _campaign_page(self, request: web.Request) -> web.Response:
        limit, cursor = _number(request, "limit", 100, MAX_PAGE), request.query.get("cursor", "")
        given = request.query.get("status")
        if given is not None and given not in set(Status):
            raise BadRequest(f"status: choose one of {', '.join(Status)}")
        found = [campaign for campaign in self._campaigns() if given is None or campaign.status == given]
        later = (campaign for campaign in found if campaign.id > cursor)
        page = heapq.nsmallest(limit + 1, later, key=lambda campaign: campaign.id)
        rows = [self._row(campaign) for campaign in page[:limit]]
        following = rows[-1].id if len(page) > limit else None
        return _answer(CampaignPage(rows, following, len(found), self._currency))

    async def _campaign(self, request: web.Request) -> web.Response:
        return _answer(self._detail(self._catalogue.get(_id(request))))

    async def _add_campaign(self, request: web.Request) -> web.Response:
        fields, campaign_id = await _body(request), _id(request)
        if fields.setdefault("id", campaign_id) != campaign_id:
            raise BadRequest("id: is not the one in the path")
        if self.row(campaign_id) is not None:
            raise Conflict(f"campaign {campaign_id!r} exists; change it, or choose another id")
        made = await self._catalogue.update(Change(campaign_id, fields, whole=True), actor=_actor(request))
        return _answer(self._detail(made or self._catalogue.get(campaign_id)), 201)

    async def _change_campaign(self, request: web.Request) -> web.Response:
        fields, campaign_id = await _body(request), _id(request)
        if fields.pop("id", campaign_id) != campaign_id:
            raise BadRequest("id: cannot be changed")
        if not fields.keys() - {"version"}:
            raise BadRequest("body: names no field that changes")
        version = fields.pop("version", None)
        current = self._catalogue.get(campaign_id)
        if version is not None and version != current.version:
            raise Conflict(f"campaign {campaign_id!r}: version: is {current.version} by now; look again")
        made = await self._catalogue.update(Change(campaign_id, fields, whole=False), actor=_actor(request))
        return _answer(self._detail(made or self._catalogue.get(campaign_id)))

    async def _metrics(self, request: web.Request) -> web.Response:
        campaign = self._catalogue.get(_id(request))
        days = _days(request, budget_day(self._clock.time(), campaign.zone))
        since, until = days.first.isoformat(), days.last.isoformat()
        parts = await self._performance.stats(campaign.id, since, until)
        merged = (await self._sources.get([campaign.id], days))[campaign.id]
        by_day: dict[str, list[Counters]] = {}
        for part in parts:
            by_day.setdefault(part.date, []).append(part.counters)
        sums = [(day, total(counters)) for day, counters in sorted(by_day.items())]
        return _answer(
            CampaignMetricsAnswer(
                campaign_id=campaign.id,
                since=since,
                until=until,
                currency=merged.currency,
                standing=merged.standing.value,
                totals=None if merged.totals is None else _merged_figures(merged.totals),
                sources=[
                    SourceRow(
                        source=reading.source,
                        standing=reading.standing.value,
                        age_s=reading.age_s,
                        reason=reading.reason,
                        figures=None if reading.figures is None else _merged_figures(reading.figures),
                    )
                    for reading in merged.readings
                ],
                days=[DayRow(day, counters.wins, _ledger_figures(counters)) for day, counters in sums],
            )
        )

    async def _alert_list(self, _request: web.Request) -> web.Response:
        rows = [_alert_row(view) for view in await self._alerts.all()]
        return _answer(AlertList(rows, list(self._channels()), dict(SYSTEM_METRICS), dict(CAMPAIGN_METRICS)))

    async def _alert(self, request: web.Request) -> web.Response:
        return _answer(_alert_row(await self._alerts.get(_id(request))))

    async def _add_alert(self, request: web.Request) -> web.Response:
        return _answer(_alert_row(await self._alerts.create(await _body(request))), 201)

    async def _change_alert(self, request: web.Request) -> web.Response:
        return _answer(_alert_row(await self._alerts.change(_id(request), await _body(request))))

    async def _delete_alert(self, request: web.Request) -> web.Response:
        await self._alerts.delete(_id(request))
        return web.Response(status=204)

    async def _acknowledge(self, request: web.Request) -> web.Response:
        identity = request.get(IDENTITY)
        by = "somebody" if identity is None else identity.name
        return _answer(_alert_row(await self._alerts.acknowledge(_id(request), by)))

    async def _recent(self, request: web.Request) -> web.Response:
        return _answer(AuctionList(self._tape.recent(_number(request, "limit", 50, MAX_PAGE))))

    async def _auction(self, request: web.Request) -> web.Response:
        story = self._tape.explain(_id(request))
        if story is None:
            raise NotFound(f"auction {_id(request)[:100]!r}: not on the tape, or no longer")
        return _answer(story)

    async def _queue_list(self, _request: web.Request) -> web.Response:
        report = self._queues()
        queues, minutes = list(report.queues), list(report.minutes)
        return _answer(QueueList(report.time, queues, minutes, report.problem, self._waiting()))

    async def _instances(self, _request: web.Request) -> web.Response:
        snapshot = self._snapshots.latest
        return _answer(InstanceList(snapshot.time, list(snapshot.instances)))

    def row(self, campaign_id: str) -> CampaignRow | None:
        """A campaign at a glance, None when it is unknown."""
        try:
            return self._row(self._catalogue.get(campaign_id))
        except NotFound:
            return None

    def commands(self) -> Commands:
        """What clients of the WebSocket may say to the same services."""
        return Commands(self._catalogue, self._alerts, self._snapshots, self.row)

    def broadcast(self, hub: Hub) -> Callable[[], None]:
        """Have the hub tell its clients of alerts and sampled auctions; the result ends that."""

        def alert(view: AlertView) -> None:
            hub.tell("alert", _alert_row(view))

        def auction(row: AuctionRow) -> None:
            hub.tell("auction", row, tape=True)

        def end() -> None:
            self._alerts.listeners.remove(alert)
            self._tape.listeners.remove(auction)

        self._alerts.listeners.append(alert)
        self._tape.listeners.append(auction)
        return end

    def _detail(self, campaign: Campaign) -> CampaignDetail:
        return CampaignDetail(self._row(campaign), msgspec.to_builtins(campaign))

    def _row(self, campaign: Campaign) -> CampaignRow:
        today = self._performance.current(campaign.id, budget_day(self._clock.time(), campaign.zone))
        pace = self._pace(campaign.id)
        return CampaignRow(
            id=campaign.id,
            name=campaign.name,
            advertiser=campaign.advertiser,
            status=campaign.status.value,
            pricing=campaign.pricing.value,
            bid=campaign.bid,
            ecpm=money.to_cpm(campaign.bid_micros),
            daily_budget=campaign.daily_budget,
            lifetime_budget=campaign.lifetime_budget,
            spent_today=today.cost_nanos / NANOS,
            target=None if pace is None else pace.target_nanos / NANOS,
            funded=self._funded(campaign.id),
            wins=today.wins,
            impressions=today.impressions,
            clicks=today.clicks,
            conversions=today.conversions,
            revenue=today.revenue_nanos / NANOS,
            ctr=today.ctr,
            roas=today.roas,
            version=campaign.version,
        )


def _get(path: str, summary: str, answer: Any, **options: Any) -> Operation:
    return Operation(method="GET", path=path, summary=summary, answer=answer, **options)


def _guarded(handler: Handler) -> Handler:
    """The handler, its errors as answers."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotFound as error:
            return refusal(404, _line(error))
        except Conflict as error:
            return refusal(409, _line(error))
        except (BadRequest, InvalidCampaign, Malformed) as error:
            return refusal(400, _line(error))
        except StoreError as error:
            return refusal(503, _line(error))
        except web.HTTPRequestEntityTooLarge as error:
            return refusal(413, f"body: longer than {error.body_length or 'allowed'}")
        except web.HTTPException as error:
            return refusal(error.status, _line(error.text or error.reason))
        except Exception as error:
            _log.exception("api_failed", path=request.path)
            return refusal(500, f"the daemon failed: {type(error).__name__}; see its log")

    return guarded


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What aiohttp itself refuses under /api, in the form of every other error."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith("/api/") or error.content_type == "application/json":
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return refusal(error.status, _line(error.reason).lower(), headers)


def _answer(value: Any, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":  # a form of another page can declare others, not this
        raise web.HTTPUnsupportedMediaType(text="send the body as application/json")
    try:
        value = msgspec.json.decode(await request.read())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"body: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("body: expected an object")
    return value


def _id(request: web.Request) -> str:
    return request.match_info["id"]


def _actor(request: web.Request) -> str:
    identity = request.get(IDENTITY)
    return ("dashboard" if identity is None else f"dashboard:{identity.name}")[:ACTOR]


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    given = request.query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) < 10 and 1 <= int(given) <= most):
        raise BadRequest(f"{name}: expected a number from 1 to {most}")
    return int(given)


def _days(request: web.Request, today: str) -> Days:
    try:
        first = date.fromisoformat(request.query.get("since") or today)
        last = date.fromisoformat(request.query.get("until") or max(today, first.isoformat()))
    except ValueError:
        raise BadRequest("since, until: give dates as in 2026-11-22") from None
    if last < first:
        raise BadRequest("until: must not be before since")
    if (last - first).days >= MAX_DAYS:
        raise BadRequest(f"until: more than {MAX_DAYS} days after since")
    return Days(first, last)


def _merged_figures(figures: Figures) -> FiguresRow:
    return FiguresRow(
        impressions=figures.impressions,
        clicks=figures.clicks,
        conversions=figures.conversions,
        spend=figures.spend_nanos / NANOS,
        revenue=figures.revenue_nanos / NANOS,
        ctr=figures.ctr,
        cvr=figures.cvr,
        cpc=figures.cpc,
        cpm=figures.cpm,
        roas=figures.roas,
    )


def _ledger_figures(counters: Counters) -> FiguresRow:
    return FiguresRow(
        impressions=counters.impressions,
        clicks=counters.clicks,
        conversions=counters.conversions,
        spend=counters.cost_nanos / NANOS,
        revenue=counters.revenue_nanos / NANOS,
        ctr=counters.ctr,
        cvr=counters.cvr,
        cpc=counters.cpc,
        cpm=counters.cpm,
        roas=counters.roas,
    )


def _alert_row(view: AlertView) -> AlertRow:
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
    )


def _line(error: object) -> str:
    return " ".join(str(error).split())
