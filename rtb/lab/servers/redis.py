"""A private Redis: a port and a folder of its own, nothing evicted, and on disk only what is asked for."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from rtb.errors import RtbError
from rtb.lab.servers.certificates import Certificates
from rtb.lab.servers.process import ServerProcess, free_port

ANSWER_LIMIT_S = 30.0


class RedisRefused(RtbError):
    """The server answered a command with an error; the message is its own."""


class Persistence(StrEnum):
    """What survives the process."""

    NONE = "none"
    APPENDONLY = "appendonly"  # every command, on disk before its reply
    RDB = "rdb"  # a snapshot at `stop` and on SAVE; what came after one is lost in a kill


_SETTINGS = {
    Persistence.NONE: {"save": "", "appendonly": "no"},
    Persistence.APPENDONLY: {"save": "", "appendonly": "yes", "appendfsync": "always"},
    Persistence.RDB: {"save": "3600 1000000", "appendonly": "no"},
}


class RedisServer:
    """One redis-server on 127.0.0.1; its port stays the same over restarts.

    Synchronous, as ServerProcess is: inside a running loop use `asyncio.to_thread`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistence: Persistence = Persistence.NONE,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """Describe a server that keeps its files in `folder`; `settings` are lines of redis.conf, as in
        ``{"maxmemory": "2mb"}``. With `certificates` it speaks TLS, too, on a port of its own."""
        self.port = free_port() if port is None else port
        self.tls_port = free_port() if certificates is not None else None
        self._data = folder / f"redis-{self.port}"
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._data),
            "maxmemory-policy": "noeviction",
            "databases": "16",
            **_SETTINGS[persistence],
            **(settings or {}),
        }
        if certificates is not None:
            lines |= {
                "tls-port": str(self.tls_port),
                "tls-cert-file": str(certificates.certificate),
                "tls-key-file": str(certificates.key),
                "tls-ca-cert-file": str(certificates.authority),
                "tls-auth-clients": "no",
            }
        options = [word for name, value in lines.items() for word in (f"--{name}", value)]
        self._process = ServerProcess("redis", ["redis-server", *options], folder, {})

    @property
    def url(self) -> str:
        """Where it is, for RedisState and its like: database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def tls_url(self) -> str:
        """The same over TLS, without an authority; only with `certificates`."""
        assert self.tls_port is not None, "this server was made without certificates"
        return f"rediss://127.0.0.1:{self.tls_port}/0"

    @property
    def pid(self) -> int:
        """Of the running server."""
        return self._process.pid

    def start(self) -> None:
        """Run it, and return once it has loaded its data and answers.

        Raises:
            ServerFailed: it did not start.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        self._process.start(self._answers)

    def stop(self) -> None:
        """End it in order: what is to persist is on disk then."""
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.resume()

    def restart_empty(self) -> None:
        """Kill it, forget what it had on disk, and start it on the same port."""
        self.kill()
        shutil.rmtree(self._data)
        self.start()

    def command(self, *words: str | bytes) -> bytes:
        """Send one command on a connection of its own; its reply as the wire has it (RESP2), for tests.

        Raises:
            RedisRefused: an error reply.
            OSError: nobody answers.
        """
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_LIMIT_S) as connection:
            connection.sendall(
                b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
            )
            reply = connection.recv(1 << 16)
        if reply.startswith(b"-"):
            raise RedisRefused(reply[1:].decode().strip())
        return reply

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except (OSError, RedisRefused):  # not listening yet, or -LOADING
            return False
