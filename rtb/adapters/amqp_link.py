"""One connection to RabbitMQ that comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aio_pika.abc import UnderlayConnection
from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError
from yarl import URL

from rtb.adapters import tls
from rtb.adapters.amqp_channel import AUTHORITIES, FrameTap
from rtb.errors import BrokerError
from rtb.services.waiting import ended

RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between attempts to connect; the last one repeats."""

CLOSE_LIMIT_S = 1.0
FAILURES = (OSError, EOFError, AMQPError, BrokerError, TimeoutError, RuntimeError, ValueError, asyncio.CancelledError)
"""What aiormq raises when a connection or a channel goes away under a call; CancelledError is its own doing then."""

logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # a traceback per lost connection; the link says it in one line
_log = structlog.get_logger(__name__)


class Link:
    """Connects, prepares what shall stand on the connection, and begins again when it is lost.

    `up` is set while it can be used. With `after`, it waits for that link to be up before it connects.
    """

    def __init__(
        self,
        url: str,
        name: str,
        prepare: Callable[[], Awaitable[None]],
        on_up: Callable[[], None],
        *,
        heartbeat_s: int,
        connect_limit_s: float,
        after: Link | None = None,
        on_blocked: Callable[[str | None], None] | None = None,
    ) -> None:
        """Describe it.

        Args:
            url: of the broker.
            name: by which the broker's management knows the connection.
            prepare: called on every new connection; with a BrokerError it is dropped and another one tried.
            on_up: called whenever it can be used again.
            heartbeat_s: how often both sides say that they live; three missed ones end the connection.
            connect_limit_s: how long an attempt to connect may take.
            after: the link to wait for.
            on_blocked: hears why the broker blocks publishers, or None when it no longer does.
        """
        self._url = URL(url).update_query(heartbeat=str(heartbeat_s), name=name)
        self._name = name
        self._prepare = prepare
        self._on_up = on_up
        self._connect_limit_s = connect_limit_s
        self._after = after
        self._on_blocked = on_blocked
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self.tap: FrameTap
        self.up = asyncio.Event()
        self.problem = "not started"
        """Why it is not up; empty while it is."""

    def begin(self) -> None:
        """Connect in the background, for ever."""
        self.tap = FrameTap(self._on_blocked)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"amqp link {self._name}")

    async def tried(self) -> None:
        """Return when the first attempt has succeeded or failed; then see `up` and `problem`."""
        await self._tried.wait()

    async def channel(self, limit_s: float, *, confirms: bool = False) -> Channel:
        """A new channel; raises BrokerError."""
        connection = self._connection
        if connection is None or connection.is_closed:
            raise BrokerError(f"no connection to the broker: {self.problem}")
        try:
            async with asyncio.timeout(limit_s):  # aiormq's own time-out is only for the first of its two calls
                channel = await connection.channel(publisher_confirms=confirms, on_return_raises=False, timeout=limit_s)
        except FAILURES as error:
            raise failure("a channel could not be opened", error) from None
        assert isinstance(channel, Channel)
        return channel

    @property
    def frame_max(self) -> int:
        """Bytes of the largest frame, as negotiated."""
        assert self._connection is not None
        return self._connection.connection_tune.frame_max or 1 << 17

    async def close(self) -> None:
        """Disconnect, within a few seconds."""
        task, self._task = self._task, None
        if task is not None:
            await ended(task)
        self.problem = "it was closed"
        await self._drop(self.problem)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                if self._after is not None:
                    await self._after.up.wait()
                await self._connect()
            except FAILURES as error:
                if _is_cancelled():
                    raise
                self._report(error, first=not failures)
                await self._drop(self.problem)
                self._tried.set()
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                continue
            failures = 0
            self.problem = ""
            self.up.set()
            self._tried.set()
            _log.info("broker_connected", link=self._name)
            self._on_up()
            reason = await self._ending()
            self.problem = f"connection lost: {reason}"
            _log.warning("broker_lost", link=self._name, reason=reason)
            await self._drop(self.problem)

    async def _connect(self) -> None:
        self.tap = FrameTap(self._on_blocked)
        async with asyncio.timeout(self._connect_limit_s):
            # Not aio_pika.Connection: one that is garbage makes a task to close itself, perhaps in a loop that is over.
            transport = await UnderlayConnection.connect(self._url, _heard, transport_factory=self.tap)
        self._connection = transport.connection
        await self._prepare()
        if self._connection.is_closed:
            raise BrokerError("the connection was lost while it was prepared")

    async def _ending(self) -> str:
        """Wait for the end of the connection; why it ended."""
        assert self._connection is not None
        closing = self._connection.closing
        gone = asyncio.ensure_future(self.tap.lost.wait())
        try:
            await asyncio.wait([closing, gone], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([closing], timeout=CLOSE_LIMIT_S)  # it knows why
        finally:
            gone.cancel()
        if not closing.done():
            closing.cancel()
            return "the broker is gone"
        error = None if closing.cancelled() else closing.exception()
        return " ".join(str(error).split()) or type(error).__name__

    def _report(self, error: BaseException, *, first: bool) -> None:
        where, remedy = f"cannot connect to {self._url.host}:{self._url.port}", "start it, or set broker.url"
        refused = tls.refusal(error, AUTHORITIES)
        self.problem = str(failure(where, error)) if refused is None else f"{where}: {refused}"
        if first:
            _log.warning("broker_away", link=self._name, reason=self.problem, remedy=remedy)

    async def _drop(self, reason: str) -> None:
        self.up.clear()
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                self.tap.end(reason)
                await _closed(connection, CLOSE_LIMIT_S)
        finally:
            self.tap.abort()  # a broker that stands still would keep it for ever
        if connection is not None and not await _closed(connection, CLOSE_LIMIT_S):
            _log.warning("broker_link_not_closed", link=self._name)


async def _closed(connection: AbstractConnection, limit_s: float) -> bool:
    """Have it closed, and wait so long; whether it is."""
    closing = asyncio.ensure_future(connection.close())
    closing.add_done_callback(_spent)
    done, _ = await asyncio.wait([closing], timeout=limit_s)
    return bool(done)


async def _heard(closing: asyncio.Future[Any]) -> None:
    _spent(closing)


def _spent(future: asyncio.Future[Any]) -> None:
    """Its error is known otherwise."""
    if not future.cancelled():
        future.exception()


def failure(what: str, error: BaseException) -> BrokerError:
    """One line out of what aiormq raised; a cancellation of the running task itself goes on as such."""
    if isinstance(error, asyncio.CancelledError) and _is_cancelled():
        raise error
    if isinstance(error, TimeoutError):
        return BrokerError(f"{what}: it did not answer in time")
    text = " ".join(str(error).split()) or type(error).__name__
    return BrokerError(f"{what}: {text}")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
