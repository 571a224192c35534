"""Contract of ports.Ledger: what tracking asks of it. Rows by key, touches, performance, and refused events."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import astuple

from rtb.domain.performance import Counters, Performed
from rtb.ports import Ledger, LedgerKind, LedgerRow, Refusal, Touch
from tests.contract.test_ledger import DAY, row

WIN, IMPRESSION = LedgerKind.WIN, LedgerKind.IMPRESSION
CLICK, CONVERSION = LedgerKind.CLICK, LedgerKind.CONVERSION


async def test_rows_are_found_by_their_keys(ledger: Ledger) -> None:
    """As they were written; an unknown key is left out."""
    rows = [row("a", 1, event_id="e"), row("b", 2, user="u", creative_id="c", value_nanos=3, attributed="view")]
    await ledger.append(rows, epochs={})
    assert await ledger.find(["b", "nobody", "a"]) == {one.key: one for one in rows}
    assert await ledger.find([]) == {}


async def test_keys_that_no_row_has(ledger: Ledger) -> None:
    """Of many, too, each once."""
    await ledger.append([row(f"k{n}") for n in range(0, 25_000, 2)], epochs={})
    asked = [f"k{n}" for n in range(25_000)]
    assert await ledger.unknown(asked + asked[:10]) == set(asked[1::2])
    assert await ledger.unknown([]) == set()


async def test_wins_that_are_neither_billed_nor_seen(ledger: Ledger) -> None:
    """What is held for them, and until when, a campaign, day and instance each; those that were received or expire too
    early, that no budget pays, or that were billed or refused are left out."""
    times: dict[str, Any] = {"received_at": 100.0, "expires_at": 160.0}
    wins: dict[str, dict[str, Any]] = {
        "a1": {"price_nanos": 5},
        "a2": {"price_nanos": 2**52, "expires_at": 170.0},
        "seen": {"price_nanos": 7},
        "old": {"price_nanos": 11, "received_at": 99.9},
        "over": {"price_nanos": 13, "expires_at": 149.9},
        "just": {"price_nanos": 17, "instance": "i-2", "expires_at": 150.0},
        "free": {"price_nanos": 19, "day": ""},
        "billed": {"price_nanos": 23, "charged_nanos": 23},
        "short": {"price_nanos": 29, "reason": "the limit was reached"},
        "tomorrow": {"price_nanos": 31, "day": "2026-11-23"},
        "other": {"price_nanos": 37, "campaign_id": "c-2"},
    }
    rows = [
        row(f"{name}:1:win", kind=WIN, auction_id=name, impid="1", **{"charged_nanos": 0, **times, **fields})
        for name, fields in wins.items()
    ]
    rows.append(row("seen:1:impression", 7, auction_id="seen", impid="1", **times))
    rows.append(row("a1:2:impression", 7, auction_id="a1", impid="2", **times))
    await ledger.append(rows, epochs={})
    found = await ledger.open_wins(received_since=100.0, expires_since=150.0)
    assert sorted(map(astuple, found)) == [
        ("c-1", DAY, "i-1", 2**52 + 5, 170.0),
        ("c-1", DAY, "i-2", 17, 150.0),
        ("c-1", "2026-11-23", "i-1", 31, 160.0),
        ("c-2", DAY, "i-1", 37, 160.0),
    ]
    assert await ledger.open_wins(received_since=100.1, expires_since=0.0) == []


async def test_the_last_touch_of_a_user(ledger: Ledger) -> None:
    """Of the campaign, of that kind, within the time, both ends included; wins are no touches, nor are others'."""
    rows = [
        row("i1", user="ann", received_at=10.0),
        row("i2", user="ann", received_at=20.0),
        row("i3", user="ann", received_at=30.0),
        row("k1", user="ann", received_at=15.0, kind=CLICK),
        row("w", user="ann", received_at=19.0, kind=WIN),
        row("other", user="bob", received_at=20.0),
        row("elsewhere", user="ann", received_at=20.0, campaign_id="c-2"),
        row("nobody", received_at=20.0),
    ]
    await ledger.append(rows, epochs={})
    touches = [
        Touch("c-1", "ann", IMPRESSION, 0.0, 25.0),
        Touch("c-1", "ann", IMPRESSION, 20.0, 20.0),
        Touch("c-1", "ann", CLICK, 0.0, 100.0),
        Touch("c-1", "ann", CLICK, 15.5, 100.0),
        Touch("c-1", "ann", CONVERSION, 0.0, 100.0),
        Touch("c-1", "", IMPRESSION, 0.0, 100.0),
        Touch("c-1", "eve", IMPRESSION, 0.0, 100.0),
    ]
    found = await ledger.last_touches(touches)
    assert [one and one.key for one in found] == ["i2", "i2", "k1", None, None, None, None]
    assert found[0] == rows[1]
    assert await ledger.last_touches([]) == []


