"""RabbitMQ for tests. tests/conftest.py makes the fixtures known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rtb.lab.servers.certificates import Certificates
from rtb.lab.servers.rabbitmq import RabbitServer, is_installed

MakeRabbit = Callable[..., RabbitServer]


def _skip_without_rabbitmq() -> None:
    if not is_installed():
        pytest.skip("no rabbitmq-server on this machine: apt-get install rabbitmq-server")


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A running node that many tests share: it is never killed or frozen, so names carry a test's prefix, or a test
    has a virtual host of its own (``rabbit_server.add_vhost``)."""
    _skip_without_rabbitmq()
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        yield server


@pytest.fixture
def make_rabbit(tmp_path: Path) -> Iterator[MakeRabbit]:
    """Makes nodes of the test's own, not started, which it may kill: ``make_rabbit(management=True)``."""
    _skip_without_rabbitmq()
    with ExitStack() as stack:

        def make(*, management: bool = False, certificates: Certificates | None = None) -> RabbitServer:
            server = RabbitServer(tmp_path, management=management, certificates=certificates)
            stack.callback(server.stop)  # and its epmd
            stack.callback(server.kill)
            return server

        yield make
