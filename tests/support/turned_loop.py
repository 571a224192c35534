"""A loop whose clock the test puts forward: what takes long, and a process that stood still, without waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class TurnedLoop(asyncio.SelectorEventLoop):
    """Time goes by as ever, and jumps when it is told."""

    _ahead_s = 0.0

    def time(self) -> float:
        """As the test has put it."""
        return super().time() + self._ahead_s

    async def turn(self, by_s: float) -> None:
        """Put the clock forward, as the loop sees it after it stood still for so long, and let it go on a few steps."""
        self._ahead_s += by_s
        for _ in range(10):
            await asyncio.sleep(0)


def on_turned_loop(test: Callable[[TurnedLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a loop of its own."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnedLoop)
        await test(loop)

    with asyncio.Runner(loop_factory=TurnedLoop) as runner:
        runner.run(run())
