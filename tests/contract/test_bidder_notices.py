"""A notice that is called at one instance and concerns a sale of another, over every broker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from rtb.adapters.clock import SystemClock
from rtb.adapters.spool import FileSpool
from rtb.domain.campaign import Pricing
from rtb.domain.tracking import Keys, Signer, Ticket
from rtb.edges.bidder_notices import BidderNotices
from rtb.errors import BrokerError, Unroutable
from rtb.ports import Broker, Message
from rtb.services import topology
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from rtb.services.tracker import Refused, Tracker, Visit
from tests.contract.brokers import PATIENCE_S, Connect

SIGNER = Signer(Keys({1: b"k" * 16}, 1), b"i" * 16)


class Daemon:
    """An instance that knows the sales of some auctions, and keeps what it is told of them."""

    def __init__(self, broker: Broker, name: str, folder: Path, *sales: str) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.name = name
        self._sales = sales
        self._news = asyncio.Event()
        clock = SystemClock()
        metrics = Metrics(name, clock)
        self.outbox = Outbox(broker, FileSpool(folder / name), metrics)
        self.tracker = Tracker(
            SIGNER,
            self.outbox.post,
            clock,
            instance=name,
            on_won=lambda *told: self._tell("won", *told),
            on_lost=lambda *told: self._tell("lost", *told),
            on_billed=lambda *told: self._tell("billed", *told),
        )
        self.inbox = BidderNotices(broker, self.tracker, metrics, instance=name)

    async def start(self) -> None:
        await self.outbox.start()
        await self.inbox.start()

    async def stop(self) -> None:
        await self.inbox.stop()
        await self.outbox.stop()

    async def hears(self, count: int) -> None:
        """Return once so many notices have come, of whatever sale."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()

    async def call(self, kind: str, auction_id: str, seller: str) -> Refused | BrokerError | None:
        """What becomes of our own nurl, burl or lurl when it is called here."""
        ticket = Ticket(auction_id, "1", "", "", "", seller, Pricing.CPM, 0, 0, won_at=1.0, expires_at=2.0)
        answer: asyncio.Future[BrokerError | None] = asyncio.get_running_loop().create_future()
        token = SIGNER.token(ticket)
        if kind == "billing":
            visit = Visit(1.0, "burl", ua="ua", ip="192.0.2.1")
            refused = self.tracker.bill(token, visit, answer.set_result)
        else:
            refused = self.tracker.notice(kind, token, answer.set_result, 105)
        return refused or await asyncio.wait_for(answer, PATIENCE_S)

    def _tell(self, *told: Any) -> bool:
        self.told.append(told)
        self._news.set()
        return told[1] in self._sales


async def test_the_instance_that_sold_is_told(connect: Connect, tmp_path: Path, prefix: str) -> None:
    """Whichever instance is called: with what was told, once; and whoever called hears that it is well."""
    seller = Daemon(await connect(), f"{prefix}-seller", tmp_path, "a1")
    other = Daemon(await connect(), f"{prefix}-other", tmp_path)
    await seller.start()
    await other.start()
    for kind in ("win", "billing", "loss"):
        assert await other.call(kind, "a1", seller.name) is None
    await seller.hears(3)
    assert seller.told == [("won", "a1", "1"), ("billed", "a1", "1", "192.0.2.1", "ua"), ("lost", "a1", "1", 105)]
    assert other.tracker.forwarded == {"win": 1, "loss": 1, "billing": 1}
    assert (other.tracker.refused, seller.tracker.refused) == ({}, {})
    assert await seller.call("win", "a1", seller.name) is None
    assert seller.tracker.forwarded == {"win": 0, "loss": 0, "billing": 0}
    await seller.stop()
    await other.stop()


async def test_a_sale_that_is_not_remembered_is_counted(connect: Connect, tmp_path: Path, prefix: str) -> None:
    """Where it was sold; it does not come back."""
    seller = Daemon(await connect(), f"{prefix}-seller", tmp_path)
    other = Daemon(await connect(), f"{prefix}-other", tmp_path)
    await seller.start()
    await other.start()
    assert await other.call("billing", "a1", seller.name) is None
    await seller.hears(1)
    assert seller.tracker.refused == {("billing", "no such sale is remembered"): 1}
    assert seller.tracker.forwarded["billing"] == 0
    assert await seller.call("win", "a2", seller.name) is Refused.FORGOTTEN
    await seller.stop()
    await other.stop()


async def test_an_instance_that_is_gone_is_counted(connect: Connect, tmp_path: Path, prefix: str) -> None:
    """Its queue ended with it: whoever calls hears so, and nothing is kept for it."""
    home = await connect()
    seller = Daemon(home, f"{prefix}-seller", tmp_path, "a1")
    other = Daemon(await connect(), f"{prefix}-other", tmp_path)
    await seller.start()
    await other.start()
    assert await other.call("win", "a1", seller.name) is None
    await seller.stop()
    await home.close()
    assert isinstance(await other.call("win", "a1", seller.name), Unroutable)
    assert other.tracker.refused == {("win", "the instance that sold it is gone"): 1}
    assert other.outbox.waiting == 0
    await other.stop()


async def test_nonsense_does_not_stop_the_queue(connect: Connect, tmp_path: Path, prefix: str) -> None:
    """What is no notice is counted, and the next one is heard."""
    broker = await connect()
    seller = Daemon(broker, f"{prefix}-seller", tmp_path, "a1")
    other = Daemon(await connect(), f"{prefix}-other", tmp_path)
    await seller.start()
    await other.start()
    await broker.publish("", topology.notice_queue(seller.name), Message(body=b"{"))
    assert await other.call("win", "a1", seller.name) is None
    await seller.hears(1)
    assert seller.told == [("won", "a1", "1")]
    await seller.stop()
    await other.stop()
