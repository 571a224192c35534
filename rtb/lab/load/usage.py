"""CPU time and memory of the server under load."""

from __future__ import annotations

import http.client
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
import psutil  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds, user and system, since the processes started, and their resident bytes."""

    cpu_s: float
    rss_bytes: int


class Meter:
    """Reads a process and the descendants it has now; cheap enough to be read under load."""

    def __init__(self, pid: int) -> None:
        """Find them. A process that does not exist reads as None."""
        self.pid = pid
        try:
            root = psutil.Process(pid)
            self._processes = [root, *root.children(recursive=True)]
        except psutil.Error:
            self._processes = []

    def read(self) -> Usage | None:
        """What they used so far; None when one is gone or not ours to see."""
        cpu_s, rss_bytes = 0.0, 0
        try:
            for process in self._processes:
                times = process.cpu_times()
                cpu_s += times.user + times.system
                rss_bytes += process.memory_info().rss
        except psutil.Error:
            return None
        return Usage(cpu_s, rss_bytes) if self._processes else None


def own_cpu_s() -> float:
    """CPU seconds of this process."""
    times = os.times()
    return times.user + times.system


def find_pid(url: str) -> int | None:
    """The process that serves a local URL: what ``GET /healthz`` there says, else who listens on the port."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    return _told(host, port) or _listener(port)


def _told(host: str, port: int) -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return msgspec.json.decode(connection.getresponse().read(), type=_Health).pid
    except (OSError, http.client.HTTPException, msgspec.MsgspecError):
        return None
    finally:
        connection.close()


def _listener(port: int) -> int | None:
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    return next((s.pid for s in sockets if s.pid and s.status == psutil.CONN_LISTEN and s.laddr.port == port), None)


class _Health(msgspec.Struct):
    pid: int | None = None
