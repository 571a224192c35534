"""Campaigns: listed, looked at, added and changed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from dashboard.answers import CampaignDetail, CampaignPage, CampaignRow, HistoryList
from dashboard.api.requests import ID, Route, actor, answer, body_of, get, id_of, limit, number
from dashboard.openapi import Operation, Parameter
from rtb.domain import money
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign, Status
from rtb.domain.campaign_change import Change
from rtb.domain.money import NANOS
from rtb.domain.pacing import Pace
from rtb.errors import BadRequest, NotFound
from rtb.ports import Clock
from rtb.ports.history import History
from rtb.services.alerts import Conflict
from rtb.services.campaigns import Campaigns
from rtb.services.performance import Performance

MAX_PAGE = 1_000
_PATH = "/api/campaigns/{id}"


class CampaignResource:
    """``/api/campaigns``, and a campaign at a glance for whoever wants one."""

    def __init__(
        self,
        catalogue: Campaigns,
        campaigns: Callable[[], Iterable[Campaign]],
        performance: Performance,
        clock: Clock,
        currency: str,
        *,
        history: History,
        funded: Callable[[str], bool],
        pace: Callable[[str], Pace | None],
    ) -> None:
        """See `Api`."""
        self._catalogue = catalogue
        self._campaigns = campaigns
        self._performance = performance
        self._clock = clock
        self._currency = currency
        self._history = history
        self._funded = funded
        self._pace = pace

    def routes(self) -> list[Route]:
        """List, one, add, change, what was changed."""
        status = Parameter("status", {"enum": [status.value for status in Status]}, "Only those of this status.")
        cursor = Parameter("cursor", {"type": "string"}, "`next` of the page before.")
        listing = get(
            "/api/campaigns",
            "Campaigns by id, page by page.",
            CampaignPage,
            parameters=[status, limit(100, MAX_PAGE), cursor],
            refusals=(400,),
        )
        adding = Operation(
            method="POST",
            path=_PATH,
            summary="Add a campaign.",
            body=Campaign,
            answer=CampaignDetail,
            status=201,
            parameters=[ID],
            refusals=(409, 503),
        )
        changing = Operation(
            method="PATCH",
            path=_PATH,
            summary="Change some fields of a campaign.",
            body=Campaign,
            partial=True,
            answer=CampaignDetail,
            parameters=[ID],
            refusals=(404, 409, 503),
        )
        told = get(
            f"{_PATH}/history",
            "What was done to a campaign, by whom and why.",
            HistoryList,
            parameters=[ID, limit(50, MAX_PAGE)],
            refusals=(400, 404, 503),
        )
        return [
            (listing, self._list),
            (get(_PATH, "One campaign.", CampaignDetail, parameters=[ID], refusals=(404,)), self._one),
            (adding, self._add),
            (changing, self._change),
            (told, self._told),
        ]

    def row(self, campaign_id: str) -> CampaignRow | None:
        """A campaign at a glance, None when it is unknown."""
        try:
            return self._row(self._catalogue.get(campaign_id))
        except NotFound:
            return None

    def look(self, campaign_id: str) -> tuple[float, float | None, int] | None:
        """What it has spent and won today and its target, None when it is unknown (`trails.Look`)."""
        try:
            campaign = self._catalogue.get(campaign_id)
        except NotFound:
            return None
        today = self._performance.current(campaign.id, budget_day(self._clock.time(), campaign.zone))
        pace = self._pace(campaign.id)
        return today.cost_nanos / NANOS, None if pace is None else pace.target_nanos / NANOS, today.wins

    async def _list(self, request: web.Request) -> web.Response:
        most, cursor = number(request, "limit", 100, MAX_PAGE), request.query.get("cursor", "")
        given = request.query.get("status")
        if given is not None and given not in set(Status):
            raise BadRequest(f"status: choose one of {', '.join(Status)}")
        found = [campaign for campaign in self._campaigns() if given is None or campaign.status == given]
        later = (campaign for campaign in found if campaign.id > cursor)
        page = heapq.nsmallest(most + 1, later, key=lambda campaign: campaign.id)
        rows = [self._row(campaign) for campaign in page[:most]]
        following = rows[-1].id if len(page) > most else None
        return answer(CampaignPage(rows, following, len(found), self._currency))

    async def _one(self, request: web.Request) -> web.Response:
        return answer(self._detail(self._catalogue.get(id_of(request))))

    async def _add(self, request: web.Request) -> web.Response:
        fields, campaign_id = await body_of(request), id_of(request)
        if fields.setdefault("id", campaign_id) != campaign_id:
            raise BadRequest("id: is not the one in the path")
        if self.row(campaign_id) is not None:
            raise Conflict(f"campaign {campaign_id!r} exists; change it, or choose another id")
        made = await self._catalogue.update(Change(campaign_id, fields, whole=True), actor=actor(request))
        return answer(self._detail(made or self._catalogue.get(campaign_id)), 201)

    async def _change(self, request: web.Request) -> web.Response:
        fields, campaign_id = await body_of(request), id_of(request)
        if fields.pop("id", campaign_id) != campaign_id:
            raise BadRequest("id: cannot be changed")
        if not fields.keys() - {"version"}:
            raise BadRequest("body: names no field that changes")
        version = fields.pop("version", None)
        current = self._catalogue.get(campaign_id)
        if version is not None and version != current.version:
            raise Conflict(f"campaign {campaign_id!r}: version: is {current.version} by now; look again")
        made = await self._catalogue.update(Change(campaign_id, fields, whole=False), actor=actor(request))
        return answer(self._detail(made or self._catalogue.get(campaign_id)))

    async def _told(self, request: web.Request) -> web.Response:
        campaign = self._catalogue.get(id_of(request))
        return answer(HistoryList(list(await self._history.of(campaign.id, number(request, "limit", 50, MAX_PAGE)))))

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
