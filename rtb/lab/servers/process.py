"""One server process of our own: started in a folder, waited for, stopped, killed, frozen."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rtb.errors import RtbError

START_LIMIT_S = 180.0
STOP_LIMIT_S = 30.0
KILL_LIMIT_S = 30.0
PROBE_S = 0.05

FIRST_PORT = 10_000
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_handed_out: set[int] = set()


class ServerFailed(RtbError):
    """A server could not be started or ended; the message ends with its last words."""


class ServerProcess:
    """A process with its log in `folder`, in a session of its own so that a Ctrl-C does not reach it.

    Synchronous: tests start servers in fixtures; inside a running loop use `asyncio.to_thread`.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Describe it; `start` runs it."""
        self.name = name
        self.command = [*command]
        self.folder = folder
        self.environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(self, answers: Callable[[], bool], limit_s: float = START_LIMIT_S) -> None:
        """Run it and return once `answers()`.

        Raises:
            ServerFailed: it ended, or did not answer within the limit; or somebody else answers in its place.
        """
        if answers():
            raise ServerFailed(f"{self.name} was not started yet, and somebody answers on its port")
        log = self.folder / f"{self.name}.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        give_up = time.monotonic() + limit_s
        while not answers():
            code = self._process.poll()
            if code is not None or time.monotonic() > give_up:
                self.kill()
                what = f"did not answer in {limit_s:g} s" if code is None else f"ended with code {code}"
                raise ServerFailed(f"{self.name} did not start, it {what}: {_last_words(log)}")
            time.sleep(PROBE_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end and wait; kill it when it does not. Raises ServerFailed when even that does not end it."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.resume()
        process.send_signal(number)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL it and all it started, at once. Raises ServerFailed when that does not end it."""
        process = self._process
        if process is not None and process.poll() is None:
            self._signal_all(signal.SIGKILL)
            try:
                process.wait(KILL_LIMIT_S)
            except subprocess.TimeoutExpired:
                raise ServerFailed(f"{self.name} (pid {process.pid}) outlives SIGKILL by {KILL_LIMIT_S:g} s") from None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass


def free_port() -> int:
    """A TCP port that nobody listens on now, each time another one.

    Of those that the system gives to no outgoing connection, so that none takes it before the server does, or while the
    server is restarted; a client that tries it again and again meanwhile could even connect to itself.
    """
    last = int(PORT_RANGE.read_text().split()[0]) if PORT_RANGE.exists() else 0
    usable = [*{*range(FIRST_PORT, last)} - _handed_out]
    random.shuffle(usable)
    for port in [*usable[:100], 0]:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # taken
                continue
            found = int(probe.getsockname()[1])
            _handed_out.add(found)
            return found
    raise ServerFailed("no TCP port is free")


def accepts(port: int) -> bool:
    """Whether somebody listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return " | ".join(line.strip() for line in lines[-8:] if line.strip())[-600:] or "it said nothing"
