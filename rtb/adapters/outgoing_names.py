"""Host names that others chose, resolved without leaving the address policy and without holding up our own names."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from rtb.adapters.address_policy import AddressPolicy
from rtb.errors import HttpRefused

THREADS = 4
"""Look-ups at once; a name server that does not answer keeps one for some seconds."""


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


NOT_PUBLIC = "not a public address; the allow list of outgoing HTTP does not name it"
