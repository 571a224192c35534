"""The real ``rtb`` in processes of its own: daemons on free ports, and commands."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from rtb.openrtb import BidResponse
from tests.support.http import Response, fetch, post
from tests.support.lines import Lines

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
"""The longest anything here takes on a busy machine; only a failure waits for it."""

NO_ENVIRONMENT: Mapping[str, str] = {}
# On a busy machine the loop is late by more than 20 ms now and then, and the last of many auctions has its turn seconds
# after it came; a test says so when it wants requests to be shed, or a deadline to be reached.
SETTINGS = """
[auction]
deadline_ms = 30000
[http]
port = 0
shed_after_ms = 0
[dashboard]
open_on_loopback = true
port = 0
[store]
url = "sqlite:///rtb.db"
[admin]
socket = "rtb.sock"
"""
COMPLAINTS = ("Traceback", "Warning:", "Exception ignored", "was never", "was destroyed", "[error", "[critical")


class Result(Struct):
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, decoded."""
        return msgspec.json.decode(self.out)


def start(folder: Path, *arguments: str, environment: Mapping[str, str] = NO_ENVIRONMENT) -> subprocess.Popen[bytes]:
    """Start ``rtb`` in `folder` with the settings in its rtb.toml (made when missing: free ports, own files)."""
    settings = folder / "rtb.toml"
    if not settings.exists():
        settings.write_text(SETTINGS)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RTB_", "PYTHON"))}
    return subprocess.Popen(
        [sys.executable, "-m", "rtb", *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", "RTB_CONFIG": "rtb.toml", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes], given: bytes = b"") -> Result:
    """Wait for a command to end; one that hangs is ended by SIGABRT, and its stderr tells where it hung."""
    try:
        out, err = process.communicate(given, LIMIT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        out, err = process.communicate()
    return Result(process.returncode, out.decode(), err.decode())


def run(folder: Path, *arguments: str, given: bytes = b"", environment: Mapping[str, str] = NO_ENVIRONMENT) -> Result:
    """Run an ``rtb`` command in `folder`, with `given` on its stdin."""
    return finish(start(folder, *arguments, environment=environment), given)


class Daemon:
    """A daemon from its start to its end; use it as a context manager. At the end it must not have complained.

    Its start takes a slow machine's time. A test with a connection to a broker of its own starts it in a thread, ``with
    await asyncio.to_thread(Daemon, folder) as daemon``: a loop that stands still sends no heartbeats, and the broker
    would leave it.
    """

    def __init__(self, folder: Path, *settings: str, command: Sequence[str] = ("serve",)) -> None:
        """Start it in `folder` with ``section.key=value`` settings, and wait for its ready line."""
        self.folder = folder
        overrides = [part for setting in settings for part in ("--set", setting)]
        self.process = start(folder, *command, *overrides)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)
        try:
            self.ready = self.out.wait_for(lambda line: line.startswith("ready "), LIMIT_S)
        except AssertionError:
            self.kill()
            raise AssertionError(f"the daemon did not become ready:\n{self.err}") from None
        self.facts = dict(part.split("=", 1) for part in self.ready.split()[1:])

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop it if it still runs; a daemon that was stopped or killed by the test is left as it is."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        self.wait()
        if error is None:
            assert self.complaints() == []

    @property
    def url(self) -> str:
        """Of the exchange."""
        return self.facts["http"]

    @property
    def dashboard(self) -> str:
        """Of the dashboard."""
        return self.facts["dashboard"]

    def complaints(self) -> list[str]:
        """What a healthy daemon does not print, whatever its clients do."""
        return [line for line in self.err.all() if any(word in line for word in COMPLAINTS)]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, by its process id."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended; one that does not end is killed and gives -9."""
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.out.close()
        self.err.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.returncode

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        """SIGKILL; its exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def run(self, *arguments: str, given: bytes = b"") -> Result:
        """Run an ``rtb`` command that finds this daemon through its admin socket."""
        return run(self.folder, *arguments, given=given)

    def admin(self, command: str, **arguments: Any) -> Any:
        """What the admin API answers: faster than a process for what is not a test of the command line."""
        connection = http.client.HTTPConnection("rtb", timeout=LIMIT_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(short_address(self.folder / self.facts["admin"]))
            connection.request("POST", f"/{command}", msgspec.json.encode(arguments))
            return msgspec.json.decode(connection.getresponse().read())
        finally:
            connection.close()

    def put_campaigns(self, *campaigns: Mapping[str, Any]) -> None:
        """Insert or replace campaigns."""
        assert self.admin("campaigns.import", campaigns=campaigns) == {"result": {"written": len(campaigns)}}

    def auction(self, request: Mapping[str, Any]) -> Response:
        """Have a bid request auctioned over HTTP."""
        return fetch(self.url, post(msgspec.json.encode(request)))


def bids(response: Response) -> BidResponse:
    """The bid response in a 200."""
    assert response.status == 200, response
    return msgspec.json.decode(response.body, type=BidResponse)


def short_address(path: Path) -> str:
    """A path that a unix socket's address can hold: the shorter of the absolute one and the one from here."""
    return min(str(path), os.path.relpath(path), key=len)
