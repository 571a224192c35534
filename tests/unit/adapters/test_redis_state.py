"""rtb.adapters.redis_state: what stands in Redis, and what its errors say. The contract is in tests/contract."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rtb.adapters.redis_state import RedisState
from rtb.errors import StoreError
from rtb.lab.servers.process import free_port
from rtb.lab.servers.redis import RedisServer


@pytest_asyncio.fixture
async def state(redis_server: RedisServer) -> AsyncIterator[RedisState]:
    """On a server that is empty."""
    redis_server.command("FLUSHALL")
    state = RedisState(redis_server.url, timeout_s=20.0)
    yield state
    await state.close()


def bulk(reply: bytes) -> bytes:
    """The content of a bulk string reply."""
    return reply.split(b"\r\n", 1)[1].removesuffix(b"\r\n")


async def test_the_keys_are_those_of_the_design(state: RedisState, redis_server: RedisServer) -> None:
    """Other programs find a profile and its counters by the user's id, and each key ends by itself."""
    await state.put_profiles({"u1": b'{"user_id":"u1"}'}, 3_600)
    await state.count_impressions([("u1", "c1", 60), ("u1", "c2", 1_800)])
    await state.seen([("click:u1:ad", "e1")], 3_600)
    assert bulk(redis_server.command("GET", "user:profile:u1")) == b'{"user_id":"u1"}'
    counters = json.loads(bulk(redis_server.command("GET", "user:frequency:u1")))
    assert {campaign: seen for campaign, (seen, _) in counters.items()} == {"c1": 1, "c2": 1}
    assert counters["c2"][1] - counters["c1"][1] == 1_740_000
    for key, ttl_s in (("user:profile:u1", 3_600), ("user:frequency:u1", 1_800), ("seen:click:u1:ad", 3_600)):
        left_s = int(redis_server.command("TTL", key)[1:])
        assert ttl_s - 30 < left_s <= ttl_s


async def test_one_round_trip_brings_many_users(state: RedisState) -> None:
    """Profiles and counters of a batch, whatever its size; an empty one needs none."""
    await state.put_profiles({f"u{n}": b"{}" for n in range(500)}, 60)
    before = state.round_trips
    assert len(await state.get_users([f"u{n}" for n in range(500)])) == 500
    assert state.round_trips == before + 1
    await state.get_users([])
    await state.put_profiles({}, 60)
    await state.count_impressions([])
    assert state.round_trips == before + 1


@pytest.mark.parametrize(
    "garbage",
    [
        ["SET", "user:frequency:u", "not json"],
        ["SET", "user:frequency:u", "[1,2]"],
        ["SET", "user:frequency:u", '{"c":{},"d":["x",9e15],"e":[1]}'],
        ["LPUSH", "user:frequency:u", "1"],
    ],
)
async def test_counters_that_cannot_be_read_are_replaced(
    state: RedisState,
    redis_server: RedisServer,
    garbage: list[str],
) -> None:
    """They count as none; a count of the same batch for another user is not lost by them."""
    redis_server.command(*garbage)
    assert [dict(user.frequency) for user in await state.get_users(["u"])] == [{}]
    await state.count_impressions([("u", "c", 60), ("v", "c", 60)])
    assert [dict(user.frequency) for user in await state.get_users(["u", "v"])] == [{"c": 1}, {"c": 1}]


async def test_an_error_is_one_line_without_the_password() -> None:
    """It says where and what."""
    port = free_port()
    state = RedisState(f"redis://user:secret@127.0.0.1:{port}/0")
    with pytest.raises(StoreError, match=f"^Redis at 127.0.0.1:{port}: .*[Cc]onnect") as refused:
        await state.get_users(["u"])
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not state.connected
    await state.close()
