"""Contract of ports.Ledger."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from rtb.errors import StaleEpoch
from rtb.ports import Instance, Ledger, LedgerKind, LedgerRow
from tests.contract.ledgers import OpenLedger

DAY = "2026-11-22"


def row(key: str, charged_nanos: int = 5, **fields: object) -> LedgerRow:
    """An impression that was paid for in full."""
    values: dict[str, object] = {
        "kind": LedgerKind.IMPRESSION,
        "campaign_id": "c-1",
        "day": DAY,
        "auction_id": f"auction of {key}",
        "impid": "1",
        "instance": "i-1",
        "price_nanos": charged_nanos,
        "expires_at": 1_795_305_660.25,
        "received_at": 1_795_305_600.5,
    }
    return LedgerRow(key=key, charged_nanos=charged_nanos, **{**values, **fields})  # type: ignore[arg-type]


async def everything(ledger: Ledger, since: float = 0.0, chunk: int = 10_000) -> list[LedgerRow]:
    """All rows in one list."""
    return [row async for part in ledger.rows(since=since, chunk=chunk) for row in part]


async def test_rows_come_back_as_they_were_written(ledger: Ledger) -> None:
    """Every field survives: every kind, amounts of the size of a budget, text of any script, quotes and line ends."""
    rows = [
        row("a", 1, kind=LedgerKind.WIN, price_nanos=9_000_000_000_000_000),
        row("b", 9_000_000_000_000_000, kind=LedgerKind.IMPRESSION),
        row("c", 0, kind=LedgerKind.CLICK, price_nanos=7, reason="the limit is reached: 'ünïcode' \"☂\", a\\b\tc\nd"),
        row(
            "d",
            3,
            kind=LedgerKind.CONVERSION,
            campaign_id="rich-Ünïcode-☂",
            impid="",
            instance="i-☂",
            date="2026-11-23",
            event_id="☂",
            creative_id="banner 'ü'",
            user="0123456789abcdef",
            value_nanos=9_000_000_000_000_000,
            attributed="click",
        ),
    ]
    assert await ledger.append(rows, epochs={}) == {}
    assert await everything(ledger) == rows


async def test_a_known_key_is_left_out(ledger: Ledger) -> None:
    """Of several rows with one key the first stays, in one call or in several; the keys that stood there before the
    call are told, each with the message that brought it."""
    assert await ledger.append([row("a", 1, event_id="e1"), row("a", 2, event_id="e2"), row("b", 3)], epochs={}) == {}
    assert await ledger.append([row("b", 4, event_id="e3"), row("c", 5)], epochs={}) == {"b": ""}
    assert await ledger.append([row("a", 6, event_id="e4"), row("b", 6)], epochs={}) == {"a": "e1", "b": ""}
    assert await ledger.append([], epochs={}) == {}
    assert await ledger.charged(["c", "a", "b", "nobody"]) == {"a": 1, "b": 3, "c": 5}
    assert await ledger.charged([]) == {}


async def test_spent_is_the_sum_of_charges(ledger: Ledger) -> None:
    """Sums go by campaign and budget day; what was left out for its known key does not count, what was free does."""
    assert await ledger.spent() == {}
    rows = [
        row("a", 10),
        row("b", 5),
        row("c", 7, campaign_id="c-2"),
        row("d", 4_000_000_000_000_000, day="2026-11-23"),
    ]
    await ledger.append(rows, epochs={})
    await ledger.append([row("a", 100), row("e", 4_000_000_000_000_000, day="2026-11-23")], epochs={})
    await ledger.append([row("f", 0, campaign_id="c-3")], epochs={})
    assert await ledger.spent() == {
        ("c-1", DAY): 15,
        ("c-2", DAY): 7,
        ("c-1", "2026-11-23"): 8_000_000_000_000_000,
        ("c-3", DAY): 0,
    }


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
async def test_rows_come_in_chunks_from_a_time_on(ledger: Ledger, chunk: int) -> None:
    """Rows received at or after a time come once each, ordered by that time and then by key, never an empty list."""
    times = {"e": 10.0, "a": 30.25, "B": 20.0, "d": 20.0, "c": 20.0, "f": 5.0}
    await ledger.append([row(key, received_at=at) for key, at in times.items()], epochs={})
    parts = [part async for part in ledger.rows(since=10.0, chunk=chunk)]
    assert all(0 < len(part) <= chunk for part in parts)
    assert [r.key for part in parts for r in part] == ["e", "B", "c", "d", "a"]
    assert [r.key for r in await everything(ledger, since=20.001)] == ["a"]
    assert await everything(ledger, since=31.0) == []


async def test_a_large_call_is_one_call(ledger: Ledger) -> None:
    """More rows than a database takes in one statement are written and looked up in one call."""
    keys = [f"k-{n:05d}" for n in range(20_001)]
    assert await ledger.append([row(key, n) for n, key in enumerate(keys)], epochs={}) == {}
    assert await ledger.charged(keys) == {key: n for n, key in enumerate(keys)}
    assert len(await everything(ledger, chunk=7_000)) == 20_001


async def test_an_older_epoch_commits_nothing(ledger: Ledger) -> None:
    """After a new epoch has begun behind one of the fences, rows billed under another one are refused, all of the call;
    billed again, they are written. Other fences do not matter."""
    assert await ledger.epochs(["c-1", "c-2"]) == {"c-1": 0, "c-2": 0}
    assert await ledger.raise_epochs(["c-1", "c-2"]) == {"c-1": 1, "c-2": 1}
    await ledger.append([row("a")], epochs={"c-1": 1})
    assert await ledger.raise_epochs(["c-1"]) == {"c-1": 2}
    assert await ledger.epochs(["c-1", "c-2"]) == {"c-1": 2, "c-2": 1}
    for epoch in (0, 1, 3):
        with pytest.raises(StaleEpoch):
            await ledger.append([row("b"), row("a")], epochs={"c-2": 1, "c-1": epoch})
    with pytest.raises(StaleEpoch):
        await ledger.append([row("b")], epochs={"unknown": 1})
    assert [r.key for r in await everything(ledger)] == ["a"]
    assert await ledger.append([row("b")], epochs={"c-1": 2, "c-2": 1}) == {}
    assert await ledger.append([row("c")], epochs={"c-2": 1}) == {}


async def test_who_raises_the_epoch_sees_every_older_row(ledgers: OpenLedger) -> None:
    """Appends race with new epochs: once raise_epochs has returned, no row billed under an older epoch appears any
    more, and each append either is there in full or was refused in full."""
    writers, raiser = [await ledgers() for _ in range(3)], await ledgers()
    stop = asyncio.Event()
    written: set[str] = set()
    refused: set[str] = set()

    async def write(name: int, ledger: Ledger) -> None:
        number = 0
        while not stop.is_set():
            epochs, number = await ledger.epochs(["c-1", "c-2"]), number + 1
            keys = [f"{name}-{number}-{part}" for part in "abc"]
            try:
                await ledger.append([row(key, instance=str(epochs["c-1"])) for key in keys], epochs=epochs)
                written.update(keys)
            except StaleEpoch:
                refused.update(keys)
            await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(write(n, ledger)) for n, ledger in enumerate(writers)]
    seen: dict[int, set[str]] = {}
    for _ in range(20):
        epoch = (await raiser.raise_epochs(["c-1"]))["c-1"]
        seen[epoch] = {r.key for r in await everything(raiser) if int(r.instance) < epoch}
        await asyncio.sleep(0)
    stop.set()
    await asyncio.gather(*tasks)
    final = await everything(raiser)
    assert {r.key for r in final} == written
    assert not written & refused
    for epoch, keys in seen.items():
        assert {r.key for r in final if int(r.instance) < epoch} == keys


async def test_a_cancelled_append_is_whole_or_absent(ledger: Ledger) -> None:
    """Whenever its caller gives up, all rows of a call are there or none, and the ledger goes on."""
    for number in range(30):
        rows = [row(f"{number:02d}-{part}") for part in "abc"]
        appending = asyncio.ensure_future(ledger.append(rows, epochs={"c-1": 0}))
        for _ in range(number):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
    found = [r.key for r in await everything(ledger)]
    batches = {key[:2] for key in found}
    assert found == [f"{batch}-{part}" for batch in sorted(batches) for part in "abc"]
    missing = [row(f"{number:02d}-{part}") for number in range(30) for part in "abc"]
    assert set(await ledger.append(missing, epochs={"c-1": 0})) == set(found)


async def test_writers_of_the_same_keys_do_not_disturb_each_other(ledgers: OpenLedger) -> None:
    """Daemons that bill the same events at once, in any order, write each once and none fails."""
    keys = [f"k-{n:03d}" for n in range(300)]
    daemons = [await ledgers() for _ in range(3)]
    known = await asyncio.gather(
        *(
            daemon.append([row(key) for key in (keys if n % 2 else keys[::-1])], epochs={})
            for n, daemon in enumerate(daemons * 4)
        )
    )
    assert sum(300 - len(each) for each in known) == 300
    assert sorted(r.key for r in await everything(daemons[0])) == keys
    assert await daemons[1].spent() == {("c-1", DAY): 1_500}


async def test_epochs_raised_at_once_differ(ledgers: OpenLedger) -> None:
    """Every rebuild gets an epoch of its own, also of many fences in any order, and the first of all is 1."""
    first, second = await ledgers(), await ledgers()
    fences = [f"c-{n:03d}" for n in range(50)]
    raised = await asyncio.gather(
        *(ledger.raise_epochs(fences if n % 2 else fences[::-1]) for n, ledger in enumerate([first, second] * 3))
    )
    for fence in fences:
        assert sorted(epochs[fence] for epochs in raised) == [1, 2, 3, 4, 5, 6]


async def test_spent_of_some_campaigns_from_a_day_on(ledger: Ledger) -> None:
    """Only these campaigns, and no older day; days of another form sort as text does."""
    days = [("c-1", "2026-11-21"), ("c-1", DAY), ("c-1", "life"), ("c-2", DAY), ("c-3", ""), ("c-3", DAY)]
    await ledger.append([row(f"k{n}", n + 1, campaign_id=c, day=d) for n, (c, d) in enumerate(days)], epochs={})
    assert await ledger.spent(["c-1", "c-3"], since_day=DAY) == {("c-1", DAY): 2, ("c-1", "life"): 3, ("c-3", DAY): 6}
    assert await ledger.spent(["c-3"]) == {("c-3", ""): 5, ("c-3", DAY): 6}
    assert await ledger.spent([]) == {}
    assert len(await ledger.spent(since_day=DAY)) == 4


async def test_spent_without_some_rows(ledger: Ledger) -> None:
    """Keys that are left out count nothing, those that are not there change nothing."""
    await ledger.append([row("a", 10), row("b", 5), row("c", 7, campaign_id="c-2")], epochs={})
    assert await ledger.spent(["c-1"], without=["b", "later"]) == {("c-1", DAY): 10}
    assert (await ledger.spent(without={"a", "b"}))["c-2", DAY] == 7


async def test_instances_register_and_leave(ledger: Ledger) -> None:
    """An instance is listed from its registration on, with the time it was last seen, until it leaves."""
    assert list(await ledger.instances()) == []
    first, second = Instance("b", 10.5), Instance("a", 20.0)
    await ledger.register(first)
    await ledger.register(second)
    await ledger.register(replace(first, seen_at=30.25))
    assert list(await ledger.instances()) == [second, Instance("b", 30.25)]
    await ledger.deregister("b")
    await ledger.deregister("b")
    assert list(await ledger.instances()) == [second]
