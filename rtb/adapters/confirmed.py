"""A publish that is waited for, made of one that calls back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rtb.errors import BrokerError
from rtb.ports.broker import Answer


async def confirmed(send: Callable[[Answer], None]) -> None:
    """Send, and wait for the answer; cancelled, the message goes its way all the same.

    Raises:
        BrokerError: the answer.
    """
    future = asyncio.get_running_loop().create_future()

    def done(error: BrokerError | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    send(done)
    await future
