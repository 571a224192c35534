"""The budget protocol on Redis' own scripts, under whatever can go wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from rtb.adapters.clock import ManualClock
from rtb.lab.servers.redis import RedisServer
from tests.support.budget_world import World, find
from tests.support.budget_world_redis import KeptInRedis

WALKS = 120


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Rebuilds are not worth a line each."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_random_walks_on_redis_end_well(redis_server: RedisServer) -> None:
    """The walks of tests/unit/services/test_budget_protocol.py, with accounts that a restart loses or makes old."""
    worlds: list[KeptInRedis] = []

    def keep(clock: ManualClock) -> KeptInRedis:
        if worlds:
            worlds.pop().close()
        worlds.append(KeptInRedis(redis_server.url, clock))
        return worlds[-1]

    assert find(lambda: World(keep), WALKS, seed=20261122) is None
    worlds.pop().close()
