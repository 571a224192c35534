"""Waiting with a limit, and ending tasks, so that no cancellation is lost and no end waits for ever.

`asyncio.wait_for` of Python 3.11 swallows a cancellation that meets the result (bpo-42130, bpo-37658). Whoever then
waits for the cancelled task waits for ever. Libraries beneath us use it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

AGAIN_S = 1.0


async def within(event: Awaitable[object], limit_s: float) -> bool:
    """Wait for it, at most so long; whether it came. A cancellation always gets through."""
    try:
        async with asyncio.timeout(limit_s):
            await event
    except TimeoutError:
        return False
    return True


async def ended(*tasks: asyncio.Task[Any], again_s: float = AGAIN_S) -> None:
    """Cancel tasks and return once they have ended; one that has lost its cancellation is cancelled again after
    `again_s`, and so on. Their results and errors are theirs."""
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=again_s)
