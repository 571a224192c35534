"""What leaves the daemon off the hot path: posted at once, published behind, kept on disk while the broker is away.

A persistent message may not be lost: when the broker is away, refuses, is slow to confirm, or the buffer is full, it
goes to the spool and is published from there, in order, once the broker is back; until the spool is empty later ones
queue up behind. A message that is not persistent is dropped and counted then. Messages in flight when the broker fails
may be published twice, so consumers go by message_id.

While all is well the outbox is open: `post` hands the message straight to the broker, and the broker's answer ends it;
no task or future is made for it. Whatever needs the disk or patience closes it, and is the business of one task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from rtb.errors import BrokerError, StoreError, Unroutable
from rtb.ports import Broker, Message, Spool
from rtb.ports.broker import Answer
from rtb.services import postings
from rtb.services.metrics import Metrics
from rtb.services.postings import Posting
from rtb.services.waiting import ended, within

WINDOW = 512
"""Messages in flight at once."""
SPILL = 4_096
"""Messages that go to the spool at once."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
DISK_S = 5.0
"""Without a message confirmed or written for so long, the disk does not answer."""

_log = structlog.get_logger(__name__)


class Outbox:
    """Publishes what is posted, in order, with many confirms in flight.

    All counters only grow: `confirmed` by the broker, `spooled` to disk and `replayed` from there, `dropped` because
    perishable, `unroutable` (no queue is bound; nobody would ever get it), and `lost`: not perishable, but disk and
    memory were full.
    """

    def __init__(
        self, broker: Broker, spool: Spool, metrics: Metrics, *, limit: int = 20_000, patience_s: float = 2.0
    ) -> None:
        """Hold about `limit` messages in memory, and wait `patience_s`, at most twice that, for a confirm."""
        self._broker = broker
        self._spool = spool
        self._metrics = metrics
        self._limit = limit
        self._patience_s = patience_s
        self._buffer: deque[Posting] = deque()
        self._flying: dict[Posting, bool] = {}  # in the order of sending; True: refused
        self._refused = 0
        self._writing = self._written = 0  # on their way to the disk, and what was there before them
        self._replaying = False
        self._oldest: Posting | None = None  # in flight when last looked
        self._timer: asyncio.TimerHandle | None = None
        self._open = self._pumping = self._hurried = self._spilling = self._stopped = False
        self._wake = asyncio.Event()
        self._landed = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._retry_at = self._disk_retry_at = 0.0
        self._wait_s = FIRST_WAIT_S
        self.confirmed = self.spooled = self.replayed = self.dropped = self.unroutable = self.lost = 0

    @property
    def waiting(self) -> int:
        """Messages in memory and on disk that are not confirmed yet, each counted once wherever it is on its way."""
        flying = 0 if self._replaying else len(self._flying)  # what is replayed is on disk still
        on_disk = self._written + self._writing if self._writing else self._spool.waiting
        return len(self._buffer) + flying + on_disk

    async def start(self) -> None:
        """Open the spool and begin to publish, what an earlier process left first. Raises StoreError."""
        waiting = await self._spool.open()
        if waiting:
            _log.info("spool_found", messages=waiting)
        self._spilling = self._stopped = False
        self._task = asyncio.create_task(self._run(), name="outbox")

    def post(self, exchange: str, routing_key: str, message: Message, done: Answer | None = None) -> None:
        """Have it published, soon. Never raises and never waits.

        `done`, if given, is called once the message is safe (confirmed, or durable in the spool) with None, or with the
        BrokerError that says why it was dropped (Unroutable: no queue is bound); perhaps before this returns.
        """
        self._settled.clear()
        self._buffer.append(Posting(exchange, routing_key, message, done))
        if self._open:
            self._pump()
        elif self._stopped:
            self._forsake("the outbox was stopped")
        else:
            self._wake.set()
        if len(self._buffer) > self._limit:
            self._relieve()

    async def deliver(self, exchange: str, routing_key: str, message: Message) -> None:
        """Have it published; returns once it is safe: confirmed, or durable in the spool.

        Raises:
            BrokerError: it was dropped (Unroutable: because no queue is bound).
        """
        safe = asyncio.get_running_loop().create_future()
        self.post(exchange, routing_key, message, partial(_resolve, safe))
        await safe

    async def flush(self, limit_s: float) -> None:
        """Return once everything posted is confirmed or in the spool; after `limit_s` what is left goes there, for as
        long as the disk takes some of it every 5 s (or `limit_s`)."""
        if not self._buffer and not self._flying and self._open:
            return
        if await within(self._settled.wait(), limit_s):
            return
        self._spilling = True
        self._give_up()
        safe = -1
        while self.confirmed + self.spooled > safe:
            safe = self.confirmed + self.spooled
            if await within(self._settled.wait(), max(limit_s, DISK_S)):
                break
        else:
            _log.error("outbox_not_flushed", messages=len(self._buffer) + len(self._flying) + self._writing)
        self._spilling = False

    async def stop(self, limit_s: float = 5.0) -> None:
        """Flush, end, and close the spool. What neither the broker took nor the disk, because it refuses or does not
        answer, is lost, and so is what is posted later; whoever waits for it hears so."""
        if self._task is not None:
            await self.flush(limit_s)
            self._open, self._stopped = False, True
            await ended(self._task)
            self._task = None
            self._forsake("neither the broker nor broker.spool took it before the stop; is the disk full or stuck?")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not await within(self._spool.close(), max(limit_s, 1.0)):
            _log.error("spool_not_closed", reason="the disk does not answer")

    def _pump(self) -> None:
        """Send what waits, while the outbox is open and the window has room."""
        if self._pumping:  # an answer came from within `send`
            return
        self._pumping = True
        buffer, flying = self._buffer, self._flying
        try:
            while buffer and self._open and len(flying) < WINDOW:
                if self._broker.connected:
                    self._send(buffer.popleft())
                else:
                    self._close()
        finally:
            self._pumping = False

    def _send(self, posting: Posting) -> None:
        self._flying[posting] = False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._look)
        self._broker.send(posting.exchange, posting.routing_key, posting.message, partial(self._answered, posting))

    def _answered(self, posting: Posting, error: BrokerError | None) -> None:
        flying = self._flying
        if flying.get(posting) is not False:
            return  # too late: it went to the spool
        if error is None:
            del flying[posting]
            self.confirmed += 1
            self._metrics.published += 1
            posting.resolve(None)
        elif isinstance(error, Unroutable):
            del flying[posting]
            self.unroutable += 1
            _log.warning("unroutable", exchange=posting.exchange, routing_key=posting.routing_key)
            posting.resolve(error)
        else:
            _log.debug("not_published", exchange=posting.exchange, reason=str(error))
            flying[posting] = True
            self._refused += 1
            self._close()
        if not self._open:
            if len(flying) == self._refused:
                self._landed.set()
        elif self._buffer:
            self._pump()
        elif not flying:
            self._settled.set()

    def _look(self) -> None:
        """Give up when what was the oldest in flight still is."""
        self._timer = None
        if not self._open or not self._flying:
            self._oldest = None
            return
        oldest = next(iter(self._flying))
        if oldest is self._oldest:
            self._give_up()
            return
        self._oldest = oldest
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._look)

    def _relieve(self) -> None:
        """The buffer is full: what is in flight takes too long, so that the spool may take over."""
        newest = self._buffer[-1]
        if not newest.message.persistent:
            self._drop([self._buffer.pop()])
        elif len(self._buffer) > 2 * self._limit:
            self._lose([self._buffer.pop()], "disk and memory are full")
        else:
            self._give_up()

    def _close(self) -> None:
        """Leave it to the task."""
        self._open = False
        self._oldest = None
        self._wake.set()

    def _give_up(self) -> None:
        """Wait no longer for what is in flight."""
        self._close()
        self._hurried = True
        self._landed.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception as error:
                with suppress(OSError):  # a full disk may have no room for the log either
                    if isinstance(error, StoreError):
                        _log.error("spool_failed", reason=str(error), waiting=self.waiting)
                    else:
                        _log.exception("outbox_failed")
                await asyncio.sleep(self._postpone())

    async def _step(self) -> None:
        """Work off what cannot go straight to the broker, and open again when that is done."""
        self._wake.clear()
        if self._open:  # woken by what was posted before it was opened, and is being sent by now
            await self._sleep()
            return
        if failed := await self._land():
            self._postpone()
            await self._keep(failed)
        if self._spool.waiting and self._may_publish():
            await self._replay()
        if self._buffer:
            await self._work_off()
        if not self._spool.waiting and self._may_publish():
            self._wait_s = FIRST_WAIT_S
            self._open = True
            self._pump()
        if not self._buffer and not self._flying:
            self._settled.set()
        if self._open or not self._buffer:
            await self._sleep()
        else:
            await asyncio.sleep(0)

    async def _land(self) -> list[Posting]:
        """Wait for the answers to what is in flight, no longer than the patience; what was not confirmed, in order."""
        if len(self._flying) > self._refused and not self._hurried and not self._spilling:
            self._landed.clear()
            await within(self._landed.wait(), self._patience_s)
        self._hurried = False
        failed, self._refused = [*self._flying], 0
        self._flying.clear()
        return failed

    async def _publish(self, some: Sequence[Posting]) -> list[Posting]:
        """Publish them all at once; those that were not confirmed, in order."""
        for posting in some:
            self._send(posting)
        return await self._land()

    async def _sleep(self) -> None:
        """Until something is posted, or it is time to replay."""
        if self._open or not self._spool.waiting:
            await self._wake.wait()
        elif not self._may_publish():
            left_s = self._retry_at - asyncio.get_running_loop().time()
            await within(self._wake.wait(), max(left_s, FIRST_WAIT_S))

    async def _work_off(self) -> None:
        away = self._is_away()
        crowded = self._spilling or len(self._buffer) > self._limit
        if (away or crowded) and not self._disk_refuses():
            await self._keep(self._take(SPILL))
        elif away:
            await asyncio.sleep(FIRST_WAIT_S)
        elif self._spool.waiting and not self._disk_refuses():  # later ones stay behind earlier ones
            some = self._take(WINDOW)
            await self._keep([posting for posting in some if posting.message.persistent])
            if failed := await self._publish([posting for posting in some if not posting.message.persistent]):
                self._postpone()
                self._drop(failed)

    def _take(self, count: int) -> list[Posting]:
        return [self._buffer.popleft() for _ in range(min(count, len(self._buffer)))]

    async def _replay(self) -> None:
        """Publish the oldest of the spool. What alone is refused goes to its end, so that it blocks no other."""
        records = await self._spool.read(WINDOW)
        found = [postings.decode(record) for record in records]
        self._replaying = True
        try:
            failed = await self._publish([posting for posting in found if posting is not None])
        except asyncio.CancelledError:
            self._flying.clear()  # they are in the spool still
            raise
        finally:
            self._replaying = False
        done = len(records)
        if failed:
            self._postpone()
            first = found.index(failed[0])
            if len(failed) < len(records) and self._broker.connected and first == 0:
                await self._spool.append([postings.encode(posting) for posting in failed])
            else:
                done = first
        else:
            self._wait_s = FIRST_WAIT_S
        await self._spool.discard(done)
        self.replayed += done
        if not self._spool.waiting:
            _log.info("spool_replayed", messages=self.replayed)

    async def _keep(self, some: Sequence[Posting]) -> None:
        """To the spool with what may not be lost; back to the buffer with it when the disk refuses."""
        self._drop([posting for posting in some if not posting.message.persistent])
        lasting = [posting for posting in some if posting.message.persistent]
        if not lasting:
            return
        first = not self._spool.waiting
        self._writing, self._written = len(lasting), self._spool.waiting
        try:
            await self._spool.append([postings.encode(posting) for posting in lasting])
        except BaseException as error:
            self._buffer.extendleft(reversed(lasting))
            if not isinstance(error, StoreError):
                raise
            if not self._disk_retry_at:
                _log.error("spool_refuses", reason=str(error), waiting=self.waiting)
            self._disk_retry_at = asyncio.get_running_loop().time() + LONGEST_WAIT_S
            return
        finally:
            self._writing = 0
        self._disk_retry_at = 0.0
        if first:
            _log.warning("spooling", reason="the broker is away or too slow")
        self.spooled += len(lasting)
        for posting in lasting:
            posting.resolve(None)

    def _drop(self, some: Iterable[Posting]) -> None:
        for posting in some:
            self.dropped += 1
            posting.resolve(BrokerError("the broker is away, and the message is not persistent"))

    def _lose(self, some: Sequence[Posting], reason: str) -> None:
        if some:
            first = some[0].message.message_id
            _log.error("message_lost", messages=len(some), first_message_id=first, reason=reason)
        for posting in some:
            self.lost += 1
            posting.resolve(BrokerError(f"the message is lost: {reason}"))

    def _forsake(self, reason: str) -> None:
        """It was stopped: nobody will send what is left."""
        left = [*self._flying, *self._buffer]
        self._flying.clear()
        self._buffer.clear()
        self._settled.set()
        self._drop([posting for posting in left if not posting.message.persistent])
        self._lose([posting for posting in left if posting.message.persistent], reason)

    def _may_publish(self) -> bool:
        """Whether the broker is there, and the disk is not to have it all."""
        return not self._is_away() and (not self._spilling or self._disk_refuses())

    def _is_away(self) -> bool:
        return not self._broker.connected or asyncio.get_running_loop().time() < self._retry_at

    def _disk_refuses(self) -> bool:
        return asyncio.get_running_loop().time() < self._disk_retry_at

    def _postpone(self) -> float:
        """Leave the broker alone for a while, longer each time; how long, in seconds."""
        wait_s = self._wait_s
        self._retry_at = asyncio.get_running_loop().time() + wait_s
        self._wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        return wait_s


def _resolve(future: asyncio.Future[None], error: BrokerError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
