"""The budget accounts under contract, on a clock that is set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.adapters.redis_accounts_scripts import Scripts
from rtb.adapters.redis_scripts import Script, script
from rtb.domain.budget import Bill, BillStatus, Limit, Opening, Sync, Synced, Timing
from rtb.lab.servers.redis import RedisServer
from rtb.ports import Accounts, BookView

TIMING = Timing(
    ttl_ms=10_000, window_ms=60_000, settle_ms=300_000, key_life_ms=600_000, key_bucket_ms=60_000, grace_ms=3_000
)
DAY = "2026-11-22"
START_MS = 1_767_225_600_000


def timed_by(key: str) -> Scripts:
    """The scripts, on a clock that stands in a key of Redis: a hash of seconds and microseconds."""

    def timed(one: Script) -> Script:
        return script(one.text.replace("redis.call('TIME')", f"redis.call('HMGET', '{key}', 's', 'us')"))

    return Scripts(*map(timed, Scripts()))


class Desk:
    """One campaign's accounts, a limit of 100 and a cap of 40, and short words for what daemons do."""

    def __init__(self, accounts: Accounts, campaign_id: str, advance: Callable[[int], None]) -> None:
        self.accounts = accounts
        self.campaign_id = campaign_id
        self.now = START_MS
        self.limits: Mapping[str, Limit] = {DAY: Limit(100, 40)}
        self.seq = 0
        self._advance = advance

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.now += ms
        self._advance(ms)

    async def install(self, epoch: int = 1, identity: str | None = None, **fields: object) -> None:
        """Put a book there."""
        values: dict[str, object] = {"version": 1, "floor": "2026-11-20", "limits": self.limits, "spent": {}}
        opening = Opening(campaign_id=self.campaign_id, epoch=epoch, **{**values, **fields})  # type: ignore[arg-type]
        identities = [identity] if identity else await self.accounts.identity([self.campaign_id])
        await self.accounts.install([opening], identities)

    async def sync(self, instance: str = "i", **fields: object) -> Synced:
        """One sync; ``moves`` are nanos a day."""
        self.seq += 1
        values: dict[str, object] = {
            "seq": self.seq,
            "epoch": 1,
            "version": 1,
            "limits": self.limits,
            "moves": {DAY: 0},
        }
        sync = Sync(campaign_id=self.campaign_id, instance=instance, **{**values, **fields})  # type: ignore[arg-type]
        [reply] = await self.accounts.sync([sync])
        return reply

    def a_bill(self, key: str = "k", price: int = 5, **fields: object) -> Bill:
        """A bill whose event expires at the end of the window from now."""
        values: dict[str, object] = {"day": DAY, "instance": "i", "expires_ms": self.now + TIMING.window_ms}
        return Bill(
            key=key,
            campaign_id=self.campaign_id,
            price_nanos=price,
            held_nanos=price,
            **{**values, **fields},  # type: ignore[arg-type]
        )

    async def bill(self, *bills: Bill) -> list[tuple[BillStatus, int]]:
        """What each was charged."""
        return [(billed.status, billed.charged_nanos) for billed in await self.accounts.bill(bills)]

    async def view(self) -> BookView:
        """The book; its equation holds."""
        [view] = [view async for view in self.accounts.books([self.campaign_id])]
        for account in view.accounts.values():
            assert account.limit_nanos == account.available_nanos + sum(account.leased.values()) + account.spent_nanos
        return view


@asynccontextmanager
async def memory_accounts(_: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """In process."""
    clock = ManualClock(START_MS / 1_000)
    accounts = MemoryAccounts(clock, TIMING)
    yield Desk(accounts, "c", lambda ms: clock.advance(ms / 1_000))
    await accounts.close()


@asynccontextmanager
async def redis_accounts(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """In the shared Redis, timed by a key of the test's own."""
    server: RedisServer = request.getfixturevalue("redis_server")
    name = f"c-{uuid4().hex[:8]}"
    clock = RedisClock(server, f"clock:{name}")
    accounts = RedisAccounts(server.url, TIMING, timeout_s=20.0, scripts=timed_by(clock.key))
    yield Desk(accounts, name, clock.advance)
    await accounts.close()


class RedisClock:
    """A clock for scripts, in a key."""

    def __init__(self, server: RedisServer, key: str) -> None:
        self.key = key
        self._server = server
        self.now_ms = START_MS
        self.advance(0)

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.now_ms += ms
        seconds, rest = divmod(self.now_ms, 1_000)
        self._server.command("HSET", self.key, "s", str(seconds), "us", str(rest * 1_000))


DESKS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Desk]]] = {
    "memory": memory_accounts,
    "redis": redis_accounts,
}
