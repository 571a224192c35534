"""The daemon's life: load, start, ready, run, drain, stop. One uvloop event loop hosts all of it."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from rtb.config import MEMORY, Settings, masked
from rtb.edges import admin as admin_edge
from rtb.edges.event_consumers import EventConsumer
from rtb.errors import BrokerError, ConfigError, StoreError
from rtb.services import topology
from rtb.wiring import System, build, dashboard

SWEEP_S = 1.0
LEAVING_S = 1.0
"""How long a part that has used up its time may take to hear that it is over."""
WARM = 256
"""Campaigns, of those that bid most, that money is leased for before the first auction."""

_log = structlog.get_logger(__name__)
Ready = Callable[[System, str], Awaitable[Callable[[], Awaitable[None]]]]


class Patience:
    """How long the parts of a stopping daemon may take: `limit_s` together, but a fifth of it each, so that one that
    hangs leaves the others time to bring what they have into safety."""

    def __init__(self, limit_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """Not begun; `now` is in seconds."""
        self._limit_s = limit_s
        self._now = now
        self._end: float | None = None

    @property
    def left_s(self) -> float:
        """For the part that stops now; the first one begins it."""
        if self._end is None:
            self._end = self._now() + self._limit_s
        return max(self._end - self._now(), self._limit_s / 5)


async def serve(settings: Settings, *, on_ready: Ready | None = None) -> None:
    """Run a daemon until SIGTERM or SIGINT, then drain it; a second signal ends the process at once.

    Args:
        settings: see rtb.config.
        on_ready: called once it serves, with the exchange's URL; what it returns is called before the drain.

    Raises:
        RtbError: it could not start; one line.
    """
    stop = asyncio.Event()
    _handle_signals(stop)
    system = build(settings, os.getpid())
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(_start(system, stack, stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return
        urls = await starting
        if on_ready is not None:
            stack.push_async_callback(await on_ready(system, urls["http"]))
        where = " ".join(f"{name}={url}" for name, url in urls.items())
        print(f"ready {where} campaigns={len(system.house.index)} pid={os.getpid()}", flush=True)
        await stopping
        _log.info("draining", in_flight=system.metrics.in_flight, limit_s=settings.drain.limit_s)
        system.ready = False
    _log.info("stopped")


def make_store_folder(settings: Settings) -> None:
    """Make the directory of a SQLite file, so that a first start needs no preparation.

    Raises:
        ConfigError: it cannot be made.
    """
    if not settings.store.url.startswith("sqlite:"):
        return
    folder = Path(settings.store.url.removeprefix("sqlite:///").removeprefix("file:").partition("?")[0]).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"store.url: cannot make directory {folder}: {reason}; set another store.url") from None


async def _start(system: System, stack: AsyncExitStack, stop: asyncio.Event) -> dict[str, str]:
    """Start the parts in order, each with its way to stop on the stack; the stack unwinds in reverse."""
    settings = system.settings
    patience = Patience(settings.drain.limit_s)
    socket_path = Path(settings.admin.socket)
    await _refuse_second_daemon(socket_path)
    gc.disable()  # nothing of what is loaded now is garbage
    make_store_folder(settings)
    await system.outside.repository.start()
    stack.push_async_callback(system.outside.repository.close)
    count = await system.catalogue.load()
    await system.automation.start()
    stack.push_async_callback(system.recorder.stop)
    stack.push_async_callback(system.automation.stop)
    _tune_gc()
    await _start_broker(system)
    stack.push_async_callback(system.broker.close)
    await system.broker.declare(topology.topology())
    try:
        await system.outbox.start()
    except StoreError as error:
        raise ConfigError(f"broker.spool: {error}") from None
    stack.push_async_callback(_stop_outbox, system, patience)
    stack.push_async_callback(system.outside.state.close)
    stack.push_async_callback(system.operators.http.close)
    stack.push_async_callback(system.money.alerts.stop)
    await _open_budgets(system, stack, patience)
    await system.writer.start()
    stack.push_async_callback(_within, system.writer.stop, patience, "campaign updates")
    await system.listener.start()
    stack.push_async_callback(system.listener.stop)
    if system.rates_source is not None:
        await system.rates_source.start()
        stack.push_async_callback(_within, system.rates_source.stop, patience, "rates")
    if system.recording is not None:
        system.recording.start()
        stack.push_async_callback(system.recording.stop)
    system.market.start()
    stack.push_async_callback(system.market.close)
    system.catalogue.follow()
    stack.push_async_callback(_within, system.catalogue.stop, patience, "catalogue")
    stack.push_async_callback(system.profiles.close)
    if system.outside.management is not None:
        stack.push_async_callback(system.outside.management.close)
    await system.told.performance.start()
    stack.push_async_callback(_within, system.told.performance.stop, patience, "performance")
    await system.sample.start()
    stack.push_async_callback(system.sample.stop)
    await system.told.refusals.start()
    stack.push_async_callback(system.told.refusals.stop)
    await system.elsewhere.start()
    stack.push_async_callback(system.elsewhere.stop)
    system.monitor.start()
    stack.push_async_callback(system.monitor.stop)
    system.source.start()
    stack.callback(system.source.stop)
    if settings.broker.url != MEMORY:  # else there is nobody else
        await system.told.elsewhere.start()
        stack.push_async_callback(_within, system.told.elsewhere.stop, patience, "notices from elsewhere")
        await system.frames.start()
        stack.push_async_callback(_within, system.frames.stop, patience, "frames")
    await system.operators.alerts.start()
    stack.push_async_callback(system.operators.alerts.stop)
    runner = await admin_edge.listen(system.admin, socket_path, limit_s=settings.drain.limit_s)
    stack.push_async_callback(_remove_socket, runner, socket_path)
    urls = {}
    dashboard_url = await _dashboard(system, stack)
    await system.consumer.start()
    stack.push_async_callback(_within, system.consumer.stop, patience, "queue")
    stack.push_async_callback(_stop_notices, system, patience)
    urls["http"] = await _listen(system, stack, patience)
    if dashboard_url:
        urls["dashboard"] = dashboard_url
    urls["admin"] = settings.admin.socket
    sweeper = asyncio.create_task(_sweep(system, stop))
    stack.callback(sweeper.cancel)
    system.ready = True
    _log.info("started", campaigns=count, store=masked(settings.store.url))
    return urls


async def _start_broker(system: System) -> None:
    try:
        await system.broker.start()
    except BrokerError as error:
        if system.settings.broker.url != MEMORY:
            raise
        raise ConfigError(f"broker.journal: {error}") from None


async def _stop_outbox(system: System, patience: Patience) -> None:
    await system.outbox.stop(patience.left_s)


async def _open_budgets(system: System, stack: AsyncExitStack, patience: Patience) -> None:
    """Rebuild or lease what may be spent, and bill; on the way back every event is billed before the leases go."""
    money = system.money
    stack.push_async_callback(money.accounts.close)
    if system.settings.broker.url == MEMORY and not system.settings.bills_wins:
        # Wins that the journal has and the ledger does not yet: what they hold is part of what the start reserves.
        await money.consumer.start()
        await money.consumer.drain()
        await money.consumer.stop()
    await money.treasury.start([*system.house.campaigns()])
    system.house.warm(WARM)
    stack.push_async_callback(_within, money.treasury.stop, patience, "leases")
    stack.push_async_callback(_within, partial(_bill_the_last, system, patience), patience, "events")
    for consumer in _consumers(system):
        await consumer.start()


async def _bill_the_last(system: System, patience: Patience) -> None:
    """What was won or told stands on the queue or in the spool; where the queue ends with this process, it is billed,
    too."""
    system.money.wins.flush()
    await system.outbox.flush(patience.left_s / 2)
    for consumer in _consumers(system):
        if system.settings.broker.url == MEMORY:
            await consumer.drain()
        await consumer.stop()


def _consumers(system: System) -> list[EventConsumer[Any]]:
    """Of all that costs money, in the order in which it happens: a click looks for its impression."""
    return [system.money.consumer, *system.told.consumers]


async def _stop_notices(system: System, patience: Patience) -> None:
    if system.told.notices is not None:
        await system.told.notices.stop(patience.left_s)
    await system.told.http.close()


async def _listen(system: System, stack: AsyncExitStack, patience: Patience) -> str:
    http = system.settings.http
    try:
        server = await asyncio.get_running_loop().create_server(
            system.server, http.host, http.port, backlog=4096, reuse_port=http.reuse_port or None
        )
    except OSError as error:
        raise _cannot_listen("http", http.host, http.port, error) from None
    stack.push_async_callback(_drain_http, system, server, patience)
    url = _url(http.host, server.sockets[0].getsockname()[1])
    if system.told.links is not None:
        system.told.links.listen(system.settings.tracking.url or url)
    return url


async def _drain_http(system: System, server: asyncio.Server, patience: Patience) -> None:
    """Stop accepting, answer what is under way within the limit, close every connection."""
    server.close()
    system.server.drain()
    await _within(system.responder.drained, patience, "http")
    for connection in list(system.server.connections):
        connection.abort()


async def _dashboard(system: System, stack: AsyncExitStack) -> str:
    settings = system.settings.dashboard
    if not settings.enabled:
        return ""
    app, token = dashboard(system.settings, system.source, system.operators.api, system.clock, system.outside.state)
    if token:
        print(f"dashboard token (shown this once): {token}", file=sys.stderr, flush=True)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        raise _cannot_listen("dashboard", settings.host, settings.port, error) from None
    return _url(settings.host, runner.addresses[0][1])


async def _sweep(system: System, stop: asyncio.Event) -> None:
    """What is due every second: idle connections, new budget days; and no worker outlives its supervisor."""
    supervisor = int(os.environ.get("RTB_SUPERVISOR", "0"))
    problem = ""
    while not supervisor or os.getppid() == supervisor:
        await asyncio.sleep(SWEEP_S)
        try:
            system.server.sweep()
            system.house.refresh()
            system.automation.refresh()
            system.traffic.refresh()
            system.market.refresh()
        except Exception as error:  # a mistake of ours, which must not end new days and dry campaigns for good
            if problem != repr(error):
                _log.exception("sweep_failed")
            problem = repr(error)
    _log.error("supervisor_died", pid=supervisor)
    stop.set()


async def _refuse_second_daemon(path: Path) -> None:
    """Raises ConfigError when a daemon answers on the admin socket."""
    if not path.exists():
        return
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return  # left behind by a daemon that was killed
    writer.close()
    raise ConfigError(f"admin.socket: a daemon is running on {path}; stop it, or set another admin.socket")


async def _remove_socket(runner: web.AppRunner, path: Path) -> None:
    await runner.cleanup()
    path.unlink(missing_ok=True)


async def _within(work: Callable[[], Awaitable[None]], patience: Patience, what: str) -> None:
    """Give a part its time to stop; what does not even take its cancellation is left behind."""
    limit_s = patience.left_s
    stopping = asyncio.ensure_future(work())
    await asyncio.wait({stopping}, timeout=limit_s)
    if not stopping.done():
        _log.warning("drain_limit_reached", part=what, limit_s=round(limit_s, 3))
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=LEAVING_S)
    else:
        stopping.result()


def _handle_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _tune_gc() -> None:
    """Keep what was loaded out of every collection, and collect the rest rarely and briefly."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _cannot_listen(section: str, host: str, port: int, error: OSError) -> ConfigError:
    where = f"{section}.port: cannot listen on {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{where}: another process does; stop it, or set {section}.port=0 for any free port")
    return ConfigError(f"{where}: {error.strerror or error}; check {section}.host and {section}.port")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
