"""Redis dies, freezes, crawls, forgets, turns replica, fills up: auctions go on, and profiles come back by themselves.

A real exchange with the house bidder, profiles in a real Redis and the truth in SQLite. The campaign "tea" bids most
and wants an interest that every profile has; so "tea" wins with a profile, and "any" without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from rtb.adapters.clock import SystemClock
from rtb.adapters.redis_state import RedisState
from rtb.domain.campaign import FrequencyCap, Targeting
from rtb.domain.profile import Profile
from rtb.errors import StoreError
from rtb.lab.servers.process import free_port
from rtb.lab.servers.redis import Persistence, RedisServer
from rtb.services.exchange import Status
from tests.support.fault_proxy import FaultProxy
from tests.support.redis import MakeRedis
from tests.unit.parts import World, bid_request, campaign, world

DEADLINE_MS = 20_000  # far above what a busy machine needs, far below what waiting for the store would take
HANG_S = 60.0
PATIENCE_S = 60.0
SLOW_S = 4.0  # far above what a daemon waits for a profile, and how long a busy machine keeps it from noticing
USERS = 3_000


class House:
    """The exchange, and users who were never asked for."""

    def __init__(self, path: Path, port: int, timeout_s: float) -> None:
        self.state = RedisState(f"redis://127.0.0.1:{port}/0", timeout_s=timeout_s)
        self.patient = RedisState(f"redis://127.0.0.1:{port}/0", timeout_s=PATIENCE_S)  # what a test asks itself
        self.clock = SystemClock()
        self.world: World = world(
            str(path),
            campaigns=[campaign("tea", 5.0, targeting=Targeting(interests=("tea",))), campaign("any", 1.0)],
            state=self.state,
            clock=self.clock,
            deadline_ms=DEADLINE_MS,
            wait_s=0.01,
            cached=100_000,
        )
        self._fresh = map("user-{}".format, count())

    @property
    def without_profile(self) -> int:
        """The counter."""
        return self.world.metrics.profile_timeouts

    async def auction(self, user_id: str = "") -> str:
        """Who wins an auction of a user, by default one who was never asked for; it ends inside its deadline."""
        auction = self.world.exchange.begin(bid_request(user=user_id or next(self._fresh)), self.clock.monotonic_ns())
        outcome = auction.outcome or await self.world.exchange.finish(auction)
        assert self.clock.monotonic_ns() < auction.deadline_ns
        assert outcome.status is Status.WON
        (result,) = outcome.results
        assert result.winner is not None
        return result.winner.seat

    async def auctions(self, number: int = 200) -> set[str]:
        """Who wins when so many come, 20 at once."""
        winners: set[str] = set()
        for _ in range(0, number, 20):
            winners.update(await asyncio.gather(*(self.auction() for _ in range(20))))
        return winners

    async def no_profiles(self) -> None:
        """Every auction goes on without, and is counted."""
        before = self.without_profile
        assert await self.auctions() == {"any"}
        assert self.without_profile == before + 200

    async def has_profiles(self, user_id: str = "") -> None:
        """Sooner or later a user who comes has a profile, by default one who was never asked for."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.auction(user_id) != "tea":  # noqa: ASYNC110 - an auction is what notices
                await asyncio.sleep(0.02)


OpenHouse = Callable[..., Awaitable[House]]


@pytest_asyncio.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """``await open_house(port)``: its users stand in the database, and nothing is in Redis."""
    opened: list[House] = []

    async def make(port: int, timeout_s: float = 0.1) -> House:
        house = House(tmp_path / "rtb.db", port, timeout_s)
        opened.append(house)
        await house.world.repository.start()
        await house.world.repository.put_profiles([Profile(f"user-{n}", ("tea",)) for n in range(USERS)])
        return house

    yield make
    for house in opened:
        await house.world.profiles.close()
        await house.state.close()
        await house.patient.close()
        await house.world.repository.close()


@asynccontextmanager
async def counting(house: House) -> AsyncIterator[Callable[[], Awaitable[dict[str, int]]]]:
    """Three impressions of a capped campaign are counted inside; afterwards they have been counted once."""

    async def counted() -> dict[str, int]:
        (user,) = await house.patient.get_users(["capped"])
        return dict(user.frequency)

    for _ in range(3):
        house.world.profiles.count("capped", "tea", 3_600)
    yield counted
    async with asyncio.timeout(PATIENCE_S):
        while house.world.profiles.uncounted:  # noqa: ASYNC110 - the next attempt comes by itself
            await asyncio.sleep(0.02)
    assert await counted() == {"tea": 3}


