"""A lean connection to one Redis server: many calls under way, answered in the order they were sent.

hiredis packs and parses. Redis answers one command after another anyway, so one connection does what a pool does, for
a third of the CPU time of redis-py's or less: `python -m benchmarks.profiles` is what this is for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import hiredis
from redis.asyncio.connection import parse_url

from rtb.adapters import tls

AUTHORITIES = "state.url ?ssl_ca_certs=FILE"
Command: TypeAlias = tuple[Any, ...]  # the words of a command: str, bytes or int
_NOT_YET = object()


class Refused(Exception):
    """Redis answered with an error; the first word is its code, as in ``READONLY You can't write ...``."""


class RedisConnection(asyncio.Protocol):
    """An open connection, until it is lost; then every call under way ends with ConnectionError."""

    def __init__(self) -> None:
        """`connect` makes them."""
        self._reader = hiredis.Reader(replyError=Refused, protocolError=ConnectionError, notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._calls: deque[tuple[int, asyncio.Future[list[Any]]]] = deque()
        self._replies: list[Any] = []  # to the first of the calls
        self._heard_s = 0.0
        self._retired = False
        self.lost = False

    @property
    def usable(self) -> bool:
        """Whether new calls may be made on it."""
        return not (self.lost or self._retired)

    def call(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """The replies to commands that are sent at once; errors stand among them as Refused.

        Whoever does not want them any more cancels the future; the next calls get their own all the same.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if self._transport is None or self.lost:
            future.set_exception(ConnectionError("connection lost"))
            return future
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        self._calls.append((len(commands), future))
        self._transport.write(packed)
        return future

    def retire(self) -> None:
        """Close it once the calls under way are answered."""
        self._retired = True
        if not self._calls:
            self.abort()

    def abort(self) -> None:
        """Close it now."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
        self._fail(ConnectionError("connection given up"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._heard_s = asyncio.get_running_loop().time()

    def silent_s(self) -> float:
        """How long nothing was heard from the server."""
        return asyncio.get_running_loop().time() - self._heard_s

    def data_received(self, data: bytes) -> None:
        """Hand each call its replies, when it has all of them."""
        replies, calls = self._replies, self._calls
        self._heard_s = asyncio.get_running_loop().time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                replies.append(reply)
                if len(replies) == calls[0][0]:
                    future = calls.popleft()[1]
                    if not future.done():
                        future.set_result(replies)
                    replies = self._replies = []
        except (ConnectionError, IndexError):  # not what Redis says, or nobody asked for it
            self.abort()
        if self._retired and not calls:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody waits for what will not come."""
        self.lost = True
        self._fail(error or ConnectionError("connection closed by the server"))

    def _fail(self, error: Exception) -> None:
        calls, self._calls = self._calls, deque()
        for _, future in calls:
            if not future.done():
                future.set_exception(error)


async def connect(url: str) -> RedisConnection:
    """Connect to ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` (TLS, checked against the system's
    authorities or those of ``?ssl_ca_certs=FILE``, with ``ssl_certfile`` and ``ssl_keyfile`` of our own) or ``unix://path?db=1``.

    Raises:
        OSError: nobody there.
        Refused: wrong password or database, or the server is loading.
    """
    loop = asyncio.get_running_loop()
    where: dict[str, Any] = {**parse_url(url)}
    if "path" in where:
        _, connection = await loop.create_unix_connection(RedisConnection, where["path"])
    else:
        secure = None
        if url.startswith("rediss:"):
            ours = {"certificate": where.get("ssl_certfile"), "key": where.get("ssl_keyfile")}
            secure = tls.context(where.get("ssl_ca_certs"), AUTHORITIES, **ours)
        host, port = where.get("host", "localhost"), where.get("port", 6379)
        _, connection = await loop.create_connection(RedisConnection, host, port, ssl=secure)
    try:
        for reply in await connection.call(_greeting(where)):
            if isinstance(reply, Refused):
                raise reply
    except BaseException:
        connection.abort()
        raise
    return connection


def _greeting(where: Mapping[str, Any]) -> list[Command]:
    password, user = where.get("password"), where.get("username")
    commands: list[Command] = []
    if password is not None:
        commands.append(("AUTH", user, password) if user else ("AUTH", password))
    commands.append(("SELECT", where.get("db", 0)))
    return commands