async def test_performance_is_the_sum_of_the_rows(ledger: Ledger) -> None:
    """By campaign, date and instance; also where no budget paid, and where an amount is large."""
    rows = [
        row("w1", 0, kind=WIN, date=DAY),
        row("w2", 0, kind=WIN, date=DAY),
        row("i1", 4, date=DAY),
        row("i2", 5, date=DAY, instance="i-2"),
        row("k1", 7, kind=CLICK, date=DAY),
        row("v1", 9_000_000_000_000_000, kind=CONVERSION, date=DAY, value_nanos=9_000_000_000_000_000),
        row("v2", 9_000_000_000_000_000, kind=CONVERSION, date=DAY, value_nanos=9_000_000_000_000_000),
        row("i3", 6, date="2026-11-23", day="", received_at=1_795_305_600.0 + 36_000),
        row("i4", 8, date=DAY, day="life", campaign_id="c-2"),
    ]
    await ledger.append(rows, epochs={})
    first = [
        Performed("c-1", DAY, "i-1", Counters(2, 1, 1, 2, 18_000_000_000_000_011, 18_000_000_000_000_000)),
        Performed("c-1", DAY, "i-2", Counters(impressions=1, cost_nanos=5)),
    ]
    second = [Performed("c-1", "2026-11-23", "i-1", Counters(impressions=1, cost_nanos=6))]
    third = [Performed("c-2", DAY, "i-1", Counters(impressions=1, cost_nanos=8))]
    assert list(await ledger.performance()) == first + second + third
    assert list(await ledger.performance(["c-1"])) == first + second
    assert list(await ledger.performance(["c-1", "c-2"], since=DAY, until=DAY)) == first + third
    assert list(await ledger.performance(since="2026-11-23")) == second
    assert list(await ledger.performance(until="2026-11-21")) == []
    assert list(await ledger.performance([])) == []


async def test_who_was_active(ledger: Ledger) -> None:
    """The campaigns of the rows received since a time, each once."""
    rows = [row(f"k{n}", campaign_id=f"c-{n % 3}", received_at=float(n)) for n in range(9)]
    await ledger.append(rows, epochs={})
    assert sorted(await ledger.active(7.0)) == ["c-1", "c-2"]
    assert sorted(await ledger.active(0.0)) == ["c-0", "c-1", "c-2"]
    assert list(await ledger.active(9.0)) == []


def refusal(id_: str, received_at: float, **fields: object) -> Refusal:
    """A forged impression."""
    values: dict[str, object] = {"kind": IMPRESSION, "reason": "forged token", **fields}
    return Refusal(id=id_, received_at=received_at, **values)  # type: ignore[arg-type]


async def test_refused_events_are_kept_once(ledger: Ledger) -> None:
    """Newest first, of one campaign or of all, as they were first told."""
    first = refusal("a", 1.5, campaign_id="c-1", detail="pixel 192.0.2.1 'ünïcode'", kind=CLICK)
    second, third = refusal("b", 3.0), refusal("c", 2.0, campaign_id="c-1")
    await ledger.refuse([third, first])
    await ledger.refuse([refusal("a", 9.0), second])
    await ledger.refuse([])
    assert await ledger.refusals() == [second, third, first]
    assert await ledger.refusals("c-1") == [third, first]
    assert await ledger.refusals(since=2.0, limit=1) == [second]
    assert await ledger.refusals("c-1", since=1.6) == [third]


async def test_refused_events_are_forgotten_in_slices(ledger: Ledger) -> None:
    """Those from before a time, and those beyond the newest so many, the oldest first; then nothing more."""
    await ledger.refuse([refusal(f"r{n:02d}", float(n)) for n in range(20)])
    assert await ledger.forget_refusals(before=5.0, keep=100, limit=3) == 3
    assert [one.id for one in await ledger.refusals()][-1] == "r03"
    assert await ledger.forget_refusals(before=5.0, keep=100, limit=3) == 2
    assert await ledger.forget_refusals(before=5.0, keep=100, limit=3) == 0
    assert await ledger.forget_refusals(before=0.0, keep=4, limit=100) == 11
    assert [one.id for one in await ledger.refusals()] == ["r19", "r18", "r17", "r16"]
    assert await ledger.forget_refusals(before=0.0, keep=4, limit=100) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_performance_agrees_with_a_count_by_hand(ledger: Ledger, seed: int) -> None:
    """Of rows at random, repeated ones among them, for any choice of campaigns and dates."""
    dice = random.Random(seed)
    kinds = {WIN: "wins", IMPRESSION: "impressions", CLICK: "clicks", CONVERSION: "conversions"}
    kept: dict[str, LedgerRow] = {}
    for _ in range(5):
        batch = [
            row(
                f"k{dice.randrange(300)}",
                dice.randrange(100),
                kind=dice.choice(list(kinds)),
                campaign_id=f"c-{dice.randrange(3)}",
                date=f"2026-11-{dice.randrange(20, 24)}",
                instance=f"i-{dice.randrange(2)}",
                value_nanos=dice.randrange(50),
            )
            for _ in range(100)
        ]
        assert set(await ledger.append(batch, epochs={})) == {one.key for one in batch} & kept.keys()
        for one in batch:
            kept.setdefault(one.key, one)
    names, since = ["c-0", "c-2"], "2026-11-22"
    expected: dict[tuple[str, str, str], dict[str, int]] = {}
    for one in kept.values():
        if one.campaign_id in names and one.date >= since:
            sums = expected.setdefault((one.campaign_id, one.date, one.instance), dict.fromkeys(kinds.values(), 0))
            sums[kinds[one.kind]] += 1
            sums["cost_nanos"] = sums.get("cost_nanos", 0) + one.charged_nanos
            sums["revenue_nanos"] = sums.get("revenue_nanos", 0) + one.value_nanos
    found = await ledger.performance(names, since=since)
    assert list(found) == [Performed(*key, Counters(**sums)) for key, sums in sorted(expected.items())]
