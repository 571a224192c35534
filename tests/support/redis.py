"""Redis for tests. tests/conftest.py makes the fixtures known."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rtb.lab.servers.process import PROBE_S, START_LIMIT_S, free_port
from rtb.lab.servers.redis import RedisServer

MakeRedis = Callable[..., RedisServer]
SLOTS = (("0", "5460"), ("5461", "10922"), ("10923", "16383"))


def _skip_without_redis() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine: apt-get install redis-server")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server that many tests share: it is never killed, frozen or emptied, so keys carry a test's prefix."""
    _skip_without_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A node of a running cluster of three, without replicas, that many tests share."""
    _skip_without_redis()
    folder = tmp_path_factory.mktemp("cluster")
    nodes: list[RedisServer] = []
    try:
        for slots in SLOTS:
            bus = str(free_port())
            node = RedisServer(folder, settings={"cluster-enabled": "yes", "cluster-port": bus})
            nodes.append(node)
            node.start()
            node.command("CLUSTER", "ADDSLOTSRANGE", *slots)
            nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        give_up = time.monotonic() + START_LIMIT_S
        while not all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes):
            assert time.monotonic() < give_up, "the cluster did not form"
            time.sleep(PROBE_S)
        yield nodes[0]
    finally:
        for node in nodes:
            node.kill()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[MakeRedis]:
    """Starts servers of the test's own, which it may kill: ``make_redis(settings={"maxmemory": "2mb"})``."""
    _skip_without_redis()
    with ExitStack() as stack:

        def make(**options: object) -> RedisServer:
            server = RedisServer(tmp_path, **options)  # type: ignore[arg-type]
            stack.callback(server.kill)
            server.start()
            return server

        yield make
