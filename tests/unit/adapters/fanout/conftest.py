"""The fan-out client on both loops: transports differ in how connections end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import pytest_asyncio
import uvloop

from rtb.adapters.clock import SystemClock
from rtb.adapters.http_client import FanoutClient
from tests.support.fanout import LOCAL


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this folder runs on each."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def client() -> AsyncIterator[FanoutClient]:
    """A client that may call this machine."""
    client = FanoutClient(SystemClock(), allow=LOCAL)
    client.start()
    yield client
    await client.close()
