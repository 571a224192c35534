"""Commands to Redis that travel together, to one server or to a cluster.

Nothing is retried: a call ends within its time-out, connecting included, and whatever went wrong is a StoreError. A
connection that failed or was given up half-way is closed and the next call makes a new one, so an outage ends by
itself and no reply ever reaches another call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import hiredis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from rtb.adapters.redis_scripts import Script
from rtb.errors import StoreError

Command: TypeAlias = tuple[Any, ...]  # the words of a command: str, bytes or int


class RedisLink:
    """What one server and a cluster have in common."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """`timeout_s` is the longest a call takes."""
        self._address = url.rsplit("@", 1)[-1].split("://")[-1].split("/")[0]  # without the password
        self._timeout_s = timeout_s
        self.connected = True
        self.round_trips = 0

    async def all(self, commands: Sequence[Command], allow: type[Exception] | None = None) -> list[Any]:
        """The replies, as the wire has them, of commands that travel together.

        Raises:
            StoreError: no answer in time; or the first reply that is an error, unless it is one to `allow` (then it
                stands among the replies). In either case commands may have taken effect.
        """
        if not commands:
            return []
        self.round_trips += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                replies = await self._exchange(commands)
        except (RedisError, OSError, RuntimeError) as error:  # uvloop: RuntimeError from a transport that was closed
            raise self._failed(error) from None
        for reply in replies:
            if isinstance(reply, Exception) and not (allow and isinstance(reply, allow)):
                if isinstance(reply, ReadOnlyError):
                    await self._look_elsewhere()
                raise self._failed(reply)
        self.connected = True
        return replies

    async def run(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """The reply of a script for each (keys, arguments).

        It is called by its hash; a server that has forgotten it (NOSCRIPT) has not run it, and is sent the text.
        Raises StoreError, as `all` does.
        """
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = await self.all(commands, allow=NoScriptError)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        texts = await self.all([("EVAL", script.text, *commands[i][2:]) for i in unknown])
        for i, reply in zip(unknown, texts, strict=True):
            replies[i] = reply
        return replies

    async def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The replies; those that are errors stand among them."""
        raise NotImplementedError

    async def _look_elsewhere(self) -> None:
        """After a failover the server is a replica."""

    def _failed(self, error: Exception) -> StoreError:
        self.connected = False
        text = " ".join(str(error).split()) or f"no answer within {self._timeout_s * 1e3:.0f} ms"
        return StoreError(f"Redis at {self._address}: {text[:300]}")


class ServerLink(RedisLink):
    """One server, or whatever its name leads to."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        """Up to `connections` are open at once; who finds none free waits, within the time-out."""
        super().__init__(url, timeout_s)
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=None,
            socket_timeout=None,  # the time-out around the whole call does it, without a task for each write
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Below redis-py's pipeline, which costs three times as much."""
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        connection = await self._pool.get_connection()
        try:
            await connection.send_packed_command(packed, check_health=False)
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except BaseException:  # cancelled, too: replies are still to come on this connection
            await connection.disconnect(nowait=True)
            raise
        finally:
            await asyncio.shield(self._pool.release(connection))
        return replies

    async def _look_elsewhere(self) -> None:
        """The server's name may lead to the new primary by now: connect anew."""
        await self._pool.disconnect(inuse_connections=False)


class ClusterLink(RedisLink):
    """A Redis Cluster: commands go to the nodes that have their keys, to all of them at once."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        """The URL names any node; up to `connections` are open to each."""
        super().__init__(url, timeout_s)
        self._client = RedisCluster.from_url(
            url,
            max_connections=connections,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # once: at the node that has the slot since it moved
            protocol=2,
        )
        for name in ("SET", "TIME"):
            self._client.set_response_callback(name, lambda reply, **_: reply)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        pipeline: Any = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
