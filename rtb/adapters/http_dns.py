"""Names resolved ahead of need: an address is looked up once, then refreshed while the old one goes on serving."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rtb.ports import Clock

Resolve = Callable[[str], Awaitable[Sequence[str]]]
FRESH_S = 30.0


class Names:
    """Addresses of hosts. A lookup that fails later leaves the addresses of the last that did not."""

    def __init__(self, clock: Clock, resolve: Resolve, *, fresh_s: float = FRESH_S) -> None:
        """Look names up with `resolve`, again after `fresh_s`."""
        self._clock = clock
        self._resolve = resolve
        self._fresh_ns = int(fresh_s * 1e9)
        self._known: dict[str, tuple[int, Sequence[str]]] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}

    def known(self, host: str) -> Sequence[str]:
        """The addresses of the last lookup; () before the first."""
        entry = self._known.get(host)
        return entry[1] if entry is not None else ()

    async def addresses(self, host: str) -> Sequence[str]:
        """The addresses of a host, at once unless it was never looked up. Raises OSError when it has none."""
        if host not in self._known:
            await asyncio.shield(self._look_up(host))
        return self.known(host)

    def refresh(self, host: str) -> None:
        """Start another lookup if the last is too old; nobody waits for it."""
        entry = self._known.get(host)
        if entry is None or self._clock.monotonic_ns() - entry[0] >= self._fresh_ns:
            self._look_up(host)

    async def close(self) -> None:
        """End lookups under way."""
        tasks = [*self._lookups.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, host: str) -> asyncio.Task[None]:
        task = self._lookups.get(host)
        if task is None:
            task = self._lookups[host] = asyncio.get_running_loop().create_task(self._ask(host))
            task.add_done_callback(lambda done: self._asked(host, done))
        return task

    async def _ask(self, host: str) -> None:
        addresses = await self._resolve(host)
        if not addresses:
            raise OSError(f"{host} has no address")
        self._known[host] = (self._clock.monotonic_ns(), tuple(addresses))

    def _asked(self, host: str, task: asyncio.Task[None]) -> None:
        del self._lookups[host]
        if not task.cancelled() and task.exception() is not None and host in self._known:
            self._known[host] = (self._clock.monotonic_ns(), self._known[host][1])  # not again at once
