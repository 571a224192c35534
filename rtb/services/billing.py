"""Billing: an event charges its campaign's account once, and then stands in the ledger, whatever happens in between.

First the accounts, then the ledger, then the accounts again to settle. The ledger commits only while the epoch is that
of the charge, else the events are billed again. Every step can be repeated: a bill has its key, a row has its key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from rtb.domain.budget import LIFE, Bill, Billed, BillStatus, Timing
from rtb.domain.money import MAX_NANOS
from rtb.errors import NotFound, RtbError, StaleEpoch, StoreError
from rtb.messages import AlertKind
from rtb.ports import Accounts, Ledger, LedgerRow
from rtb.services.alerting import Alert
from rtb.services.rebuild import Days

ATTEMPTS = 8
"""How often events are billed again before the stores are taken for broken; a rebuild takes one or two."""
TOO_LATE = "received after its expiry"
PROCESSED_LATE = "processed too long after its expiry: the money held for it had lapsed"
AT_THE_LIMIT = "the limit was reached"
REMEMBERED = 16_384
"""Keys of rows that were recorded last: a win's impression comes within seconds."""

_OK, _ASK, _MISSING = BillStatus.OK, BillStatus.ASK, BillStatus.MISSING
_log = structlog.get_logger(__name__)


class BillingEvent(Struct, frozen=True, gc=False):
    """What happened and what it costs; `row.charged_nanos` is still open, whatever it says, and nothing is copied where
    it says the price. `held_nanos` was set aside for it, until `held_until` (Unix seconds; 0 is the row's
    `expires_at`)."""

    row: LedgerRow
    held_nanos: int
    held_until: float = 0.0


class _Work(Struct, gc=False):
    """The state of one event on its way."""

    event: BillingEvent
    bill: Bill | None
    result: LedgerRow | None = None
    epoch: int = 0
    done: bool = False
    error: RtbError | None = None


def _usual(campaign_id: str) -> tuple[float | None, float]:
    """No campaign says anything of its own."""
    return None, 1.0


def _nobody(rows: Sequence[LedgerRow]) -> None:
    """Nobody wants to know."""


