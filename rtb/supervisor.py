"""``rtb serve --workers N``: N daemons on one port, each a process with its own loop, kept running by this one.

The kernel spreads connections over the processes (SO_REUSEPORT). A worker that dies is started again; its leases, holds
and deliveries come back by themselves, because workers share nothing but broker, state and store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog

from rtb.config import MEMORY, Settings
from rtb.errors import ConfigError, RtbError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A worker that ran this long is started again without a pause."""

_log = structlog.get_logger(__name__)


class WorkerFailed(RtbError):
    """A worker could not start; it has said why."""


def require_shared(settings: Settings) -> None:
    """Raises ConfigError where workers would each have a world of their own."""
    for key, url, remedy in (
        ("broker.url", settings.broker.url, "amqp://..."),
        ("state.url", settings.state.url, "redis://..."),
    ):
        if url == MEMORY:
            raise ConfigError(f"{key}: {url} is one process's own and cannot serve several workers; set {remedy}")
    if settings.store.url.partition("?")[0].endswith(("//", ":memory:")):
        raise ConfigError("store.url: a database in memory cannot serve several workers; set postgresql://...")
    if settings.http.port == 0:
        raise ConfigError("http.port: workers share one port; set http.port to a number above 0")


async def supervise(settings: Settings, workers: int, arguments: Sequence[str]) -> None:
    """Run `workers` daemons with the arguments of ``rtb serve`` until SIGTERM or SIGINT, then drain them all; a second
    signal ends them at once.

    Raises:
        ConfigError: the settings name a part that several processes cannot share.
        WorkerFailed: a worker did not start.
    """
    require_shared(settings)
    stop = asyncio.Event()
    team = [Worker(i, workers, settings, arguments) for i in range(workers)]

    def on_signal() -> None:
        if stop.is_set():
            for worker in team:
                worker.signal()  # its second one: it ends at once
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    starting = asyncio.create_task(_ready(team))
    stopping = asyncio.create_task(stop.wait())
    keepers: list[asyncio.Task[None]] = []
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            print(f"ready workers={workers} {await starting} pid={os.getpid()}", flush=True)
            keepers = [asyncio.create_task(worker.keep()) for worker in team]
            await stopping
    finally:
        starting.cancel()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(starting, *keepers, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in team))


class Worker:
    """One daemon process; the first has the dashboard and the admin socket under their own names."""

    def __init__(self, number: int, workers: int, settings: Settings, arguments: Sequence[str]) -> None:
        """Describe it, as one of so many."""
        self.number = number
        self._workers = workers
        own = ["http.reuse_port=true"]
        if number:
            own += [
                "dashboard.enabled=false",
                f"admin.socket={settings.admin.socket}.{number}",
                f"broker.spool={settings.broker.spool}.{number}",
                *([f"log.replay={settings.log.replay}.{number}"] if settings.log.replay else []),
            ]
        overrides = [part for setting in own for part in ("--set", setting)]
        self._command = [sys.executable, "-m", "rtb", "serve", *arguments, *overrides]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Start it; its ready line.

        Raises:
            WorkerFailed: it ended instead.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "RTB_SUPERVISOR": str(os.getpid()), "RTB_WORKERS": str(self._workers)},
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which tells the workers
        )
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().strip()
        if not line.startswith("ready "):
            code = await self._process.wait()
            raise WorkerFailed(f"worker {self.number} did not start (exit code {code}); its message stands above")
        return line

    async def keep(self) -> None:
        """Start it again whenever it dies, the sooner the longer it had run."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            assert self._process is not None
            code = await self._process.wait()
            pause_s = FIRST_PAUSE_S if loop.time() - began > STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            _log.warning("worker_died", worker=self.number, exit_code=code, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            try:
                await self.start()
            except (WorkerFailed, OSError) as error:
                _log.warning("worker_not_started", worker=self.number, reason=str(error))
            else:
                _log.info("worker_started", worker=self.number, pid=self._process.pid)

    async def end(self) -> None:
        """Have it drain, and wait until it has ended."""
        process = self._process
        if process is None:
            return
        self.signal()
        await process.wait()

    def signal(self) -> None:
        """Send it SIGTERM, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)


async def _ready(team: Sequence[Worker]) -> str:
    """Start them; the fields of the ready line."""
    return _merged(await asyncio.gather(*(worker.start() for worker in team)))


def _merged(lines: Sequence[str]) -> str:
    """The URLs of the first worker's ready line and all pids: ``http=... dashboard=... pids=1,2``."""
    fields = [dict(part.split("=", 1) for part in line.split()[1:]) for line in lines]
    urls = " ".join(f"{name}={value}" for name, value in fields[0].items() if name != "pid")
    return f"{urls} pids={','.join(each['pid'] for each in fields)}"
