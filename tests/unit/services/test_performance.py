"""Performance: what the dashboards are told without I/O, and how it stays true."""

from __future__ import annotations

import asyncio

import pytest

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.performance import NOTHING, Counters, Performed, total
from rtb.errors import StoreError
from rtb.messages import PERFORMANCE_UPDATE, MessageType, PerformanceUpdate
from rtb.ports import LedgerKind, LedgerRow, Message
from rtb.services import topology
from rtb.services.performance import Performance

NOW = 1_795_305_600.0  # 2026-11-22 00:00 UTC
DAY = "2026-11-22"


class Net:
    """Daemons that write to one ledger and tell each other, by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.ledger = MemoryLedger()
        self.posted: list[tuple[PerformanceUpdate, str]] = []
        self.messages = 0
        self._rows = 0

    def daemon(self, name: str, **options: int) -> Performance:
        """One of them, not started."""
        return Performance(self.ledger, self.clock, instance=name, post=self.post, **options)

    def post(self, exchange: str, routing_key: str, message: Message) -> None:
        """Remember what is told."""
        assert (exchange, routing_key) == topology.ROUTES[MessageType.PERFORMANCE_UPDATE]
        envelope = messages.decode(message.body)
        self.posted += PERFORMANCE_UPDATE.decode(envelope.data).each(envelope.message_id)
        self.messages += 1

    async def write(self, daemon: Performance | None, kind: str = "impression", cost: int = 5, **fields: str) -> None:
        """A row, written by a daemon, or by nobody who tells."""
        self._rows += 1
        row = LedgerRow(
            key=f"k{self._rows}",
            kind=LedgerKind(kind),
            campaign_id=fields.get("campaign_id", "c"),
            day=DAY,
            auction_id="a",
            impid="1",
            instance=fields.get("instance", "i"),
            price_nanos=cost,
            charged_nanos=cost,
            expires_at=NOW,
            received_at=self.clock.time(),
            date=fields.get("date", DAY),
            value_nanos=11 if kind == "conversion" else 0,
        )
        await self.ledger.append([row], epochs={})
        if daemon is not None:
            daemon.note([row])

    async def tell(self, teller: Performance, *hearers: Performance, times: int = 1) -> None:
        """What is untold reaches everybody, so often."""
        self.posted.clear()
        await teller.tell()
        for _ in range(times):
            for update, message_id in self.posted:
                for hearer in (teller, *hearers):
                    hearer.hear(update, message_id)


async def test_every_daemon_knows_what_all_did() -> None:
    """One's own rows count at once, those of others when they are told; however often they are told."""
    net = Net()
    one, two = net.daemon("one"), net.daemon("two")
    for kind in ("win", "impression", "impression", "click", "conversion"):
        await net.write(one, kind)
    await net.write(two)
    assert one.current("c") == Counters(1, 2, 1, 1, 25, 11)
    await net.tell(one, two, times=3)
    await net.tell(two, one)
    assert one.current("c") == two.current("c", DAY) == Counters(1, 3, 1, 1, 30, 11)
    assert (two.repeated, one.current("nobody"), one.current("c", "2026-11-21")) == (2, NOTHING, NOTHING)


async def test_what_many_campaigns_did_is_told_in_few_messages() -> None:
    """A hundred in a message; heard twice, each counts once."""
    net = Net()
    one, two = net.daemon("one"), net.daemon("two")
    names = [f"c{number}" for number in range(201)]
    for name in names:
        await net.write(one, campaign_id=name)
    await net.tell(one, two, times=2)
    assert (net.messages, len({message_id for _, message_id in net.posted})) == (3, 201)
    assert [two.current(name) for name in names] == [Counters(impressions=1, cost_nanos=5)] * 201
    assert two.repeated == 201


