"""The admin commands ``campaigns.stats``, what campaigns' ads did by the ledger, and ``campaigns.history``, what was
done to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Annotated, Any

from msgspec import Meta

from rtb.domain.budget import budget_day
from rtb.domain.money import NANOS
from rtb.domain.pacing import Pace
from rtb.domain.performance import Counters, Performed, total
from rtb.edges.admin import Command, given
from rtb.errors import BadRequest, NotFound
from rtb.ports import Clock
from rtb.ports.history import History
from rtb.services.campaigns import Campaigns
from rtb.services.performance import Performance

TOP = 20
"""Without names the campaigns that cost most today are told."""
_Limit = Annotated[int, Meta(ge=1, le=10_000)]
_By = Annotated[str, Meta(pattern="^(campaign|date|instance)$")]
_Key = Callable[[Performed], tuple[str, str]]
_KEYS: Mapping[str, _Key] = {
    "campaign": lambda part: (part.campaign_id, ""),
    "date": lambda part: (part.campaign_id, part.date),
    "instance": lambda part: (part.campaign_id, part.instance),
}


def _unsampled(campaign_id: str, since: str, until: str) -> Sequence[Performed]:
    return ()


def stats_command(
    performance: Performance,
    catalogue: Campaigns,
    clock: Clock,
    currency: str,
    pace: Callable[[str], Pace | None],
    *,
    sampled: Callable[[str, str, str], Sequence[Performed]] = _unsampled,
) -> Command:
    """``campaigns.stats``: of the campaigns in `ids`, on dates from `since` to `until` (today of each campaign where
    neither is given), a row each, or one `by` date or instance; `pace` knows what should have been spent by now,
    `sampled` what is told of bids (rtb.services.bid_sample)."""

    async def run(arguments: dict[str, Any]) -> Any:
        now = clock.time()
        ids = given(arguments, "ids", list[str], None)
        since, until = _date(arguments, "since"), _date(arguments, "until")
        if since and until and until < since:
            raise BadRequest("campaigns.stats: argument 'until': must not be before since")
        by = given(arguments, "by", _By, "campaign")
        if ids is None:
            ids = [campaign_id for campaign_id, _ in performance.top(TOP, _today(catalogue, now))]
        rows: list[dict[str, Any]] = []
        for campaign_id in ids:
            campaign = catalogue.get(campaign_id)
            today = budget_day(now, campaign.zone)
            only_today = not since and not until
            first, last = (today, today) if only_today else (since, until)
            parts = [*await performance.stats(campaign_id, first, last), *sampled(campaign_id, first, last)]
            target = pace(campaign_id) if only_today and by == "campaign" else None
            rows += _rows(campaign_id, parts, by, target)
        return {"currency": currency, "rows": rows}

    return run


def history_command(history: History, catalogue: Campaigns) -> Command:
    """``campaigns.history``: the last `limit` (50) events of campaign `id`, the newest first."""

    async def run(arguments: dict[str, Any]) -> Any:
        campaign = catalogue.get(given(arguments, "id", str))
        events = await history.of(campaign.id, given(arguments, "limit", _Limit, 50))
        return [
            {
                "at": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="seconds"),
                "actor": event.actor,
                "action": event.action.value,
                "cause": event.cause,
                "details": dict(event.details),
            }
            for event in events
        ]

    return run


def _date(arguments: dict[str, Any], name: str) -> str:
    """A date as the ledger spells it, "" where it is absent. Raises BadRequest."""
    text = given(arguments, name, str, "")
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadRequest(f"campaigns.stats: argument {name!r}: give a date as in 2026-11-22") from None


def _today(catalogue: Campaigns, now: float) -> Callable[[str], str]:
    """Each campaign's own date: it is tomorrow in Seoul when the evening begins in London."""
    days: dict[str, str] = {}

    def today(campaign_id: str) -> str:
        try:
            campaign = catalogue.get(campaign_id)
        except NotFound:  # the ledger knows one that the catalogue does not
            return ""
        day = days.get(campaign.timezone)
        if day is None:
            day = days[campaign.timezone] = budget_day(now, campaign.zone)
        return day

    return today


def _rows(campaign_id: str, parts: Sequence[Performed], by: str, target: Pace | None) -> list[dict[str, Any]]:
    key = _KEYS[by]
    grouped = groupby(sorted(parts, key=key), key)
    rows = [
        {"id": campaign_id, **({by: value} if by != "campaign" else {}), **_figures(total([p.counters for p in group]))}
        for (_, value), group in grouped
    ]
    if not rows and by == "campaign":
        rows = [{"id": campaign_id, **_figures(Counters())}]
    if target is not None:
        nanos = target.target_nanos
        ratio = target.spent_nanos / nanos if nanos else None
        rows[0] |= {"target": nanos / NANOS, "pace": ratio, "admitted": target.probability}
    return rows


def _figures(counters: Counters) -> dict[str, Any]:
    """Counts, amounts in units of the currency, and the ratios; a ratio without a divisor is null."""
    return {
        "wins": counters.wins,
        "impressions": counters.impressions,
        "clicks": counters.clicks,
        "conversions": counters.conversions,
        "cost": counters.cost_nanos / NANOS,
        "revenue": counters.revenue_nanos / NANOS,
        "sampled_bids": counters.sampled_bids,
        "win_rate": counters.win_rate,
        "shown": counters.shown,
        "ctr": counters.ctr,
        "cvr": counters.cvr,
        "cpm": counters.cpm,
        "cpc": counters.cpc,
        "cpa": counters.cpa,
        "roas": counters.roas,
    }
