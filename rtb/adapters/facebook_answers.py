"""What Facebook's Graph API answers: the shapes, its errors, and how much of its rate limits is used.

Sources (developers.facebook.com): docs/graph-api/batch-requests, docs/graph-api/guides/error-handling,
docs/graph-api/overview/rate-limiting (the ``X-*-Usage`` headers; percentages, and minutes until access is regained;
throttling codes 4, 17, 32, 613 and 80000 to 80014), docs/marketing-api/insights/best-practices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from rtb.adapters.source_http import HOLD_OFF_S

NOT_FINISHED = "not finished in time, within its batch"
_NEARLY_USED = 95.0
_THROTTLED = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
_T = TypeVar("_T")


class Header(Struct, frozen=True):
    """A header of one answer in a batch."""

    name: str
    value: str


class Item(Struct, frozen=True):
    """One answer in a batch; `body` is JSON in a string."""

    code: int
    headers: list[Header] | None = None
    body: str | None = None


class Action(Struct, frozen=True):
    """What people did (a count), or what it was worth, by type."""

    action_type: str
    value: str | float


class InsightsRow(Struct, frozen=True):
    """Insights of a campaign. Clicks and actions are left out when there are none; the others are always there."""

    impressions: str | int
    spend: str | float
    account_currency: str
    clicks: str | int = 0
    inline_link_clicks: str | int = 0
    actions: list[Action] = []
    action_values: list[Action] = []


class Cursors(Struct, frozen=True):
    """Where a page begins and ends."""

    after: str = ""


class Paging(Struct, frozen=True):
    """`next` is there when there is another page; a page may be empty before that."""

    cursors: Cursors | None = None
    next: str = ""


class Insights(Struct, frozen=True):
    """One page."""

    data: list[InsightsRow]
    paging: Paging | None = None


class Done(Struct, frozen=True):
    """The answer to an update."""

    success: bool


class _Error(Struct, frozen=True):
    message: str = ""
    code: int = 0
    error_subcode: int = 0
    is_transient: bool = False


class _Failure(Struct, frozen=True):
    error: _Error


class _UseCase(Struct, frozen=True):
    call_count: float = 0.0
    total_cputime: float = 0.0
    total_time: float = 0.0
    estimated_time_to_regain_access: float = 0.0  # minutes


class _AccountUsage(Struct, frozen=True):
    acc_id_util_pct: float = 0.0
    reset_time_duration: float = 0.0  # seconds


class _InsightsUsage(Struct, frozen=True):
    app_id_util_pct: float = 0.0
    acc_id_util_pct: float = 0.0


_failure = msgspec.json.Decoder(_Failure)
_use_cases = msgspec.json.Decoder(dict[str, list[_UseCase]])
_app_usage = msgspec.json.Decoder(_UseCase)
_account_usage = msgspec.json.Decoder(_AccountUsage)
_insights_usage = msgspec.json.Decoder(_InsightsUsage)


def failure_of(status: int, body: bytes) -> tuple[str, float]:
    """Why a request was refused, in one line, and for how many seconds to ask no more (0: go on)."""
    try:
        error = _failure.decode(body).error
    except (msgspec.MsgspecError, RecursionError):
        return f"HTTP {status}", HOLD_OFF_S if status == 429 else 0.0
    subcode = f", subcode {error.error_subcode}" if error.error_subcode else ""
    passing = ", passing" if error.is_transient else ""
    line = f"{error.message or 'no message'} (code {error.code}{subcode}{passing})"
    return line, HOLD_OFF_S if error.code in _THROTTLED or status == 429 else 0.0


def item_headers(item: Item) -> Mapping[str, str]:
    """The headers of one answer in a batch, names in lower case."""
    return {header.name.lower(): header.value for header in item.headers or ()}


def held_off_s(headers: Mapping[str, str]) -> float:
    """For how many seconds to ask no more, by what headers tell of the rate limits; unreadable ones tell nothing."""
    return max(
        _by_use_case(headers.get("x-business-use-case-usage", "")),
        _by_app(headers.get("x-app-usage", "")),
        _by_account(headers.get("x-ad-account-usage", "")),
        _by_insights(headers.get("x-fb-ads-insights-throttle", "")),
    )


def _by_use_case(header: str) -> float:
    usage = _read(_use_cases, header)
    cases = [case for of_object in usage.values() for case in of_object] if usage is not None else []
    return max((_case_s(case) for case in cases), default=0.0)


def _by_app(header: str) -> float:
    usage = _read(_app_usage, header)
    return _case_s(usage) if usage is not None else 0.0


def _case_s(usage: _UseCase) -> float:
    if usage.estimated_time_to_regain_access > 0:
        return usage.estimated_time_to_regain_access * 60
    return _used_s(max(usage.call_count, usage.total_cputime, usage.total_time))


def _by_account(header: str) -> float:
    usage = _read(_account_usage, header)
    if usage is None or usage.acc_id_util_pct < _NEARLY_USED:
        return 0.0
    return usage.reset_time_duration or HOLD_OFF_S


def _by_insights(header: str) -> float:
    usage = _read(_insights_usage, header)
    return _used_s(max(usage.app_id_util_pct, usage.acc_id_util_pct)) if usage is not None else 0.0


def _used_s(percent: float) -> float:
    return HOLD_OFF_S if percent >= _NEARLY_USED else 0.0


def _read(decoder: msgspec.json.Decoder[_T], header: str) -> _T | None:
    try:
        return decoder.decode(header) if header else None
    except (msgspec.MsgspecError, RecursionError):
        return None
