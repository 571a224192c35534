"""The ledgers under contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from rtb.adapters.memory_ledger import MemoryLedger
from rtb.ports import Ledger

OpenLedger = Callable[[], Awaitable[Ledger]]


@asynccontextmanager
async def memory_ledgers(_request: pytest.FixtureRequest) -> AsyncIterator[OpenLedger]:
    """One ledger, shared in the process."""
    ledger = MemoryLedger()

    async def connect() -> Ledger:
        return ledger

    yield connect


LEDGERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[OpenLedger]]] = {
    "memory": memory_ledgers,
}
