"""A lean keep-alive HTTP/1.1 client for fan-out: POST a body, be called back with the response, by a deadline.

There is no task, future or timer per call: a call is one write, one read and one callback. Each endpoint has its own
pool of connections, so that a slow server takes nothing from another, even on the same host.

    client = FanoutClient(clock)
    client.start()
    endpoint = client.endpoint("https://dsp.example/bid", headers={"authorization": "..."})
    client.call(endpoint, body, on_done, deadline_ns)      # on_done(call), perhaps before this returns

Redirects are not followed, cookies not kept, proxies not used. Connections are made only to addresses that the policy
lets through, checked on the address that is connected to.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yarl import URL

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.http_call import Call, Failure
from rtb.adapters.http_dns import FRESH_S, Names, Resolve
from rtb.adapters.http_pool import Limits, Pool
from rtb.adapters.http_wheel import DeadlineWheel
from rtb.adapters.outgoing_names import SystemResolver
from rtb.adapters.outgoing_target import outgoing_target, where
from rtb.errors import ConfigError, HttpRefused
from rtb.ports.clock import Timer, TimerClock

__all__ = ["Call", "Endpoint", "Failure", "FanoutClient", "Limits"]

_S = 1_000_000_000
_MOST_HEADS = 4_096
_NOTHING: Mapping[str, str] = {}
_DEFAULT = Limits()
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer"})


class Endpoint:
    """A URL that is called, with its connections."""

    __slots__ = ("head", "heads", "pool", "url")

    def __init__(self, url: str, head: bytes, pool: Pool) -> None:
        """`head` is the request's, up to the value of content-length."""
        self.url = url
        self.head = head
        self.heads: dict[int, bytes] = {}
        """Whole heads, by the length of the body."""
        self.pool = pool

    def head_of(self, length: int) -> bytes:
        """The head of a request whose body has so many bytes."""
        if len(self.heads) >= _MOST_HEADS:
            self.heads.clear()
        head = self.heads[length] = b"%b%d\r\n\r\n" % (self.head, length)
        return head

    @property
    def network_ns(self) -> int:
        """The 90th percentile of the round trip to it, without connecting and without its thinking; 0 if unknown."""
        return self.pool.network_ns


class FanoutClient:
    """Calls endpoints. It is used on one event loop."""

    def __init__(
        self,
        clock: TimerClock,
        *,
        allow: Sequence[str] = (),
        resolve: Resolve | None = None,
        names_fresh_s: float = FRESH_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to public addresses, and to what `allow` lists (as `AddressPolicy` takes it).

        Args:
            clock: the event loop's, or one set by hand.
            allow: hosts, addresses and networks let through besides.
            resolve: looks a name up; the system's resolver by default.
            names_fresh_s: after how long a name is looked up again, aside.
            tls: whom to trust, other than the system's authorities.

        Raises:
            ConfigError: an entry of `allow` is malformed.
        """
        self._clock = clock
        self._policy = AddressPolicy(allow)
        self._system = SystemResolver()
        self._names = Names(clock, resolve or self._addresses, fresh_s=names_fresh_s)
        self._tls = tls
        self._now_ns = clock.monotonic_ns
        self._wheel = DeadlineWheel(clock, self._expire)
        self._pools: set[Pool] = set()
        self._unswept: list[Pool] = []
        self._sweeper: Timer | None = None

    def endpoint(self, url: str, *, headers: Mapping[str, str] = _NOTHING, limits: Limits = _DEFAULT) -> Endpoint:
        """Prepare to call a URL.

        Raises:
            ConfigError: it is no http or https URL, or a header cannot be sent.
        """
        try:
            target = outgoing_target(url, self._policy)
        except HttpRefused as refused:
            raise ConfigError(f"{url!r:.200}: {refused}") from None
        if target.user is not None or target.password is not None:
            raise ConfigError(f"{where(target)}: a user in the URL is not sent; set the header authorization")
        tls = self._context() if target.scheme == "https" else None
        host, port = target.raw_host or "", target.port or 0
        pool = Pool(host, port, tls, limits, names=self._names, policy=self._policy, clock=self._clock)
        self._pools.add(pool)
        return Endpoint(url, _head(target, headers), pool)

    def start(self) -> None:
        """Begin to keep connections warm and names fresh."""
        if self._sweeper is None:
            self._sweep()

    def call(
        self,
        endpoint: Endpoint,
        body: bytes,
        on_done: Callable[[Call], None],
        deadline_ns: int,
        context: Any = None,
        now_ns: int = 0,
    ) -> Call:
        """POST a body. `on_done` is called exactly once unless the call is cancelled: with the response, or with a
        failure, at `deadline_ns` on the monotonic clock at the latest. `now_ns` spares a look at that clock."""
        head = endpoint.heads.get(len(body)) or endpoint.head_of(len(body))
        call = Call(body, on_done, deadline_ns, context, head)
        idle = endpoint.pool.idle
        now_ns = now_ns or self._now_ns()
        if not idle or not idle.pop().take(call, now_ns):
            endpoint.pool.submit(call, now_ns)
            if call.done:
                return call
        wheel = self._wheel
        if not wheel.begin_ns <= deadline_ns < wheel.end_ns:
            wheel.find(deadline_ns)
        call.watch = calls = wheel.latest
        calls[call] = None
        return call

    def cancel(self, call: Call) -> None:
        """Forget a call; the connection it is on is closed. `on_done` will not be called."""
        if not call.done:
            call.done = True
            call.context = None
            self._drop(call)

    def retire(self, endpoint: Endpoint) -> None:
        """Close an endpoint once the calls under way are done; further ones fail."""
        endpoint.pool.retire()

    async def close(self) -> None:
        """Close everything; calls under way fail."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        pools, self._pools = self._pools, set()
        await asyncio.gather(*(pool.close() for pool in pools))
        await self._names.close()
        await self._system.close()
        self._wheel.stop()

    async def _addresses(self, host: str) -> list[str]:
        return list(dict.fromkeys(result["host"] for result in await self._system.resolve(host)))

    def _expire(self, call: Call) -> None:
        where = "the connection" if call.connection is None else "the response"
        self._drop(call)
        call.fail(self._clock.monotonic_ns(), Failure.TIMEOUT, f"{where} did not come in time")

    def _drop(self, call: Call) -> None:
        connection, call.connection = call.connection, None
        if connection is not None and connection.call is call:
            connection.abandon()

    def _sweep(self) -> None:
        """Each pool once a second, and evenly, for auctions wait meanwhile."""
        now_ns = self._clock.monotonic_ns()
        if not self._unswept:
            self._unswept = [*self._pools]
        if self._unswept:
            pool = self._unswept.pop()
            pool.sweep(now_ns)
            if pool.is_over:
                self._pools.discard(pool)
        self._sweeper = self._clock.call_at(now_ns + _S // max(len(self._pools), 1), self._sweep)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _head(target: URL, headers: Mapping[str, str]) -> bytes:
    """The head of every request to a URL, up to the length of its body."""
    authority = target.raw_authority
    lines = [f"POST {target.raw_path_qs} HTTP/1.1", f"host: {authority}"]
    given = {name.lower(): value for name, value in headers.items()}
    given.setdefault("content-type", "application/json")
    given.setdefault("accept-encoding", "gzip")
    for name, value in given.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name in _OURS:
            raise ConfigError(f"header {name!r:.100} cannot be sent to {authority}: its name or value is not allowed")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\ncontent-length: ").encode("latin-1")
