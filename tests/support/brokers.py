"""The in-process broker as a server that misbehaves: frozen, or refusing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rtb.adapters.memory_broker import MemoryBroker
from rtb.errors import BrokerError
from rtb.ports import Message


class MoodyBroker(MemoryBroker):
    """A connection whose publishes hang while it is frozen, and fail where it refuses them."""

    frozen: asyncio.Event | None = None
    refuses: Callable[[str, str, Message], bool] | None = None
    _calls = 0
    _called: asyncio.Event | None = None

    async def entered(self, calls: int) -> None:
        """Wait until publish was called so many times."""
        while self._calls < calls:
            self._called = asyncio.Event()
            await self._called.wait()

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Hang, refuse, or publish."""
        self._calls += 1
        if self._called is not None:
            self._called.set()
        if self.frozen is not None:
            await self.frozen.wait()
        if self.refuses is not None and self.refuses(exchange, routing_key, message):
            raise BrokerError("refused")
        await super().publish(exchange, routing_key, message, mandatory=mandatory)
