"""Calls of the fan-out client, awaited."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rtb.adapters.http_client import Call, Endpoint, FanoutClient

LOCAL = ("127.0.0.0/8",)


def soon_ns(within_s: float = 20.0) -> int:
    """A deadline on the monotonic clock; the default is for tests in which none passes."""
    return time.monotonic_ns() + int(within_s * 1e9)


async def ask(client: FanoutClient, endpoint: Endpoint, body: bytes = b"{}", within_s: float = 20.0) -> Call:
    """One call, done."""
    answered: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
    client.call(endpoint, body, answered.set_result, soon_ns(within_s))
    return await asyncio.wait_for(answered, 25)


async def ask_all(client: FanoutClient, endpoint: Endpoint, count: int, **options: Any) -> list[Call]:
    """Calls at once."""
    return list(await asyncio.gather(*(ask(client, endpoint, **options) for _ in range(count))))
