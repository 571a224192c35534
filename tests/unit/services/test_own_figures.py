"""The house's own figures: what its ledger adds up to, over days and instances."""

from __future__ import annotations

from datetime import date

from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.ports import LedgerKind, LedgerRow
from rtb.services.own_figures import OwnFigures, in_ledger

JANUARY = Days(date(2026, 1, 1), date(2026, 1, 31))


def row(key: str, kind: LedgerKind, day: str, charged_nanos: int = 0, **more: str | int) -> LedgerRow:
    """A row of campaign c."""
    told = {"campaign_id": "c", "instance": "i1", "impid": "1", "value_nanos": 0, **more}
    return LedgerRow(
        key=key,
        kind=kind,
        day=day,
        date=day,
        auction_id=key,
        price_nanos=charged_nanos,
        charged_nanos=charged_nanos,
        expires_at=1_767_225_700.0,
        received_at=1_767_225_600.0,
        **told,  # type: ignore[arg-type]
    )


async def test_the_ledger_is_added_up() -> None:
    """Days and instances together; what is outside the days, and of others, apart; no row is nothing, not unknown."""
    ledger = MemoryLedger()
    rows = [
        row("w1", LedgerKind.WIN, "2026-01-01"),
        row("i1", LedgerKind.IMPRESSION, "2026-01-01", 2_000),
        row("i2", LedgerKind.IMPRESSION, "2026-01-31", 3_000, instance="i2"),
        row("k1", LedgerKind.CLICK, "2026-01-15"),
        row("v1", LedgerKind.CONVERSION, "2026-01-15", 0, value_nanos=70_000),
        row("i3", LedgerKind.IMPRESSION, "2025-12-31", 500),
        row("i4", LedgerKind.IMPRESSION, "2026-02-01", 500),
        row("i5", LedgerKind.IMPRESSION, "2026-01-02", 900, campaign_id="d"),
    ]
    assert await ledger.append(rows, epochs={}) == {}
    source = OwnFigures(in_ledger(ledger), "USD")
    assert await source.fetch(["c", "d", "e"], JANUARY) == {
        "c": CampaignMetrics(Figures(2, 1, 1_000_000, 5_000, 70_000), "USD"),
        "d": CampaignMetrics(Figures(1, 0, 0, 900), "USD"),
        "e": CampaignMetrics(Figures(), "USD"),
    }
