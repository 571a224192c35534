"""RabbitMQ's management API (the rabbitmq_management plugin) as `ports.QueueStats`.

Source: the plugin's HTTP API, ``GET /api/queues/{vhost}``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from rtb.errors import BrokerError
from rtb.ports import QueueFigures

COLUMNS = (
    "name,messages_ready,messages_unacknowledged,consumers,"
    "message_stats.publish_details.rate,message_stats.deliver_get_details.rate"
)
LIMIT_S = 5.0
MAX_BYTES = 16 << 20


class _Rate(Struct, frozen=True):
    rate: float = 0.0


class _Stats(Struct, frozen=True):
    publish_details: _Rate = _Rate()
    deliver_get_details: _Rate = _Rate()


class _Queue(Struct, frozen=True):
    name: str
    messages_ready: int | None = None
    messages_unacknowledged: int | None = None
    consumers: int | None = None
    message_stats: _Stats | None = None


_decoder = msgspec.json.Decoder(list[_Queue])


class ManagementApi:
    """The queues of one virtual host."""

    def __init__(self, url: str, *, vhost: str = "/") -> None:
        """Ask at `url`, as in ``http://user:password@host:15672``; a path, where it has one, ends with ``/api``."""
        base = URL(url)
        if base.path in ("", "/"):
            base = base.with_path("/api")
        self._where = str(base.with_user(None))
        self._headers: dict[str, str] = {}
        if base.user:
            self._headers["Authorization"] = aiohttp.encode_basic_auth(base.user, base.password or "")
        path = f"{self._where.rstrip('/')}/queues/{quote(vhost, safe='')}"
        self._url = URL(f"{path}?columns={COLUMNS}", encoded=True)
        self._session: aiohttp.ClientSession | None = None

    async def figures(self) -> Mapping[str, QueueFigures]:
        """By queue name; rates are RabbitMQ's own, over its last few seconds.

        Raises:
            BrokerError: nobody answers, or not with figures.
        """
        try:
            async with asyncio.timeout(LIMIT_S):
                body = await self._get()
            return {queue.name: _figures(queue) for queue in _decoder.decode(body)}
        except TimeoutError:
            raise BrokerError(f"the management API at {self._where} did not answer in {LIMIT_S:.0f} s") from None
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise BrokerError(f"the management API at {self._where}: {' '.join(str(error).split())[:200]}") from None

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _get(self) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise BrokerError(
                    f"the management API at {self._where} answers {response.status}; check URL, user and virtual host"
                )
            body = b""
            async for part in response.content.iter_chunked(1 << 16):
                body += part
                if len(body) > MAX_BYTES:
                    raise BrokerError(f"the management API at {self._where} answers more than {MAX_BYTES} bytes")
            return body


def _figures(queue: _Queue) -> QueueFigures:
    stats = queue.message_stats
    return QueueFigures(
        name=queue.name,
        ready=queue.messages_ready,
        unacked=queue.messages_unacknowledged,
        consumers=queue.consumers,
        publish_per_s=stats.publish_details.rate if stats is not None else None,
        deliver_per_s=stats.deliver_get_details.rate if stats is not None else None,
    )
