"""The in-process broker as a server that misbehaves: frozen, or refusing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rtb.adapters.memory_broker import MemoryBroker
from rtb.errors import BrokerError
from rtb.ports import Message
from rtb.ports.broker import Answer
from rtb.ports.clock import TimerClock


class MoodyBroker(MemoryBroker):
    """A connection that answers nothing while it is frozen, and refuses what it is told to.

    What was sent while it was frozen is lost; whoever sent it hears so at the thaw. While it is silent it takes what is
    sent, and says so at `confirm`.
    """

    def __init__(self, clock: TimerClock) -> None:
        """In a good mood."""
        super().__init__(clock)
        self.frozen = self.silent = False
        self.refuses: Callable[[str, str, Message], bool] | None = None
        self._held: list[Answer] = []
        self._calls = 0
        self._called = asyncio.Event()

    async def entered(self, calls: int) -> None:
        """Wait until so many messages were sent."""
        while self._calls < calls:
            self._called.clear()
            await self._called.wait()

    def thaw(self) -> None:
        """Answer again."""
        self.frozen = False
        held, self._held = self._held, []
        for done in held:
            done(BrokerError("not confirmed"))

    def confirm(self) -> None:
        """Say what it was silent about."""
        self.silent = False
        held, self._held = self._held, []
        for done in held:
            done(None)

    def send(self, exchange: str, routing_key: str, message: Message, done: Answer, *, mandatory: bool = True) -> None:
        """Be silent, refuse, or publish."""
        self._calls += 1
        self._called.set()
        if self.frozen:
            self._held.append(done)
            return
        if self.refuses is not None and self.refuses(exchange, routing_key, message):
            done(BrokerError("refused"))
            return
        if self.silent:
            self._held.append(done)
            super().send(exchange, routing_key, message, _unheard, mandatory=mandatory)
            return
        super().send(exchange, routing_key, message, done, mandatory=mandatory)


def _unheard(error: BrokerError | None) -> None:
    assert error is None