async def test_a_lost_update_heals() -> None:
    """The next refresh reads the ledger: of what was active, by whoever it was written."""
    net = Net()
    one = net.daemon("one")
    await net.write(one)
    await net.write(None)
    await net.write(None, campaign_id="d")
    await one.refresh()
    assert (one.current("c").impressions, one.current("d").impressions) == (2, 1)
    one.hear(PerformanceUpdate(campaign_id="c", impressions=1_000, day=DAY), "said by a liar")
    net.clock.advance(3_600)
    await one.refresh()
    assert one.current("c").impressions == 2


async def test_a_restart_begins_where_the_ledger_stands() -> None:
    """Also after the midnight of some time zone."""
    net = Net()
    await net.write(None, date="2026-11-21")
    await net.write(None)
    one = net.daemon("one")
    await one.start()
    assert one.current("c") == one.current("c", "2026-11-21") == Counters(impressions=1, cost_nanos=5)
    await net.write(one, "click")
    await one.stop()
    assert [update.clicks for update, _ in net.posted] == [1]


async def test_a_ledger_that_is_away_is_asked_again() -> None:
    """What was to be read is not forgotten."""

    class Away(MemoryLedger):
        away = True

        async def performance(self, *arguments: object, **options: object) -> list[Performed]:
            if self.away:
                raise StoreError("away")
            return list(await super().performance(*arguments, **options))  # type: ignore[arg-type]

    net = Net()
    net.ledger = ledger = Away()
    one = net.daemon("one")
    await net.write(one)
    await net.write(None)
    with pytest.raises(StoreError):
        await one.refresh()
    ledger.away = False
    net.clock.advance(86_400)
    await one.refresh()
    assert one.current("c", DAY).impressions == 2


async def test_the_truth_of_a_campaign_by_date_and_instance() -> None:
    """From the ledger, whatever is in memory; its parts add up."""
    net = Net()
    one = net.daemon("one")
    for date, instance in ((DAY, "a"), (DAY, "b"), ("2026-11-23", "a"), ("2026-11-24", "a")):
        await net.write(None, date=date, instance=instance)
    found = await one.stats("c", DAY, "2026-11-23")
    assert [(part.date, part.instance) for part in found] == [(DAY, "a"), (DAY, "b"), ("2026-11-23", "a")]
    assert total([part.counters for part in found]) == Counters(impressions=3, cost_nanos=15)


async def test_the_top_and_the_bounds() -> None:
    """The campaigns that cost most, each on a date of its own; beyond the bound those that were active longest ago are
    forgotten, and of one campaign all but the last dates."""
    net = Net()
    one = net.daemon("one", campaigns=3)
    for name, count in (("a", 4), ("b", 1), ("c", 3), ("d", 2)):
        for _ in range(count):
            await net.write(one, campaign_id=name)
    assert [(name, counters.cost_nanos) for name, counters in one.top(2, lambda name: DAY)] == [("c", 15), ("d", 10)]
    assert one.current("a") == NOTHING
    assert one.top(2, lambda name: "2026-11-23") == []
    assert [name for name, _ in one.top(2, lambda name: DAY if name != "c" else "2026-11-23")] == ["d", "b"]
    for day in range(23, 28):
        await net.write(one, campaign_id="d", date=f"2026-11-{day}")
    assert [one.current("d", f"2026-11-{day}").impressions for day in range(22, 28)] == [0, 0, 0, 1, 1, 1]


async def test_while_it_runs_it_tells_and_refreshes_by_itself() -> None:
    """What is written soon reaches the others; what was lost is soon read."""
    net = Net()
    told, read = asyncio.Event(), asyncio.Event()

    class Watched(MemoryLedger):
        async def performance(self, *arguments: object, **options: object) -> list[Performed]:
            read.set()
            return list(await super().performance(*arguments, **options))  # type: ignore[arg-type]

    net.ledger = Watched()
    one = Performance(
        net.ledger, net.clock, instance="one", post=lambda *what: told.set(), tell_s=0.001, refresh_s=0.001
    )
    await one.start()
    await net.write(one)
    await net.write(None)
    await asyncio.wait_for(told.wait(), 20)
    read.clear()
    await asyncio.wait_for(read.wait(), 20)
    await one.stop()
    assert one.current("c").impressions == 2
