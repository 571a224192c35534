"""What a client of the WebSocket may say, and what it gets for an answer; docs/dashboard-protocol.md has it all.

Every message names a `type` and may carry an `id`, which comes back with its answer: ``ok``, ``backfill`` or ``error``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol

import msgspec
import structlog
from msgspec import Meta, Struct

from dashboard.answers import CampaignLive, CampaignRow
from dashboard.feeds import CHANNELS, MESSAGES, Feeds
from dashboard.tokens import Identity, Role
from dashboard.trails import CampaignPoint, Trails
from rtb.domain.campaign import Status
from rtb.domain.snapshot import Point, Snapshot
from rtb.errors import BadRequest, NotFound, RtbError
from rtb.services.alerts import AlertWatch
from rtb.services.campaigns import Campaigns
from rtb.services.frame_source import MetricsSource

MAX_SUBSCRIBED = 100
DIGITS = 6
BACKFILL = 600
"""Points an answer to `backfill` has at most."""
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class Session(Protocol):
    """The client, as commands see it."""

    campaigns: tuple[str, ...]
    channels: set[str]
    instance: str

    @property
    def identity(self) -> Identity | None:
        """Who it is; None where nobody is asked."""
        ...


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """A message of a client; which fields a type needs is checked by its command."""

    type: str
    id: Annotated[str, Meta(max_length=100)] | int | None = None
    campaign_id: _Name | None = None
    channel: str | None = None
    instance: _Name | None = None
    bid: float | None = None
    alert_id: _Name | None = None
    since: float | None = None
    until: float | None = None


class Backfill(Struct, frozen=True):
    """Points, the oldest first; with `more` there are later ones that were asked for, too."""

    points: Sequence[Point] | Sequence[CampaignPoint]
    more: bool


class View(Struct, frozen=True):
    """One instance alone."""

    instance: str
    snapshot: Snapshot
    history: list[Point]


_decoder = msgspec.json.Decoder(Said)
Command = Callable[[Session, Said], Awaitable[Any]]


class Commands:
    """Acts on these services for whoever may."""

    def __init__(
        self,
        catalogue: Campaigns,
        alerts: AlertWatch,
        source: MetricsSource,
        row: Callable[[str], CampaignRow | None],
        feeds: Feeds,
        trails: Trails,
    ) -> None:
        """`row` is a campaign at a glance, None when it is unknown (`Api.row`), `trails` what campaigns did lately."""
        self._trails = trails
        self._row = row
        self._feeds = feeds
        self._catalogue = catalogue
        self._alerts = alerts
        self._source = source
        self._reading: dict[str, Command] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "backfill": self._backfill,
        }
        self._acting: dict[str, Command] = {
            "update_bid": self._update_bid,
            "pause": self._pause,
            "resume": self._resume,
            "ack_alert": self._acknowledge,
        }

    def live(self, campaign_id: str) -> CampaignLive | None:
        """What an update has of a campaign, None when it is gone."""
        row = self._row(campaign_id)
        if row is None:
            return None
        target = None if row.target is None else round(row.target, DIGITS)
        return CampaignLive(
            row.status,
            row.funded,
            row.bid,
            round(row.spent_today, DIGITS),
            target,
            row.wins,
            row.impressions,
            row.clicks,
            row.conversions,
            round(row.revenue, DIGITS),
            row.version,
        )

    async def run(self, session: Session, text: str | bytes) -> bytes:
        """Do what a message says; the message to answer with. Raises nothing."""
        said_id: str | int | None = None
        try:
            try:
                said = _decoder.decode(text)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                raise BadRequest(f"message: {error}") from None
            said_id = said.id
            result = await self._command(session, said)(session, said)
            kind = "backfill" if said.type == "backfill" else "ok"
            return _encoder.encode({"type": kind, "id": said_id, "data": result})
        except RtbError as error:
            line = " ".join(str(error).split())
        except Exception as error:
            _log.exception("dashboard_command_failed")
            line = f"the daemon failed: {type(error).__name__}; see its log"
        return _encoder.encode({"type": "error", "id": said_id, "error": line})

    def _command(self, session: Session, said: Said) -> Command:
        if (command := self._reading.get(said.type)) is not None:
            return command
        if (command := self._acting.get(said.type)) is None:
            known = ", ".join([*self._reading, *self._acting])
            raise BadRequest(f"type: {said.type[:40]!r} is unknown; choose one of {known}")
        if session.identity is not None and session.identity.role is not Role.OPERATOR:
            raise BadRequest(f"{said.type}: {session.identity.name!r} may look only; this needs the role operator")
        return command

    async def _subscribe(self, session: Session, said: Said) -> Any:
        if said.channel is not None:
            channel = _channel(said.channel)
            session.channels.add(channel)
            return self._feeds.now(channel) if channel in MESSAGES else None
        if said.instance is not None:
            found = self._source.view(said.instance)
            if found is None:
                raise NotFound(f"instance {said.instance!r}: has not been heard of lately")
            session.instance = said.instance
            return View(said.instance, found[0], list(found[1]))
        campaign = self._catalogue.get(_given(said, "campaign_id"))
        if campaign.id not in session.campaigns:
            if len(session.campaigns) >= MAX_SUBSCRIBED:
                raise BadRequest(f"subscribe: at most {MAX_SUBSCRIBED} campaigns at once")
            session.campaigns = (*session.campaigns, campaign.id)
        return self._row(campaign.id)

    async def _unsubscribe(self, session: Session, said: Said) -> Any:
        if said.channel is not None:
            session.channels.discard(_channel(said.channel))
        elif said.instance is not None:
            if session.instance == said.instance:
                session.instance = ""
        else:
            gone = _given(said, "campaign_id")
            session.campaigns = tuple(name for name in session.campaigns if name != gone)

    async def _backfill(self, _session: Session, said: Said) -> Backfill:
        since: float = _given(said, "since")
        until = math.inf if said.until is None else said.until
        if said.campaign_id is not None:
            return Backfill(self._trails.of(self._catalogue.get(said.campaign_id).id, since, until), False)
        found = [point for point in self._source.history if since < point.time < until]
        return Backfill(found[:BACKFILL], len(found) > BACKFILL)

    async def _update_bid(self, session: Session, said: Said) -> Any:
        made = await self._catalogue.set_bid(_given(said, "campaign_id"), _given(said, "bid"), actor=_actor(session))
        return self._row(made.id)

    async def _pause(self, session: Session, said: Said) -> Any:
        return await self._set_status(session, said, Status.PAUSED)

    async def _resume(self, session: Session, said: Said) -> Any:
        return await self._set_status(session, said, Status.ACTIVE)

    async def _set_status(self, session: Session, said: Said, status: Status) -> Any:
        made = await self._catalogue.set_status(_given(said, "campaign_id"), status, actor=_actor(session))
        return self._row(made.id)

    async def _acknowledge(self, session: Session, said: Said) -> Any:
        by = "somebody" if session.identity is None else session.identity.name
        await self._alerts.acknowledge(_given(said, "alert_id"), by)


def _given(said: Said, name: str) -> Any:
    value = getattr(said, name)
    if value is None:
        raise BadRequest(f"{name}: required")
    return value


def _channel(name: str) -> str:
    if name not in CHANNELS:
        raise BadRequest(f"channel: {name[:40]!r} is unknown; choose one of {', '.join(CHANNELS)}")
    return name


def _actor(session: Session) -> str:
    return ("dashboard" if session.identity is None else f"dashboard:{session.identity.name}")[:64]