async def test_redis_is_killed_and_comes_back_empty(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """Known users keep their profile, new ones go without; afterwards Redis is filled from the database again."""
    server = make_redis()
    house = await open_house(server.port)
    await house.has_profiles("user-2998")
    server.kill()
    await house.no_profiles()
    assert await house.auction("user-2998") == "tea"
    server.start()
    await house.has_profiles("user-2999")
    await house.world.profiles.close()
    (user,) = await house.patient.get_users(["user-2999"])
    assert user.profile is not None


async def test_redis_is_absent_at_the_start(open_house: OpenHouse, tmp_path: Path) -> None:
    """The same: the auctions begin without it."""
    port = free_port()
    house = await open_house(port)
    await house.no_profiles()
    server = RedisServer(tmp_path, port=port)
    server.start()
    try:
        await house.has_profiles()
    finally:
        server.kill()


async def test_redis_is_frozen(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """Connections stay open and nothing answers: nobody waits for longer than 10 ms, and few wait at all."""
    server = make_redis()
    house = await open_house(server.port, timeout_s=0.2)
    await house.has_profiles()
    server.pause()
    await house.no_profiles()
    server.resume()
    await house.has_profiles()


async def test_redis_is_slow(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """By seconds: new users go without a profile, and have it the next time they come; then all is as before."""
    async with FaultProxy(make_redis().port) as proxy:
        house = await open_house(proxy.port, timeout_s=HANG_S)
        await house.has_profiles()
        proxy.to_client.delay_s = SLOW_S
        await house.no_profiles()
        await house.has_profiles("user-2999")
        assert await house.auction() == "any"
        proxy.to_client.delay_s = 0.0
        await house.has_profiles()


@pytest.mark.parametrize("fault", ["reset", "cut", "stall"])
async def test_the_network_fails(make_redis: MakeRedis, open_house: OpenHouse, fault: str) -> None:
    """Connections reset, refused or half open: the same as without Redis, and it heals by itself."""
    async with FaultProxy(make_redis().port) as proxy:
        house = await open_house(proxy.port)
        await house.has_profiles()
        if fault == "reset":
            proxy.reset()
        elif fault == "cut":
            await proxy.cut()
            await house.no_profiles()
            await proxy.restore()
        else:
            proxy.stall()
            await house.no_profiles()
            proxy.flow()
        await house.has_profiles()


async def test_redis_is_restarted_empty_under_load(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """It is gone for a moment only: no auction fails, and the profiles come from the database meanwhile or later."""
    server = make_redis()
    house = await open_house(server.port)
    running = asyncio.create_task(house.auctions(1_000))
    await asyncio.to_thread(server.restart_empty)
    assert await running <= {"tea", "any"}
    await house.has_profiles()


async def test_redis_turns_replica(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """After a failover (READONLY) profiles are still read; what is counted waits for a primary and counts once."""
    server = make_redis()
    house = await open_house(server.port)
    await house.patient.put_profiles({"user-0": b'{"user_id":"user-0","interests":["tea"]}'}, 3_600)
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    async with counting(house) as counted:
        await house.has_profiles("user-0")
        await house.has_profiles()  # from the database; writing it back fails
        with pytest.raises(StoreError, match="READONLY"):
            await house.patient.put_profiles({"u": b"{}"}, 60)
        assert await counted() == {}
        server.command("REPLICAOF", "NO", "ONE")


async def test_a_replica_without_its_primary_refuses_to_read(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """MASTERDOWN is an error like any other: without profile until it is over."""
    server = make_redis(settings={"replica-serve-stale-data": "no"})
    house = await open_house(server.port)
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    await house.no_profiles()
    server.command("REPLICAOF", "NO", "ONE")
    await house.has_profiles()


async def test_redis_is_full(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """At maxmemory profiles are read and found; what is counted waits for memory and counts once."""
    server = make_redis()
    house = await open_house(server.port)
    server.command("CONFIG", "SET", "maxmemory", "1kb")
    async with counting(house) as counted:
        await house.has_profiles()
        with pytest.raises(StoreError, match="OOM command not allowed"):
            await house.patient.seen([("k", "me")], 60)
        assert await counted() == {}
        server.command("CONFIG", "SET", "maxmemory", "0")


async def test_redis_forgets_its_scripts(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """NOSCRIPT is not seen by anybody: the count is taken, once."""
    server = make_redis()
    house = await open_house(server.port)
    async with counting(house):
        pass
    server.command("SCRIPT", "FLUSH")
    await house.patient.count_impressions([("capped", "tea", 3_600)])
    (user,) = await house.patient.get_users(["capped"])
    assert dict(user.frequency) == {"tea": 4}


async def test_redis_is_loading(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """A server that reads its snapshot answers LOADING: without profile until it is there. It would read for 20 s; it
    is let go on faster as soon as enough was seen."""
    slowly = {"key-load-delay": "2000", "loading-process-events-interval-bytes": "1024"}
    server = make_redis(persistence=Persistence.RDB, settings=slowly)
    house = await open_house(server.port)
    for first in range(0, 10_000, 100):
        await house.patient.put_profiles({f"other-{n}": bytes(100) for n in range(first, first + 100)}, 3_600)
    server.stop()
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    said = ""
    while "LOADING" not in said:
        assert not starting.done()
        with pytest.raises(StoreError) as refused:
            await house.patient.ping()
        said = str(refused.value)
        await asyncio.sleep(0.01)
    await house.no_profiles()
    await asyncio.to_thread(server.command, "CONFIG", "SET", "key-load-delay", "0")
    await starting
    await house.has_profiles()


async def test_a_lost_reply_counts_once(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """Redis takes the counts and the connection breaks before it says so: they are sent again, under their id."""
    server = make_redis()
    async with FaultProxy(server.port) as proxy:
        house = await open_house(proxy.port, timeout_s=HANG_S)
        await house.state.count_impressions([("other", "tea", 3_600)])  # so that the script is known there
        proxy.to_client.stall()
        async with counting(house):
            async with asyncio.timeout(PATIENCE_S):
                while server.command("EXISTS", "user:frequency:capped") != b":1\r\n":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            proxy.reset()
            proxy.flow()


async def test_a_cap_holds_while_redis_is_away(make_redis: MakeRedis, open_house: OpenHouse) -> None:
    """The daemon itself remembers what its users have seen."""
    server = make_redis()
    house = await open_house(server.port)
    house.world.house.put(
        campaign("tea", 5.0, targeting=Targeting(interests=("tea",)), frequency_cap=FrequencyCap(2, 3_600), version=2)
    )
    await house.has_profiles("user-2998")
    server.kill()
    assert [await house.auction("user-2998") for _ in range(3)] == ["tea", "any", "any"]
    server.start()
    await house.has_profiles()
    async with asyncio.timeout(PATIENCE_S):
        while house.world.profiles.uncounted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    (user,) = await house.patient.get_users(["user-2998"])
    assert dict(user.frequency) in ({"tea": 1}, {"tea": 2})  # the first may have been lost with the server


async def test_announcements_never_wait(make_redis: MakeRedis) -> None:
    """Dropped and counted while Redis is away, and beyond their bound; published again afterwards."""
    server = make_redis()
    state = RedisState(server.url, timeout_s=0.2, max_announcements=100)
    for n in range(150):
        state.announce(f"r{n}", b"won")
    assert state.dropped == 50
    server.kill()
    while state.dropped < 150:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not state.connected
    server.start()
    async with asyncio.timeout(PATIENCE_S):
        while not state.connected:
            state.announce("r", b"won")
            await asyncio.sleep(0.02)
    await state.close()


async def test_cancelled_calls_leave_the_connection_whole(make_redis: MakeRedis) -> None:
    """2,000 calls cancelled at any point: no reply goes to another call, and the connection is the same."""
    server = make_redis()
    async with FaultProxy(server.port) as proxy:
        state = RedisState(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=PATIENCE_S)
        await state.put_profiles({f"u{n}": f"profile {n}".encode() for n in range(100)}, 3_600)
        for batch in range(20):
            proxy.to_client.delay_s = (batch % 4) * 0.002
            calls = [asyncio.ensure_future(state.get_users([f"u{n}"])) for n in range(100)]
            for n, call in enumerate(calls):
                asyncio.get_running_loop().call_later(n * 0.000_1, call.cancel)
            await asyncio.wait(calls)
        proxy.to_client.delay_s = 0.0
        found = await asyncio.gather(*(state.get_users([f"u{n}"]) for n in range(100)))
        assert [users[0].profile for users in found] == [f"profile {n}".encode() for n in range(100)]
        assert proxy.accepted == 1
        await state.close()


def test_the_daemons_loop_fares_no_differently(make_redis: MakeRedis) -> None:
    """uvloop: calls before, during and after a frozen and a killed server, and closing with calls under way."""
    server = make_redis()

    async def life() -> None:
        state = RedisState(server.url, timeout_s=4.0)
        await state.put_profiles({"u": b"{}"}, 3_600)
        server.pause()
        with pytest.raises(StoreError, match="no answer within 4000 ms"):
            await state.get_users(["u"])
        server.resume()
        (user,) = await state.get_users(["u"])
        assert user.profile == b"{}"
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreError, match=f"Redis at 127.0.0.1:{server.port}"):
                await state.get_users(["u"])
        server.start()
        (user,) = await state.get_users(["u"])
        assert user.profile is None
        calls = [asyncio.ensure_future(state.get_users(["u"])) for _ in range(10)]
        await asyncio.sleep(0)
        await state.close()
        assert {type(result) for result in await asyncio.gather(*calls, return_exceptions=True)} <= {list, StoreError}

    uvloop.run(life())