class Billing:
    """Bills batches of events; batches may be billed at once, by any number of daemons."""

    def __init__(
        self,
        accounts: Accounts,
        ledger: Ledger,
        restore: Callable[[Collection[str]], Awaitable[None]],
        *,
        timing: Timing,
        days: Days | None = None,
        alert: Alert | None = None,
        alert_at: float = 0.9,
    ) -> None:
        """`restore` puts missing books back (NotFound for a campaign that nobody knows); `days` opens the accounts of
        days on which a campaign has not won; `alert` hears of accounts that are spent to `alert_at` of their limit, or
        to all of it."""
        self._accounts = accounts
        self._ledger = ledger
        self._restore = restore
        self._timing = timing
        self._days = days
        self._alert = alert
        self._alert_at = alert_at
        self.shares: Callable[[str], tuple[float | None, float]] = _usual
        """At which shares of its daily budget a campaign's alert goes out (None: `alert_at`) and it pauses."""
        self.on_written: Callable[[Sequence[LedgerRow]], None] = _nobody
        """Called with the rows that a commit has brought into the ledger, each once."""
        self._recorded: OrderedDict[str, None] = OrderedDict()
        self.billed = self.charged_nanos = 0
        self.uncovered = 0
        """Events in time that were not charged in full."""

    async def bill(self, events: Sequence[BillingEvent]) -> list[LedgerRow | RtbError]:
        """Charge the events and commit their rows; for each the row, or why it cannot be billed.

        An event that was billed before gives the same row again, with the `event_id` of the message that was billed. Of
        several with one key the first counts. The rows are durable when this returns.

        Raises:
            StoreError: the accounts or the ledger are away; repeat the whole call.
        """
        first: dict[str, _Work] = {}
        for event in events:
            if event.row.key not in first:
                first[event.row.key] = _Work(event, self._bill_of(event))
        works = list(first.values())
        stale: dict[str, int] = {}
        for _ in range(ATTEMPTS):
            if not await self._charge([work for work in works if work.result is None and work.error is None]):
                continue
            try:
                written = await self._commit(works)
            except StaleEpoch:
                await self._catch_up(works, stale)
                continue
            await self._accounts.settle([w.bill for w in works if w.bill and not w.done and w.result])
            self._count(written)
            results = {key: work.error or work.result or NotFound("not billed") for key, work in first.items()}
            return [results[event.row.key] for event in events]
        raise StoreError("the budgets are rebuilt again and again; is another daemon using the same ledger alone?")

    async def record(self, rows: Sequence[LedgerRow]) -> None:
        """Commit rows that charge nobody; those that stand in the ledger already are left out. Raises StoreError."""
        known = await self._ledger.append(rows, epochs={})
        recorded = self._recorded
        for row in rows:
            recorded[row.key] = None
        while len(recorded) > REMEMBERED:
            recorded.popitem(last=False)
        self._tell_written([row for row in rows if row.key not in known])

    async def unrecorded(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that no row of the ledger has; it is not asked of what was recorded here just now, for its
        rows stay. Raises StoreError."""
        asked = [key for key in keys if key not in self._recorded]
        return await self._ledger.unknown(asked) if asked else set()

    async def check(self) -> None:
        """Raise StoreError while the accounts or the ledger are away."""
        await self._ledger.epochs([""])
        await self._accounts.identity([""])

    def _bill_of(self, event: BillingEvent) -> Bill | None:
        """None when no account pays: it is free, there is none, or the event came too late."""
        row = event.row
        if not row.price_nanos or not row.day or row.received_at > row.expires_at:
            return None
        return Bill(
            key=row.key,
            campaign_id=row.campaign_id,
            day=row.day,
            instance=row.instance,
            price_nanos=row.price_nanos,
            held_nanos=event.held_nanos,
            expires_ms=round((event.held_until or row.expires_at) * 1_000),
        )

    async def _charge(self, works: Sequence[_Work]) -> bool:
        """Charge what is not charged yet; whether all is."""
        bills: list[Bill] = []
        waiting: list[_Work] = []
        for work in works:
            if work.bill is None:
                row = work.event.row
                is_late = row.day and row.received_at > row.expires_at
                charged, reason = (0, TOO_LATE) if is_late else (row.price_nanos, "")
                work.result = _charged(row, charged, reason) if row.price_nanos else row
            else:
                bills.append(work.bill)
                waiting.append(work)
        if not bills:
            return True
        if self._days is not None:
            lacking = await self._days.open({(bill.campaign_id, bill.day) for bill in bills})
            if lacking:
                await self._rebuild(_by_campaign(waiting, lacking))
                return False
        asks: list[tuple[_Work, int]] = []
        missing: dict[str, list[_Work]] = {}
        for work, billed in zip(waiting, await self._accounts.bill(bills), strict=True):
            if billed.status is _MISSING:
                missing.setdefault(work.event.row.campaign_id, []).append(work)
            elif billed.status is _ASK:
                asks.append((work, billed.epoch))
            else:
                self._take(work, billed)
        if asks:
            await self._ask(asks)
        if missing:
            await self._rebuild(missing)
        return not asks and not missing

    def _take(self, work: _Work, billed: Billed) -> None:
        row = work.event.row
        reason = ""
        if billed.charged_nanos < row.price_nanos:
            assert work.bill is not None
            is_late = billed.time_ms > work.bill.expires_ms + self._timing.settle_ms
            reason = PROCESSED_LATE if is_late else AT_THE_LIMIT
        work.result = _charged(row, billed.charged_nanos, reason)
        work.epoch = billed.epoch
        if self._alert is not None and billed.status is _OK:
            self._tell(self._alert, row.campaign_id, billed)

    def _tell(self, alert: Alert, campaign_id: str, billed: Billed) -> None:
        alert_at, pause_at = self.shares(campaign_id)
        alert_at = self._alert_at if alert_at is None else alert_at
        for day, spent in billed.spent.items():
            limit = billed.limits[day]
            if not 0 < limit < MAX_NANOS:
                continue
            if spent >= limit * alert_at:
                alert(campaign_id, day, AlertKind.ALERT, spent_nanos=spent, limit_nanos=limit)
            if spent >= (limit if day == LIFE else int(limit * pause_at)):
                alert(campaign_id, day, AlertKind.PAUSE, spent_nanos=spent, limit_nanos=limit)

    async def _ask(self, asks: Sequence[tuple[_Work, int]]) -> None:
        """Let the ledger say which were billed before; the others are billed with the mark that it was asked."""
        known = await self._ledger.find([work.event.row.key for work, _ in asks])
        for work, epoch in asks:
            row = work.event.row
            assert work.bill is not None
            if row.key in known:
                work.result = known[row.key]
                work.done = True
            else:
                work.bill = replace(work.bill, asked_epoch=epoch)

    async def _rebuild(self, missing: dict[str, list[_Work]]) -> None:
        try:
            await self._restore(list(missing))
        except NotFound:
            for campaign_id, works in missing.items():  # one by one: only the unknown ones fail
                try:
                    await self._restore([campaign_id])
                except NotFound as error:
                    for work in works:
                        work.error = error

    async def _commit(self, works: Sequence[_Work]) -> list[LedgerRow]:
        """Write the rows; those that were not there before."""
        rows = [work.result for work in works if work.result is not None and not work.done]
        epochs = {work.event.row.campaign_id: work.epoch for work in works if work.epoch and not work.done}
        fences = {self._accounts.fence(campaign_id): epoch for campaign_id, epoch in epochs.items()}
        known = await self._ledger.append(rows, epochs=fences)
        if known:
            for work in works:
                if work.result is not None and work.result.key in known:
                    work.result = replace(work.result, event_id=known[work.result.key])
            rows = [row for row in rows if row.key not in known]
        return rows

    async def _catch_up(self, works: Sequence[_Work], stale: dict[str, int]) -> None:
        """Bill again. A book that stays behind its epoch was never installed: whoever raised it failed."""
        epochs = {work.event.row.campaign_id: work.epoch for work in works if work.epoch and not work.done}
        current = await self._ledger.epochs([self._accounts.fence(name) for name in epochs])
        behind = {name: epoch for name, epoch in epochs.items() if current[self._accounts.fence(name)] > epoch}
        again = [name for name, epoch in behind.items() if stale.get(name) == epoch]
        stale.update(behind)
        if again:
            await self._restore(again)
        for work in works:
            if work.epoch and not work.done:
                work.result, work.epoch = None, 0

    def _count(self, rows: Sequence[LedgerRow]) -> None:
        """Count what was written, and tell of it."""
        for row in rows:
            if not row.price_nanos:
                continue
            self.billed += 1
            self.charged_nanos += row.charged_nanos
            if row.charged_nanos < row.price_nanos and row.reason != TOO_LATE:
                self.uncovered += 1
                _log.warning(
                    "billing_event_uncovered",
                    key=row.key,
                    campaign_id=row.campaign_id,
                    day=row.day,
                    price_nanos=row.price_nanos,
                    charged_nanos=row.charged_nanos,
                    reason=row.reason,
                )
        self._tell_written(rows)

    def _tell_written(self, rows: Sequence[LedgerRow]) -> None:
        if rows:
            self.on_written(rows)


def _by_campaign(works: Sequence[_Work], campaign_ids: Collection[str]) -> dict[str, list[_Work]]:
    """Those of these campaigns."""
    found: dict[str, list[_Work]] = {campaign_id: [] for campaign_id in campaign_ids}
    for work in works:
        if work.event.row.campaign_id in found:
            found[work.event.row.campaign_id].append(work)
    return found


def _charged(row: LedgerRow, nanos: int, reason: str) -> LedgerRow:
    """The row as it was charged; most come as if it were in full."""
    if row.charged_nanos == nanos and row.reason == reason:
        return row
    return replace(row, charged_nanos=nanos, reason=reason)
