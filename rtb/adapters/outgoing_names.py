"""Host names that others chose, resolved without leaving the address policy and without holding up our own names."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from aiohttp.abc import AbstractResolver, ResolveResult

from rtb.adapters.address_policy import AddressPolicy
from rtb.errors import HttpRefused

THREADS = 4
"""Look-ups at once; a name server that does not answer keeps one for some seconds."""
KEPT_S = 10
MOST_NAMES = 1_000
NOT_PUBLIC = "not a public address; the allow list of outgoing HTTP does not name it"


class SystemResolver(AbstractResolver):
    """The system's resolver in threads of its own: the loop's serve the names of broker and databases."""

    def __init__(self) -> None:
        """No thread is made before the first look-up."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="outgoing-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host, the system's preferred ones first. Raises OSError."""

        def look_up() -> list[ResolveResult]:
            found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            return [
                ResolveResult(
                    hostname=host,
                    host=socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0],
                    port=port,
                    family=kind,
                    proto=proto,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, _, proto, _, address in found
            ]

        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)

    async def close(self) -> None:
        """Start no further look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Leaves out the addresses that the policy refuses."""

    def __init__(self, inner: AbstractResolver, policy: AddressPolicy) -> None:
        """Ask `inner`."""
        self._inner = inner
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """What is left, at least one.

        Raises:
            HttpRefused: the host has addresses, and none of them is allowed.
            OSError: it has none, or they cannot be found.
        """
        found = await self._inner.resolve(host, port, family)
        if not found:
            raise OSError(f"{host} has no address")
        allowed = [result for result in found if not self._policy.refuses(host, result["host"])]
        if not allowed:
            raise HttpRefused(f"{host} leads to {found[0]['host']}, {NOT_PUBLIC}")
        return allowed

    async def close(self) -> None:
        """Close what it asks."""
        await self._inner.close()


class KeptNames:
    """What names lead to, kept for some seconds; one look-up of a name at a time."""

    def __init__(self, resolver: GuardedResolver) -> None:
        """Ask `resolver`."""
        self._resolver = resolver
        self._known: OrderedDict[tuple[str, int], tuple[float, list[str]]] = OrderedDict()
        self._asked: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those that are allowed, at least one. Raises OSError, HttpRefused."""
        if is_literal(host):
            return [host]
        key = (host, port)
        known = self._known.get(key)
        if known is not None and known[0] > monotonic():
            return known[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._look_up(host, port))
            task.add_done_callback(lambda task: self._answered(key, task))
        try:
            return await asyncio.shield(task)  # others may wait for it, too
        except asyncio.CancelledError:
            if task.cancelled():
                raise OSError("the client is closed") from None
            raise

    async def close(self) -> None:
        """End the look-ups."""
        for task in self._asked.values():
            task.cancel()
        await self._resolver.close()

    async def _look_up(self, host: str, port: int) -> list[str]:
        return [found["host"] for found in await self._resolver.resolve(host, port)]

    def _answered(self, key: tuple[str, int], task: asyncio.Task[list[str]]) -> None:
        del self._asked[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._known.pop(key, None)
        self._known[key] = (monotonic() + KEPT_S, task.result())
        if len(self._known) > MOST_NAMES:
            self._known.popitem(last=False)


def is_literal(host: str) -> bool:
    """Whether no resolver will be asked: as aiohttp tells addresses from names, or with a wider net."""
    return ":" in host or host.replace(".", "").isdigit()
