"""What the API answers, as types: the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from rtb.domain.alert import AlertRule
from rtb.domain.snapshot import InstanceRow, MinuteReport
from rtb.ports.history import HistoryEvent
from rtb.services.auction_tape import AuctionRow
from rtb.services.bidder_board import BidderRow
from rtb.services.queue_monitor import MinuteRow, QueueRow


class Error(Struct, frozen=True):
    """Why a request was refused, in one line."""

    error: str


class CampaignRow(Struct, frozen=True, kw_only=True):
    """A campaign at a glance. Amounts are units of the exchange currency; figures and ratios are of the campaign's
    present day (a ratio without a divisor is null). `target` is what should be spent by now, where it is paced."""

    id: str
    name: str
    advertiser: str
    status: str
    pricing: str
    bid: float
    ecpm: float
    daily_budget: float | None
    lifetime_budget: float | None
    spent_today: float
    target: float | None
    funded: bool
    wins: int
    impressions: int
    clicks: int
    conversions: int
    revenue: float
    ctr: float | None
    roas: float | None
    version: int


class CampaignLive(Struct, frozen=True, array_like=True):
    """What changes of a campaign from second to second, as an array: it goes to many clients every second. Amounts are
    rounded to millionths."""

    status: str
    funded: bool
    bid: float
    spent_today: float
    target: float | None
    wins: int
    impressions: int
    clicks: int
    conversions: int
    revenue: float
    version: int


class CampaignPage(Struct, frozen=True):
    """Campaigns in the order of their ids; `next` is the cursor of the page after this one, null on the last.
    `total` counts all that fit the status."""

    campaigns: list[CampaignRow]
    next: str | None
    total: int
    currency: str


class CampaignDetail(Struct, frozen=True):
    """A campaign: its figures, and its definition as it is imported."""

    row: CampaignRow
    campaign: dict[str, Any]


class HistoryList(Struct, frozen=True):
    """What was done to a campaign, the newest first: when (Unix seconds), by whom, what, and why. `actor` is
    ``dashboard:NAME`` for who acted here with the token or session of NAME, ``admin`` for the command line, ``queue``
    for a message, ``automation`` for the daemon itself. `details` are the fields that a change made differ, each as
    [before, after]."""

    events: list[HistoryEvent]


class FiguresRow(Struct, frozen=True, kw_only=True):
    """Counts, amounts in units of the exchange currency, and ratios of the sums."""

    impressions: float
    clicks: float
    conversions: float
    spend: float
    revenue: float
    ctr: float | None
    cvr: float | None
    cpc: float | None
    cpm: float | None
    roas: float | None


class SourceRow(Struct, frozen=True, kw_only=True):
    """One source's part: fresh, stale or unknown, how old (seconds), and why it is not fresh."""

    source: str
    standing: str
    age_s: float | None
    reason: str
    figures: FiguresRow | None


class DayRow(Struct, frozen=True):
    """What the ledger says of one date, in the campaign's time zone."""

    date: str
    wins: int
    figures: FiguresRow


class CampaignMetricsAnswer(Struct, frozen=True, kw_only=True):
    """A campaign over some days: all sources merged (null when none has told anything), each of them, and what the
    ledger of all daemons says day by day. Dates as in 2026-11-22, both included."""

    campaign_id: str
    since: str
    until: str
    currency: str
    standing: str
    totals: FiguresRow | None
    sources: list[SourceRow]
    days: list[DayRow]


class AlertRow(Struct, frozen=True, kw_only=True):
    """A rule and where it stands; `phase` is ok, pending or firing, `value` the value now (null: unknown). Times are
    Unix seconds. `told` is whether everybody has heard of the last change. `warning` is one line, field first, on what
    keeps the rule from ever firing, such as a campaign that does not exist; "" when nothing does."""

    rule: AlertRule
    phase: str
    since: float
    value: float | None
    incident: int
    acknowledged_by: str
    acknowledged_at: float | None
    told: bool
    warning: str = ""


class AlertList(Struct, frozen=True):
    """Every rule by id, and what rules may name: channels, and metrics with their meaning."""

    alerts: list[AlertRow]
    channels: list[str]
    system_metrics: dict[str, str]
    campaign_metrics: dict[str, str]


class AuctionList(Struct, frozen=True):
    """The last sampled auctions, the newest first."""

    auctions: list[AuctionRow]


class QueueNow(Struct, frozen=True):
    """The broker's queues as last seen at `time` (Unix seconds, 0: not yet); `problem` is why there are less or none.
    `outbox` is how many messages wait in this process for the broker."""

    time: float
    queues: list[QueueRow]
    problem: str
    outbox: int


class QueueList(QueueNow, frozen=True):
    """The same, and what this process did with messages, minute by minute."""

    minutes: list[MinuteRow]


class InstanceList(Struct, frozen=True):
    """The daemons, as of `time` (Unix seconds)."""

    time: float
    instances: list[InstanceRow]


class BidderList(Struct, frozen=True):
    """The bidders over HTTP, as of `time` (Unix seconds)."""

    time: float
    bidders: list[BidderRow]


class ReportList(Struct, frozen=True):
    """The minutes of the last hour that are over, the oldest first."""

    reports: list[MinuteReport]


class Me(Struct, frozen=True):
    """Who asks, and what they may do: viewer or operator."""

    name: str
    role: str
