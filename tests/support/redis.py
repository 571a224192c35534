"""Redis for tests. tests/conftest.py makes the fixtures known."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rtb.lab.servers.process import PROBE_S, START_LIMIT_S, free_port
from rtb.lab.servers.redis import RedisRefused, RedisServer

MakeRedis = Callable[..., RedisServer]
NOTHING: Mapping[str, str] = {}
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


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster: primaries, each with a third of the slots, and a replica of each, or none."""

    primaries: list[RedisServer]
    replicas: list[RedisServer]

    def owner(self, key: str) -> RedisServer:
        """The primary, when the cluster was formed, of a key."""
        slot = int(self.primaries[0].command("CLUSTER", "KEYSLOT", key)[1:])
        return next(node for node, (_, last) in zip(self.primaries, SLOTS, strict=True) if slot <= int(last))


@contextmanager
def cluster(folder: Path, *, replicas: bool = False, settings: Mapping[str, str] = NOTHING) -> Iterator[Cluster]:
    """A running cluster."""
    made = Cluster([], [])
    with ExitStack() as stack:

        def node() -> RedisServer:
            bus = str(free_port())
            server = RedisServer(folder, settings={"cluster-enabled": "yes", "cluster-port": bus, **settings})
            stack.callback(server.kill)
            server.start()
            if made.primaries:
                made.primaries[0].command("CLUSTER", "MEET", "127.0.0.1", str(server.port), bus)
            return server

        for slots in SLOTS:
            made.primaries.append(node())
            made.primaries[-1].command("CLUSTER", "ADDSLOTSRANGE", *slots)
        if replicas:
            made.replicas.extend(node() for _ in SLOTS)
        nodes = [*made.primaries, *made.replicas]
        _until(lambda: all(f"cluster_known_nodes:{len(nodes)}" in _info(each) for each in nodes))
        for primary, replica in zip(made.primaries, made.replicas, strict=False):
            name = primary.command("CLUSTER", "MYID").split(b"\r\n")[1]
            _until(lambda replica=replica, name=name: _accepts(replica, "CLUSTER", "REPLICATE", name))  # type: ignore[misc]
        _until(lambda: all("cluster_state:ok" in _info(each) for each in nodes))
        _until(lambda: all(b"master_link_status:up" in each.command("INFO", "replication") for each in made.replicas))
        yield made


def _info(node: RedisServer) -> str:
    return node.command("CLUSTER", "INFO").decode()


def _accepts(node: RedisServer, *words: str | bytes) -> bool:
    """Whether a command is taken; a node that has not heard of the other one yet refuses it."""
    try:
        node.command(*words)
    except RedisRefused:
        return False
    return True


def _until(done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + START_LIMIT_S
    while not done():
        assert time.monotonic() < give_up, "the cluster did not form"
        time.sleep(PROBE_S)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A node of a running cluster of three, without replicas, that many tests share."""
    _skip_without_redis()
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made.primaries[0]


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own, which it may kill: three primaries with a replica each, which takes over about a
    second after its primary is gone."""
    _skip_without_redis()
    settings = {"cluster-node-timeout": "1000", "repl-diskless-sync-delay": "0", "cluster-replica-validity-factor": "0"}
    with cluster(tmp_path, replicas=True, settings=settings) as made:
        yield made


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
