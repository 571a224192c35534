"""Budgets, billing and audit: over accounts in this process, or shared ones in Redis."""

from __future__ import annotations

from dataclasses import dataclass

from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.config import MEMORY
from rtb.domain.budget import Timing
from rtb.edges.event_consumers import WinConsumer
from rtb.ports import Accounts
from rtb.services.audit import Audit
from rtb.services.billing import Billing
from rtb.services.budget_alerts import BudgetAlerts
from rtb.services.budgets import Budgets
from rtb.services.leases import Leases
from rtb.services.rebuild import Days, LocalRebuild, Rebuild, Registration, Share
from rtb.services.restoring import Restoring
from rtb.services.treasury import Treasury
from rtb.services.wins import GATHER_S, Wins
from rtb.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Money:
    """What holds, bills and audits."""

    accounts: Accounts
    budgets: Budgets
    treasury: Treasury
    alerts: BudgetAlerts
    wins: Wins
    billing: Billing
    consumer: WinConsumer
    audit: Audit


def money(ground: Ground) -> Money:
    """The parts around the accounts that `state.url` names."""
    settings, clock, instance, out, late = ground.settings, ground.clock, ground.instance, ground.out, ground.late
    given = settings.budgets
    timing = Timing(
        ttl_ms=round(given.lease_ttl_s * 1_000),
        window_ms=round(given.window_s * 1_000),
        settle_ms=round(given.settle_s * 1_000),
    )
    is_alone = settings.broker.url == MEMORY
    ledger, share = out.ledger, Share(given.lease_share)
    registration = Registration(ledger, clock, instance)
    if settings.state.url == MEMORY:
        near = MemoryAccounts(clock, timing)
        local = LocalRebuild(near, ledger, late.find, clock, instance=instance, timing=timing, share=share)
        accounts: Accounts = near
        restore = local.restore
        budgets = Budgets(clock, instance=instance, timing=timing, share=share.share, near=near, opening=local.opening)
        treasury = Treasury(budgets, registration, local=local)
    else:
        accounts = RedisAccounts(settings.state.url, timing, cluster=settings.state.cluster)
        rebuild = Rebuild(accounts, ledger, late.find, clock, timing=timing, share=share)
        restore = Restoring(rebuild.restore, accounts, ledger, late.find).restore
        budgets = Budgets(clock, instance=instance, timing=timing, share=share.share, shared=True)
        leases = Leases(budgets, accounts, restore, clock, interval_s=given.sync_ms / 1_000)
        treasury = Treasury(budgets, registration, leases=leases)
    alerts = BudgetAlerts(ground.outbox, out.state, clock, instance=instance, currency=settings.currency.code)
    budgets.on_exhausted = late.alert
    billing = Billing(
        accounts,
        ledger,
        restore,
        timing=timing,
        days=Days(accounts, late.find, instance=instance, share=share),
        alert=late.alert,
        alert_at=given.alert_at,
    )
    billing.shares = late.shares
    return Money(
        accounts=accounts,
        budgets=budgets,
        treasury=treasury,
        alerts=alerts,
        # Where the win is the bill it must reach the broker, and the journal of a broker in this process, at once.
        wins=Wins(ground.outbox.post, gather_s=0.0 if settings.bills_wins or is_alone else GATHER_S),
        billing=billing,
        consumer=WinConsumer(out.broker, billing, ground.metrics, clock, bill_wins=settings.bills_wins, date=late.date),
        audit=Audit(accounts, ledger),
    )
