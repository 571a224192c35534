"""What every part of a daemon stands on."""

from __future__ import annotations

from dataclasses import dataclass

from rtb.adapters.clock import SystemClock
from rtb.config import Settings
from rtb.domain.money import Rates
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from rtb.wiring.late import Late
from rtb.wiring.outside import Outside, outside


@dataclass(frozen=True, slots=True)
class Ground:
    """Settings, time, counters, and the way out; nothing is started.

    `late` finds campaigns, and hears of their budgets, for parts that are made before there is a house.
    """

    settings: Settings
    instance: str
    clock: SystemClock
    rates: Rates
    metrics: Metrics
    out: Outside
    outbox: Outbox
    late: Late


def ground(settings: Settings, instance: str) -> Ground:
    """For the instance of this name. Raises ConfigError."""
    clock = SystemClock()
    metrics = Metrics(instance, clock)
    out = outside(settings, clock, instance)
    rates = Rates(settings.currency.code, settings.currency.rates)
    outbox = Outbox(out.broker, out.spool, metrics)
    return Ground(settings, instance, clock, rates, metrics, out, outbox, Late(out.repository))
