"""A server process is started and ended within its limits, or it is said why not."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from rtb.lab.servers.process import PORT_RANGE, ServerFailed, ServerProcess, accepts, free_port

LISTENS = "import socket, time; listener = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + LISTENS


def python(folder: Path, text: str) -> ServerProcess:
    return ServerProcess("server", [sys.executable, "-c", text], folder, {})


def test_it_runs_until_it_is_stopped(tmp_path: Path) -> None:
    """It answers when `start` returns, and no longer when `stop` does; then it can be started again."""
    port = free_port()
    server = python(tmp_path, LISTENS.format(port=port))
    for _ in range(2):
        server.start(lambda: accepts(port))
        assert accepts(port)
        server.stop()
        assert not accepts(port)


def test_one_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    """The error has the exit code and its last words."""
    server = python(tmp_path, "raise SystemExit('no disk')")
    with pytest.raises(ServerFailed, match="server did not start, it ended with code 1: no disk"):
        server.start(lambda: False)


def test_one_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    """After the limit."""
    server = python(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ServerFailed, match=r"did not answer in 0\.1 s: it said nothing"):
        server.start(lambda: False, 0.1)
    server.stop()  # it is gone


def test_somebody_else_on_its_port_is_not_taken_for_it(tmp_path: Path) -> None:
    """It is not even started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerFailed, match="somebody answers on its port"):
            python(tmp_path, LISTENS.format(port=port)).start(lambda: accepts(port))


def test_one_that_does_not_want_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit of `stop`, and frozen or not."""
    monkeypatch.setattr("rtb.lab.servers.process.STOP_LIMIT_S", 0.1)
    port = free_port()
    server = python(tmp_path, DEAF.format(port=port))
    server.start(lambda: accepts(port))
    server.pause()
    server.stop()
    assert not accepts(port)


def test_ports_are_no_outgoing_connections_and_differ() -> None:
    """A server's port stays its own while it is down."""
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    first = int(PORT_RANGE.read_text().split()[0])
    assert max(ports) < first
