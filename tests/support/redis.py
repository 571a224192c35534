"""Redis for tests. Import the fixtures into the conftest.py beside the tests that use them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rtb.lab.servers.redis import RedisServer

MakeRedis = Callable[..., RedisServer]


def _skip_without_redis() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine: apt-get install redis-server")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server that many tests share: it is never killed, frozen or emptied, so keys carry a test's prefix."""
    _skip_without_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[MakeRedis]:
    """Starts servers of the test's own, which it may kill: ``make_redis(settings={"maxmemory": "2mb"})``."""
    _skip_without_redis()
    servers: list[RedisServer] = []

    def make(**options: object) -> RedisServer:
        server = RedisServer(tmp_path, **options)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.kill()
