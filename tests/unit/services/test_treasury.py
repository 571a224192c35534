"""The life of a daemon's budgets: what it says of itself in the ledger, whatever happens there."""

from __future__ import annotations

import asyncio

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.errors import StoreError
from rtb.ports import Instance
from rtb.services.budgets import Budgets
from rtb.services.rebuild import Registration
from rtb.services.treasury import Treasury


class FailingLedger(MemoryLedger):
    """A ledger that raises at the second and third registration, and tells when the fourth has come."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.count = 0
        self.fourth = asyncio.Event()
        self._error = error

    async def register(self, instance: Instance) -> None:
        """Register, or raise."""
        self.count += 1
        if self.count in (2, 3):
            raise self._error
        await super().register(instance)
        if self.count == 4:
            self.fourth.set()


@pytest.mark.parametrize("error", [StoreError("away"), RuntimeError("the driver's mistake")])
async def test_the_heartbeat_outlives_any_error(error: Exception) -> None:
    """Two beats fail; the next is heard. When it stops and holds nothing, the instance leaves."""
    clock = ManualClock()
    ledger = FailingLedger(error)
    treasury = Treasury(Budgets(clock), Registration(ledger, clock, "one"), interval_s=0.0)
    await treasury.start([])
    async with asyncio.timeout(10.0):
        await ledger.fourth.wait()
    assert [instance.id for instance in await ledger.instances()] == ["one"]
    await treasury.stop()
    assert await ledger.instances() == []
