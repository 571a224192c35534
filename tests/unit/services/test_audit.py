"""The audit, row by row: from the win to what was charged for it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rtb.ports import LedgerKind, LedgerRow
from rtb.services.audit import Audit, check_row
from rtb.services.billing import AT_THE_LIMIT
from tests.unit.services.tracked import CLICK, CONVERSION, DAY, IMPRESSION, NOW, Tracked

WIN = LedgerKind.WIN


def row(kind: LedgerKind, price: int = 0, charged: int | None = None, **fields: Any) -> LedgerRow:
    """Of one win of one campaign, as it should be."""
    made = LedgerRow(
        key=f"a:1:{kind.value}",
        kind=kind,
        campaign_id="c",
        day=DAY,
        auction_id="a",
        impid="1",
        instance="i",
        price_nanos=price,
        charged_nanos=price if charged is None else charged,
        expires_at=NOW,
        received_at=NOW,
        date=DAY,
        attributed="click" if kind is CONVERSION else "",
    )
    return replace(made, **fields)


CPM = (row(WIN, 5, 0), row(IMPRESSION, 5), row(CLICK), row(CONVERSION))
CPC = (row(WIN, 5, 0), row(IMPRESSION), row(CLICK, 70), row(CONVERSION))
CPA = (row(WIN, 5, 0), row(IMPRESSION), row(CLICK), row(CONVERSION, 900, 100, reason=AT_THE_LIMIT))
BILLED_AT_THE_WIN = (row(WIN, 5), row(WIN, 5, 0, key="b:1:win", reason=AT_THE_LIMIT))


@pytest.mark.parametrize("rows", [CPM, CPC, CPA, BILLED_AT_THE_WIN], ids=["cpm", "cpc", "cpa", "win"])
def test_nothing_is_wrong_with_what_is_right(rows: tuple[LedgerRow, ...]) -> None:
    """Whatever the campaign pays for, and where the limit was reached."""
    known = {one.key: one for one in rows}
    assert [what for one in rows for what in check_row(one, known)] == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (CPM[1:2], "a:1:impression has no win"),
        ((row(WIN, 5, 0, campaign_id="d"), CPM[1]), "a:1:impression is of campaign c, its win of d"),
        ((row(WIN, 6, 0), CPM[1]), "a:1:impression costs 5 nanos, its win was sold at 6"),
        ((CPM[0], CPM[2]), "a:1:click has no impression"),
        ((CPM[0], CPM[1], CPM[3]), "a:1:conversion has no click that it is owed to"),
        ((CPM[0], row(CONVERSION, attributed="view")), "a:1:conversion has no view that it is owed to"),
        ((CPM[0], row(CONVERSION, attributed="")), "a:1:conversion has no touch that it is owed to"),
        ((CPM[0], row(IMPRESSION, 5, 4)), "a:1:impression was charged 4 of 5 nanos without a reason"),
        ((CPM[0], row(IMPRESSION, 5, 6)), "a:1:impression was charged 6 of 5 nanos"),
        ((row(WIN, 5), CPM[1]), "a:1:impression was charged though its win had been"),
        ((CPM[0], CPM[1], row(CLICK, 70)), "a:1:click was charged though its impression had been"),
        ((row(WIN, 5, 3),), "a:1:win was charged 3 of 5 nanos without a reason"),
    ],
)
async def test_each_row_that_does_not_balance_is_named(rows: tuple[LedgerRow, ...], says: str) -> None:
    """With its key, by the whole audit; nothing else is."""
    world = Tracked()
    await world.ledger.append([replace(one, day="") for one in rows], epochs={})
    report = await Audit(world.accounts, world.ledger).run()
    assert ([finding.what for finding in report.findings], report.balanced) == ([says], False)
    assert report.findings[0].key == says.split()[0]


async def test_the_lists_are_bounded_and_the_counts_are_not() -> None:
    """A ledger that is all wrong does not fill the memory."""
    world = Tracked()
    rows = [row(IMPRESSION, 5, 0, key=f"k{n}", auction_id=str(n), reason=AT_THE_LIMIT) for n in range(20)]
    await world.ledger.append(rows, epochs={})
    report = await Audit(world.accounts, world.ledger, most=3).run()
    assert (len(report.findings), len(report.uncovered), report.unlisted, report.rows) == (3, 3, 34, 20)
    assert report.kinds == {"impression": 20}


async def test_named_campaigns_and_a_time() -> None:
    """Only their rows are followed, and only those received since."""
    world = Tracked()
    wrong = [row(IMPRESSION, key=f"k{n}", campaign_id=f"c{n}", received_at=NOW + n) for n in range(3)]
    await world.ledger.append(wrong, epochs={})
    audit = Audit(world.accounts, world.ledger)
    assert {finding.key for finding in (await audit.run(["c0", "c2"])).findings} == {"k0", "k2"}
    assert {finding.key for finding in (await audit.run(since=NOW + 1)).findings} == {"k1", "k2"}


async def test_what_was_tracked_balances() -> None:
    """Wins, impressions, clicks and conversions of every pricing, through the real services."""
    world = Tracked()
    for name in ("cpm", "cpc", "cpa", "free"):
        ticket = world.ticket(name, f"auction of {name}", user="")
        await world.win(ticket)
        for kind in (IMPRESSION, CLICK, CONVERSION):
            await world.happens(kind, ticket)
    report = await Audit(world.accounts, world.ledger).run()
    assert (report.findings, report.uncovered) == ([], [])
    assert report.kinds == dict.fromkeys(("win", "impression", "click", "conversion"), 4)
