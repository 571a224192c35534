"""Alert rules and what becomes of them: pure values and one step function.

    ok ──condition holds──> pending ──for_s later──> firing ──past recover_at for for_s──> ok

A pending rule goes back to ok as soon as its condition does not hold. A firing one ends only once the value was past
`recover_at`, which lies on the good side of the threshold, for `for_s` without a break: a value that hovers about the
threshold makes one alert, not many. A value that is unknown proves nothing: it ends what is pending, and leaves what is
firing as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

from rtb.errors import BadRequest

MAX_SECONDS = 7 * 86_400
MARGIN = 0.05
"""Without a `recover_at`, how far past its threshold a value must come back, as a share of the threshold."""
_CLOSE = 1e-9

SYSTEM_METRICS: Mapping[str, str] = {
    "auctions_per_s": "auctions a second, all live instances",
    "bid_rate": "share of auctions answered with a bid, 0 to 1",
    "win_rate": "share of bids that won, 0 to 1",
    "timeout_rate": "share of auctions in which every bidder was late, 0 to 1",
    "shed_rate": "share of auctions refused under load, 0 to 1",
    "latency_p50_ms": "half of the auctions took no longer",
    "latency_p95_ms": "95 % of the auctions took no longer",
    "latency_p99_ms": "99 % of the auctions took no longer",
    "latency_p999_ms": "99.9 % of the auctions took no longer",
    "loop_lag_max_ms": "how late an event loop ran its timers, at most",
    "spend_per_s": "spending a second, in units of the currency",
    "bidder_timeouts_per_s": "late bidders a second",
    "bidder_errors_per_s": "failed bidders a second",
    "in_flight": "auctions under way now",
    "instances": "daemons that are alive",
    "stale_instances": "daemons not heard of lately",
    "rss_bytes": "memory of all live instances",
    "queue_ready_max": "messages ready in the fullest queue",
    "dead_letters": "messages in the queue of the dead",
}
CAMPAIGN_METRICS: Mapping[str, str] = {
    "wins": "won today",
    "impressions": "shown today",
    "clicks": "clicked today",
    "conversions": "converted today",
    "spend": "spent today, in units of the currency",
    "revenue": "worth of today's conversions, in units of the currency",
    "ctr": "clicks an impression, today",
    "cvr": "conversions a click, today",
    "cpm": "cost of a thousand impressions, today",
    "cpc": "cost of a click, today",
    "cpa": "cost of a conversion, today",
    "roas": "revenue a unit of cost, today",
    "budget_share": "share of the daily budget that is spent, 0 to 1",
    "pace": "spending against the pacing target by now; 1 is on target",
}


class Condition(StrEnum):
    """How the value compares to the threshold when something is wrong."""

    GREATER_THAN = "greater_than"
    LESS_THAN = "less_than"
    EQUALS = "equals"


class Severity(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Phase(StrEnum):
    """Where a rule stands."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"


class AlertRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule as people write it. With a `campaign_id` it is about that campaign, without one about the whole system.

    `channels` name who is told (empty: all). `version` grows by one with every change.
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
    metric: str
    condition: Condition
    threshold: float
    name: Annotated[str, Meta(max_length=200)] = ""
    campaign_id: Annotated[str, Meta(max_length=200)] = ""
    for_s: Annotated[float, Meta(ge=0, le=MAX_SECONDS)] = 0.0
    severity: Severity = Severity.WARNING
    recover_at: float | None = None
    enabled: bool = True
    channels: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=16)] = ()
    version: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 1

    def breaks(self, value: float) -> bool:
        """Whether the condition holds: something is wrong."""
        match self.condition:
            case Condition.GREATER_THAN:
                return value > self.threshold
            case Condition.LESS_THAN:
                return value < self.threshold
            case _:
                return math.isclose(value, self.threshold, rel_tol=_CLOSE, abs_tol=_CLOSE)

    def recovers(self, value: float) -> bool:
        """Whether the value has come back far enough."""
        match self.condition:
            case Condition.GREATER_THAN:
                return value <= self._recover_at(-1)
            case Condition.LESS_THAN:
                return value >= self._recover_at(1)
            case _:
                return not self.breaks(value)

    def describe(self) -> str:
        """The condition in words."""
        what = f"{self.metric} of campaign {self.campaign_id}" if self.campaign_id else self.metric
        lasting = f" for {self.for_s:g} s" if self.for_s else ""
        return f"{what} {self.condition.value.replace('_', ' ')} {self.threshold:g}{lasting}"

    def _recover_at(self, sign: int) -> float:
        return self.threshold + sign * MARGIN * abs(self.threshold) if self.recover_at is None else self.recover_at


