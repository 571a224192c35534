"""Commands to Redis that travel together, to one server or to a cluster.

Nothing is retried: a call ends within its time-out, connecting included, and whatever went wrong is a StoreError. A
connection that failed is closed and the next call makes a new one, so an outage ends by itself. While the process
itself stands still (a machine that is suspended, a long pause of the interpreter) nobody reads: time passes, but what
came meanwhile is an answer in time.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from rtb.adapters import tls
from rtb.adapters.redis_connection import AUTHORITIES, Command, RedisConnection, Refused, connect
from rtb.adapters.redis_scripts import Script
from rtb.errors import StoreError

__all__ = ["ClusterLink", "Command", "RedisLink", "ServerLink"]

NOSCRIPT = "NOSCRIPT"
SCAN = 1_000
"""Keys that a node is asked to look at in one call."""
LAST_PART = 0.2
"""Of a call's time; it begins when the loop sees that the rest has passed, so that no standstill takes all of it."""


class RedisLink(ABC):
    """What one server and a cluster have in common."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """`timeout_s` is the longest a call takes."""
        self._address = url.rsplit("@", 1)[-1].split("://")[-1].split("/")[0]  # without the password
        self._timeout_s = timeout_s
        self.connected = True
        self.round_trips = 0

    async def all(self, commands: Sequence[Command], allow: str = "") -> list[Any]:
        """The replies, as the wire has them, of commands that travel together.

        Raises:
            StoreError: no answer in time; or the first reply that is an error, unless its code is the one to `allow`
                (then it stands among the replies, as Refused). In either case commands may have taken effect.
        """
        if not commands:
            return []
        self.round_trips += 1
        try:
            replies = await self._in_time(commands)
        except (Refused, RedisError, OSError, RuntimeError) as error:  # uvloop: RuntimeError from a closed transport
            if isinstance(error, TimeoutError):
                self._unanswered()
            raise self._failed(error) from None
        for reply in replies:
            if isinstance(reply, Refused) and reply.args[0].split(" ", 1)[0] != allow:
                if reply.args[0].startswith("READONLY"):
                    self._demoted()
                raise self._failed(reply)
        self.connected = True
        return replies

    async def run(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """The reply of a script for each (keys, arguments).

        It is called by its hash; a server that has forgotten it (NOSCRIPT) has not run it, and is sent the text.
        Raises StoreError, as `all` does.
        """
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = await self.all(commands, allow=NOSCRIPT)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, Refused)]
        texts = await self.all([("EVAL", script.text, *commands[i][2:]) for i in unknown])
        for i, reply in zip(unknown, texts, strict=True):
            replies[i] = reply
        return replies

    async def keys(self, pattern: str) -> list[str]:
        """Every key that fits a glob pattern, of all nodes; one that comes or goes meanwhile may be missed.

        Raises:
            StoreError: no answer in time to one of the many calls that this takes.
        """
        found: set[bytes] = set()
        try:
            async for part in self._scan(pattern):
                found.update(part)
        except (RedisError, OSError, RuntimeError) as error:
            raise self._failed(error) from None
        return [key.decode() for key in found]

    async def _in_time(self, commands: Sequence[Command]) -> list[Any]:
        """The replies; TimeoutError when they do not come within the time-out, of which the loop has seen all or, after
        a standstill, at least the last part."""
        async with asyncio.timeout(None) as limit:
            waning = asyncio.get_running_loop().call_later(self._timeout_s * (1 - LAST_PART), self._wane, limit)
            try:
                return await self._exchange(commands)
            finally:
                waning.cancel()

    def _wane(self, limit: asyncio.Timeout) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s * LAST_PART)

    @abstractmethod
    def _scan(self, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        """The keys, a part at a time."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The replies; those that are errors stand among them."""

    @abstractmethod
    def _unanswered(self) -> None:
        """A call got no answer in time."""

    @abstractmethod
    def _demoted(self) -> None:
        """The server has become a replica."""

    def _failed(self, error: Exception) -> StoreError:
        self.connected = False
        text = tls.refusal(error, AUTHORITIES) or " ".join(str(error).split())
        text = text or f"no answer within {self._timeout_s * 1e3:.0f} ms"
        return StoreError(f"Redis at {self._address}: {text[:300]}")


class ServerLink(RedisLink):
    """One server, or whatever its name leads to."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        """As for a cluster; but one connection is enough here."""
        super().__init__(url, timeout_s)
        self._url = url
        self._connection: RedisConnection | None = None
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.abort()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connect()
        return await connection.call(commands)

    async def _scan(self, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        cursor = b"0"
        while True:
            [(cursor, part)] = await self.all([("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN)])
            yield part
            if cursor == b"0":
                return

    async def _connect(self) -> RedisConnection:
        async with self._connecting:
            if self._connection is None or not self._connection.usable:
                self._connection = await connect(self._url)
            return self._connection

    def _unanswered(self) -> None:
        """Connect anew, unless another call has done that or got an answer meanwhile."""
        if self._connection is not None and self._connection.silent_s() > self._timeout_s / 2:
            self._connection.abort()

    def _demoted(self) -> None:
        """Its name may lead to the new primary by now: connect anew."""
        if self._connection is not None:
            self._connection.retire()


class ClusterLink(RedisLink):
    """A Redis Cluster: commands go to the nodes that have their keys, to all of them at once."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        """The URL names any node; up to `connections` are open to each."""
        super().__init__(url, timeout_s)
        self._client = RedisCluster.from_url(
            url,
            max_connections=connections,
            socket_timeout=2 * timeout_s,  # of a scan; all else has a limit of ours, which a standstill does not end
            socket_connect_timeout=2 * timeout_s,
            retry=Retry(NoBackoff(), 1),  # once: at the node that has the slot since it moved
            protocol=2,
        )
        for name in ("SET", "TIME"):
            self._client.set_response_callback(name, _as_it_is)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _unanswered(self) -> None:
        """redis-py has closed the connection."""

    def _demoted(self) -> None:
        """redis-py asks for the slots again when it is told that they moved."""

    async def _scan(self, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        client: Any = self._client
        await client.initialize()
        for node in client.get_primaries():
            cursor = 0
            while True:
                cursors, part = await client.scan(cursor, match=pattern, count=SCAN, target_nodes=node)
                yield part
                cursor = cursors[node.name]
                if cursor == 0:
                    break

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        pipeline: Any = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return [_refused(reply) if isinstance(reply, Exception) else reply for reply in replies]


def _as_it_is(response: Any, **kwargs: Any) -> Any:
    return response


def _refused(error: Exception) -> Refused:
    """redis-py leaves out the codes that it knows."""
    return Refused(f"{NOSCRIPT} {error}" if isinstance(error, NoScriptError) else str(error))
