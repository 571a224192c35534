"""A plain HTTP/1.1 client over one socket: it sends exactly the bytes it is given, however wrong they are."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from msgspec import Struct

TIMEOUT_S = 60.0
AUCTION = "/openrtb2/auction"
NO_HEADERS: Mapping[str, str] = {}


class Response(Struct):
    """A response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def error(self) -> str:
        """The reason in x-rtb-error, "" without one."""
        return self.headers.get("x-rtb-error", "")


def post(body: bytes, headers: Mapping[str, str] = NO_HEADERS, *, path: str = AUCTION) -> bytes:
    """The bytes of a POST with a content-length."""
    lines = {"host": "exchange.test", "content-type": "application/json", "content-length": str(len(body)), **headers}
    return request("POST", path, lines) + body


def request(method: str, path: str, headers: Mapping[str, str] = NO_HEADERS, *, version: str = "1.1") -> bytes:
    """The bytes of a request without its body."""
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


class Http:
    """One connection; use it as a context manager. Every wait ends after TIMEOUT_S with TimeoutError."""

    def __init__(self, url: str) -> None:
        """Connect to the host and port of `url`."""
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def send_as_far_as_it_goes(self, data: bytes) -> None:
        """Send to a server that may close in the middle of it."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def can_send(self, data: bytes, patience_s: float = 1.0) -> bool:
        """Whether all of it is taken; not when nothing more is for `patience_s`, or the server closes."""
        self._socket.settimeout(patience_s)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._socket.send(rest[:65_536]) :]
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            return False
        finally:
            self._socket.settimeout(TIMEOUT_S)
        return True

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self, *, head: bool = False) -> Response:
        """The next response; `head` when it answers HEAD and has no body. ConnectionError when there is none."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        top, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        response = Response(int(status_line.split(" ", 2)[1]), headers)
        length = 0 if head else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._fill()
        response.body, self._buffer = self._buffer[:length], self._buffer[length:]
        return response

    def exchange(self, data: bytes, *, head: bool = False) -> Response:
        """Send, and receive one response."""
        self.send(data)
        return self.receive(head=head)

    def is_closed(self) -> bool:
        """Wait for the server to close; False when it sends something instead."""
        try:
            return self._buffer == b"" and self._socket.recv(65_536) == b""
        except ConnectionResetError:
            return True

    def _fill(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed before the response was whole")
        self._buffer += data


def fetch(url: str, data: bytes, *, head: bool = False) -> Response:
    """Send to `url`'s server over a connection of its own and receive one response."""
    with Http(url) as http:
        return http.exchange(data, head=head)


def get(url: str, path: str) -> Response:
    """GET a path."""
    return fetch(url, request("GET", path, {"host": "exchange.test"}))