class AlertState(Struct, frozen=True, kw_only=True):
    """Where a rule stands; times are Unix seconds.

    `since` is when the phase began, `good_since` when the value of a firing rule came back (None: it has not), `value`
    the value at the last change of phase. `incident` counts how often the rule has fired, `began` is when it last did,
    `changed` when it last did or ended. `told` names the last transition that everybody was told of, `delivered` the
    channels that have the present one.
    """

    rule_id: str
    phase: Phase = Phase.OK
    since: float = 0.0
    good_since: float | None = None
    value: float | None = None
    incident: int = 0
    began: float = 0.0
    changed: float = 0.0
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    told: str = ""
    delivered: tuple[str, ...] = ()
    version: int = 0

    @property
    def transition(self) -> str:
        """What there is to tell: the beginning or the end of an incident, "" while there has been none."""
        if not self.incident:
            return ""
        return f"{self.incident}:{'firing' if self.phase is Phase.FIRING else 'resolved'}"


def step(rule: AlertRule, state: AlertState, value: float | None, now: float) -> AlertState:
    """The state after a look at the value (None: unknown) at `now`; the same object when nothing changed."""
    if value is not None and not math.isfinite(value):
        value = None
    if not rule.enabled:
        return state if state.phase is Phase.OK else _resolved(state, value, now)
    if state.phase is Phase.FIRING:
        return _firing(rule, state, value, now)
    if value is None or not rule.breaks(value):
        return state if state.phase is Phase.OK else structs.replace(state, phase=Phase.OK, since=now, value=value)
    since = state.since if state.phase is Phase.PENDING else now
    if now - since >= rule.for_s:
        return AlertState(
            rule_id=rule.id,
            phase=Phase.FIRING,
            since=now,
            value=value,
            incident=state.incident + 1,
            began=now,
            changed=now,
            told=state.told,
            version=state.version,
        )
    return (
        state if state.phase is Phase.PENDING else structs.replace(state, phase=Phase.PENDING, since=now, value=value)
    )


def _firing(rule: AlertRule, state: AlertState, value: float | None, now: float) -> AlertState:
    if value is None:
        return state
    if not rule.recovers(value):
        return state if state.good_since is None else structs.replace(state, good_since=None)
    since = now if state.good_since is None else state.good_since
    if now - since >= rule.for_s:
        return _resolved(state, value, now)
    return state if state.good_since is not None else structs.replace(state, good_since=now)


def _resolved(state: AlertState, value: float | None, now: float) -> AlertState:
    """Back to ok. Of what was firing the end is told; what was only pending leaves no trace."""
    if state.phase is not Phase.FIRING:
        return structs.replace(state, phase=Phase.OK, since=now, value=value)
    return structs.replace(state, phase=Phase.OK, since=now, changed=now, good_since=None, value=value, delivered=())


def rule_from(obj: Any) -> AlertRule:
    """A rule from decoded JSON.

    Raises:
        BadRequest: one line that names the field.
    """
    try:
        rule = msgspec.convert(obj, AlertRule)
    except msgspec.ValidationError as error:
        raise BadRequest(f"alert: {_field_first(error)}") from None
    return validated(rule)


def validated(rule: AlertRule) -> AlertRule:
    """The same rule when its metric is known and its numbers make sense.

    Raises:
        BadRequest: one line that names the field.
    """
    known = CAMPAIGN_METRICS if rule.campaign_id else SYSTEM_METRICS
    if rule.metric not in known:
        whose = "a campaign" if rule.campaign_id else "the system"
        raise BadRequest(f"alert: metric: {whose} has no {rule.metric[:64]!r}; choose one of {', '.join(known)}")
    if not math.isfinite(rule.threshold):
        raise BadRequest("alert: threshold: must be a finite number")
    at = rule.recover_at
    if at is None:
        return rule
    if rule.condition is Condition.EQUALS:
        raise BadRequest("alert: recover_at: a rule of equals ends with any other value; leave it out")
    if not math.isfinite(at) or rule.breaks(at):
        side = "above" if rule.condition is Condition.GREATER_THAN else "below"
        raise BadRequest(f"alert: recover_at: must be a finite number, not {side} threshold")
    return rule


def _field_first(error: msgspec.ValidationError) -> str:
    what, _, where = " ".join(str(error).split()).partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    what = what[:1].lower() + what[1:]
    for start in ("object missing required field `", "object contains unknown field `"):
        if what.startswith(start):
            where = ".".join(part for part in (where, what.removeprefix(start).rstrip("`")) if part)
            what = "required" if "missing" in start else "unknown field"
    return f"{where}: {what}" if where else what
