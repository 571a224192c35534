"""What leaves the daemon off the hot path: posted at once, published behind, kept on disk while the broker is away.

A persistent message may not be lost: when the broker is away, refuses, is slow to confirm, or the buffer is full, it
goes to the spool and is published from there, in order, once the broker is back; until the spool is empty later ones
queue up behind. A message that is not persistent is dropped and counted then. Messages in flight when the broker fails
may be published twice, so consumers go by message_id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence

import msgspec
import structlog
from msgspec import Struct

from rtb.errors import BrokerError, StoreError, Unroutable
from rtb.ports import NO_HEADERS, Broker, Message, Spool
from rtb.services.metrics import Metrics

WINDOW = 256
"""Messages in flight at once."""
SPILL = 4_096
"""Messages that go to the spool at once."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0

_log = structlog.get_logger(__name__)


class _Posting(Struct, eq=False, gc=False):
    exchange: str
    routing_key: str
    message: Message
    done: asyncio.Future[None] | None = None


class _Record(Struct, array_like=True):
    """A posting on disk."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    correlation_id: str
    reply_to: str
    timestamp: float | None
    headers: dict[str, str | int | float]


_decoder = msgspec.msgpack.Decoder(_Record)
_encoder = msgspec.msgpack.Encoder()


class Outbox:
    """Publishes what is posted, in order, with many confirms in flight.

    All counters only grow: `confirmed` by the broker, `spooled` to disk and `replayed` from there, `dropped` because
    perishable, `unroutable` (no queue is bound; nobody would ever get it), and `lost`: not perishable, but disk and
    memory were full.
    """

    def __init__(
        self, broker: Broker, spool: Spool, metrics: Metrics, *, limit: int = 20_000, patience_s: float = 2.0
    ) -> None:
        """Hold about `limit` messages in memory, and wait `patience_s` for the confirms of those in flight."""
        self._broker = broker
        self._spool = spool
        self._metrics = metrics
        self._limit = limit
        self._patience_s = patience_s
        self._buffer: deque[_Posting] = deque()
        self._flying: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._spilling = False
        self._retry_at = self._disk_retry_at = 0.0
        self._wait_s = FIRST_WAIT_S
        self.confirmed = self.spooled = self.replayed = self.dropped = self.unroutable = self.lost = 0

    @property
    def waiting(self) -> int:
        """Messages in memory and on disk that are not confirmed yet."""
        return len(self._buffer) + len(self._flying) + self._spool.waiting

    async def start(self) -> None:
        """Open the spool and begin to publish, what an earlier process left first. Raises StoreError."""
        waiting = await self._spool.open()
        if waiting:
            _log.info("spool_found", messages=waiting)
        self._spilling = False
        self._task = asyncio.create_task(self._run())

    def post(self, exchange: str, routing_key: str, message: Message) -> None:
        """Have it published, soon. Never raises and never waits."""
        self._put(_Posting(exchange, routing_key, message))

    async def deliver(self, exchange: str, routing_key: str, message: Message) -> None:
        """Have it published; returns once it is safe: confirmed, or durable in the spool.

        Raises:
            BrokerError: it was dropped (Unroutable: because no queue is bound).
        """
        done = asyncio.get_running_loop().create_future()
        self._put(_Posting(exchange, routing_key, message, done))
        await done

    async def flush(self, limit_s: float) -> None:
        """Return once everything posted is confirmed or in the spool; after `limit_s` what is left goes there."""
        if await _within(self._settled.wait(), limit_s):
            return
        self._spilling = True
        self._give_up()
        if not await _within(self._settled.wait(), max(limit_s, 1.0)):
            _log.error("outbox_not_flushed", messages=len(self._buffer))
        self._spilling = False

    async def stop(self, limit_s: float = 5.0) -> None:
        """Flush, end, and close the spool."""
        if self._task is not None:
            await self.flush(limit_s)
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        await self._spool.close()

    def _put(self, posting: _Posting) -> None:
        self._settled.clear()
        self._buffer.append(posting)
        if len(self._buffer) > self._limit:
            self._relieve()
        self._wake.set()

    def _relieve(self) -> None:
        """The buffer is full: what is in flight takes too long, so that the spool may take over."""
        newest = self._buffer[-1]
        if not newest.message.persistent:
            self._drop([self._buffer.pop()])
        elif len(self._buffer) > 2 * self._limit:
            self._lose([self._buffer.pop()], "disk and memory are full")
        else:
            self._give_up()

    def _give_up(self) -> None:
        for task in self._flying:
            task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                if not self._buffer:
                    self._settled.set()
                    await self._sleep()
                if self._spool.waiting and not self._spilling and not self._is_away():
                    await self._replay()
                if self._buffer:
                    await self._work_off()
            except StoreError as error:
                _log.error("spool_failed", reason=str(error), waiting=self.waiting)
                await asyncio.sleep(self._postpone())
            except Exception:
                _log.exception("outbox_failed")
                await asyncio.sleep(self._postpone())

    async def _sleep(self) -> None:
        """Until something is posted, or it is time to replay."""
        self._wake.clear()
        if not self._spool.waiting:
            await self._wake.wait()
        elif self._is_away() or self._spilling:
            left_s = self._retry_at - asyncio.get_running_loop().time()
            await _within(self._wake.wait(), max(left_s, FIRST_WAIT_S))

    async def _work_off(self) -> None:
        away = self._is_away()
        crowded = self._spilling or len(self._buffer) > self._limit
        refused = asyncio.get_running_loop().time() < self._disk_retry_at
        if (away or crowded) and not refused:
            await self._keep(self._take(SPILL))
            return
        if away:
            await asyncio.sleep(FIRST_WAIT_S)
            return
        if self._spool.waiting and refused:
            return  # the replay goes first, and makes room
        lasting: list[_Posting] = []
        postings = self._take(WINDOW)
        if self._spool.waiting:  # later ones stay behind earlier ones
            lasting = [posting for posting in postings if posting.message.persistent]
            postings = [posting for posting in postings if not posting.message.persistent]
        if failed := await self._publish(postings):
            self._postpone()
        await self._keep(lasting + failed)

    def _take(self, count: int) -> list[_Posting]:
        return [self._buffer.popleft() for _ in range(min(count, len(self._buffer)))]

    async def _replay(self) -> None:
        """Publish the oldest of the spool. What alone is refused goes to its end, so that it blocks no other."""
        records = await self._spool.read(WINDOW)
        postings = [_posting(record) for record in records]
        failed = await self._publish([posting for posting in postings if posting is not None])
        done = len(records)
        if failed:
            self._postpone()
            first = postings.index(failed[0])
            if len(failed) < len(records) and self._broker.connected and first == 0:
                await self._spool.append([_record(posting) for posting in failed])
            else:
                done = first
        await self._spool.discard(done)
        self.replayed += done
        if not self._spool.waiting:
            _log.info("spool_replayed", messages=self.replayed)

    async def _publish(self, postings: Sequence[_Posting]) -> list[_Posting]:
        """Publish them all at once; those that were not confirmed, in order."""
        if not postings:
            return []
        loop, publish = asyncio.get_running_loop(), self._broker.publish
        self._flying = tasks = [
            loop.create_task(publish(one.exchange, one.routing_key, one.message)) for one in postings
        ]
        try:
            _, late = await asyncio.wait(tasks, timeout=self._patience_s)
            if late:
                self._give_up()
                await asyncio.wait(late)
        finally:
            self._give_up()
            self._flying = []
        failed = [posting for posting, task in zip(postings, tasks, strict=True) if not self._settle(posting, task)]
        if not failed:
            self._wait_s = FIRST_WAIT_S
        return failed

    def _settle(self, posting: _Posting, task: asyncio.Task[None]) -> bool:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.confirmed += 1
            self._metrics.published += 1
            _resolve(posting, None)
        elif isinstance(error, Unroutable):
            self.unroutable += 1
            _log.warning("unroutable", exchange=posting.exchange, routing_key=posting.routing_key)
            _resolve(posting, error)
        else:
            if not isinstance(error, asyncio.CancelledError):
                _log.debug("not_published", exchange=posting.exchange, reason=str(error))
            return False
        return True

    async def _keep(self, postings: Sequence[_Posting]) -> None:
        """To the spool with what may not be lost; back to the buffer with it when the disk refuses."""
        self._drop([posting for posting in postings if not posting.message.persistent])
        lasting = [posting for posting in postings if posting.message.persistent]
        if not lasting:
            return
        first = not self._spool.waiting
        try:
            await self._spool.append([_record(posting) for posting in lasting])
        except BaseException as error:
            self._buffer.extendleft(reversed(lasting))
            if not isinstance(error, StoreError):
                raise
            if not self._disk_retry_at:
                _log.error("spool_refuses", reason=str(error), waiting=self.waiting)
            self._disk_retry_at = asyncio.get_running_loop().time() + LONGEST_WAIT_S
            return
        self._disk_retry_at = 0.0
        if first:
            _log.warning("spooling", reason="the broker is away or too slow")
        self.spooled += len(lasting)
        for posting in lasting:
            _resolve(posting, None)

    def _drop(self, postings: Iterable[_Posting]) -> None:
        for posting in postings:
            self.dropped += 1
            _resolve(posting, BrokerError("the broker is away, and the message is not persistent"))

    def _lose(self, postings: Iterable[_Posting], reason: str) -> None:
        for posting in postings:
            self.lost += 1
            _log.error("message_lost", message_id=posting.message.message_id, reason=reason)
            _resolve(posting, BrokerError(f"the message is lost: {reason}"))

    def _is_away(self) -> bool:
        return not self._broker.connected or asyncio.get_running_loop().time() < self._retry_at

    def _postpone(self) -> float:
        """Leave the broker alone for a while, longer each time; how long, in seconds."""
        wait_s = self._wait_s
        self._retry_at = asyncio.get_running_loop().time() + wait_s
        self._wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        return wait_s


def _record(posting: _Posting) -> bytes:
    message = posting.message
    return _encoder.encode(
        _Record(
            posting.exchange,
            posting.routing_key,
            message.body,
            message.message_id,
            message.correlation_id,
            message.reply_to,
            message.timestamp,
            dict(message.headers),
        )
    )


def _posting(record: bytes) -> _Posting | None:
    try:
        kept = _decoder.decode(record)
    except msgspec.MsgspecError as error:
        _log.error("spool_record_unreadable", reason=str(error), bytes=len(record))
        return None
    message = Message(
        body=kept.body,
        message_id=kept.message_id,
        correlation_id=kept.correlation_id,
        reply_to=kept.reply_to,
        timestamp=kept.timestamp,
        headers=kept.headers or NO_HEADERS,
    )
    return _Posting(kept.exchange, kept.routing_key, message)


def _resolve(posting: _Posting, error: BaseException | None) -> None:
    done = posting.done
    if done is not None and not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


async def _within(event: Awaitable[object], limit_s: float) -> bool:
    try:
        await asyncio.wait_for(event, limit_s)
    except TimeoutError:
        return False
    return True
