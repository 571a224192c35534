"""The state store in Redis 7: one server, or a cluster.

user:profile:{user_id}        JSON, with a time to live
user:frequency:{user_id}      JSON, campaign id -> [impressions, end of the window in ms]; ends with its last window
user:counted:...              a batch of counts that was taken, for a minute
seen:{key}                    who claimed it
dashboard:ended               a sorted set of the sessions that were logged out of, by when they would have ended
auction:results:{request_id}  Pub/Sub channel
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from rtb.adapters.redis_link import ClusterLink, Command, ServerLink
from rtb.adapters.redis_scripts import COUNT
from rtb.errors import StoreError
from rtb.ports import CachedUser

PROFILE = "user:profile:"
FREQUENCY = "user:frequency:"
COUNTED = "user:counted:"
SEEN = "seen:"
ENDED = "dashboard:ended"
RESULTS = "auction:results:"

BATCH_MS = 60_000
MAX_COUNTERS = 256
MAX_ANNOUNCEMENTS = 10_000
ANNOUNCEMENTS_A_BATCH = 500
AWAY_S = 0.5
"""How long announcements are dropped at once after a failure."""

_windows = msgspec.json.Decoder(dict[str, tuple[int, int]])
_NOTHING: Mapping[str, int] = {}


class RedisState:
    """Profiles, counters, claims and announcements that all daemons share."""

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        connections: int = 8,
        timeout_s: float = 0.25,
        gather_s: float = 0.002,
        max_announcements: int = MAX_ANNOUNCEMENTS,
    ) -> None:
        """Connects when first used. With `cluster` the URL names any node of a Redis Cluster.

        Args:
            url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, or ``unix://path``.
            cluster: speak to all nodes of a cluster.
            connections: the most that are open at once to each node of a cluster; one is enough for a single server.
            timeout_s: the longest a call takes.
            gather_s: how long an announcement waits for others to travel with it.
            max_announcements: those that may wait; more are dropped.
        """
        self._link: ServerLink | ClusterLink = (ClusterLink if cluster else ServerLink)(url, connections, timeout_s)
        self._cluster = cluster
        self._gather_s = gather_s
        self._max_announcements = max_announcements
        self._announced: list[Command] = []
        self._announcing: asyncio.Task[None] | None = None
        self._away_until_s = 0.0
        self.dropped = 0

    @property
    def connected(self) -> bool:
        """Whether the last call succeeded."""
        return self._link.connected

    @property
    def round_trips(self) -> int:
        """Since the start."""
        return self._link.round_trips

    async def ping(self) -> None:
        """Raise StoreError unless it answers."""
        await self._link.all([("PING",)])

    async def get_users(self, user_ids: Sequence[str]) -> list[CachedUser]:
        """Profile and counters of each user, in the order asked, in one round trip."""
        if not user_ids:
            return []
        keys = [PROFILE + user_id for user_id in user_ids]
        keys += [_frequency_key(user_id) for user_id in user_ids]
        reads: list[Command] = [("GET", key) for key in keys] if self._cluster else [("MGET", *keys)]
        *replies, now = await self._link.all([*reads, ("TIME",)])
        values = replies if self._cluster else replies[0]
        now_ms = int(now[0]) * 1_000 + int(now[1]) // 1_000
        count = len(user_ids)
        return [
            CachedUser(values[i], _NOTHING if (stored := values[count + i]) is None else _frequency(stored, now_ms))
            for i in range(count)
        ]

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """Cache profiles for a time."""
        ttl_ms = _ms(ttl_s)
        await self._link.all(
            [("SET", PROFILE + user_id, profile, "PX", ttl_ms) for user_id, profile in profiles.items()]
        )

    async def count_impressions(self, counts: Sequence[tuple[str, str, int]], batch_id: str = "") -> None:
        """Count one impression for each (user_id, campaign_id, window seconds), once a `batch_id` within a minute.

        The whole batch is one script call and happens or does not; in a cluster that holds for each user alone.
        """
        batch_id = batch_id or secrets.token_hex(8)
        users: dict[str, list[tuple[str, int]]] = {}
        for user_id, campaign_id, window_s in counts:
            users.setdefault(user_id, []).append((campaign_id, window_s * 1_000))
        groups = [[user_id] for user_id in users] if self._cluster else [list(users)]
        await self._link.run(COUNT, [_count_arguments(group, users, batch_id) for group in groups if group])

    async def seen(self, claims: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        """Whether each key was claimed by another in the last `ttl_s` seconds; claim it when not."""
        ttl_ms = _ms(ttl_s)
        owners = await self._link.all([("SET", SEEN + key, by, "NX", "GET", "PX", ttl_ms) for key, by in claims])
        return [owner is not None and owner != by.encode() for owner, (_, by) in zip(owners, claims, strict=True)]

    async def end_session(self, session: str, expires: int, now: float) -> None:
        """Keep that it is over; forget those that are by themselves."""
        await self._link.all([("ZADD", ENDED, expires, session), ("ZREMRANGEBYSCORE", ENDED, "-inf", int(now))])

    async def ended_sessions(self) -> dict[str, int]:
        """Those that were logged out of, and when they would have ended."""
        [found] = await self._link.all([("ZRANGE", ENDED, 0, -1, "WITHSCORES")])
        return {session.decode(): int(expires) for session, expires in zip(found[::2], found[1::2], strict=True)}

    def announce(self, request_id: str, body: bytes) -> None:
        """Publish an auction's result for who listens now, soon and at most once."""
        loop = asyncio.get_running_loop()
        if len(self._announced) >= self._max_announcements or loop.time() < self._away_until_s:
            self.dropped += 1
            return
        self._announced.append(("PUBLISH", RESULTS + request_id, body))
        if self._announcing is None:
            self._announcing = loop.create_task(self._announce())

    async def close(self) -> None:
        """Publish what is announced and disconnect."""
        if self._announcing is not None:
            await self._announcing
        await self._link.close()

    async def _announce(self) -> None:
        try:
            while self._announced:
                await asyncio.sleep(self._gather_s)
                batch = self._announced[:ANNOUNCEMENTS_A_BATCH]
                del self._announced[:ANNOUNCEMENTS_A_BATCH]
                try:
                    await self._link.all(batch)
                except StoreError:  # what waits is old when it comes back
                    self._away_until_s = asyncio.get_running_loop().time() + AWAY_S
                    self.dropped += len(batch) + len(self._announced)
                    self._announced.clear()
        finally:
            self._announcing = None


def _frequency_key(user_id: str) -> str:
    """A key without braces, which in a cluster would be a hash tag: the mark beside it needs one of its own."""
    if "{" in user_id or "}" in user_id:
        user_id = "#" + blake2b(user_id.encode(), digest_size=16).hexdigest()
    return FREQUENCY + user_id


def _count_arguments(
    user_ids: Sequence[str], users: Mapping[str, Sequence[tuple[str, int]]], batch_id: str
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of COUNT; the hash tag puts the mark into the slot of the first user's key."""
    keys = [_frequency_key(user_id) for user_id in user_ids]
    keys.insert(0, f"{COUNTED}{{{keys[0]}}}:{batch_id}")
    arguments: list[Any] = [BATCH_MS, MAX_COUNTERS]
    for user_id in user_ids:
        arguments.append(len(users[user_id]))
        for count in users[user_id]:
            arguments.extend(count)
    return keys, arguments


def _frequency(stored: bytes, now_ms: int) -> Mapping[str, int]:
    """Counters as COUNT writes them; what cannot be read counts as none, and is replaced by the next count."""
    try:
        windows = _windows.decode(stored)
    except msgspec.MsgspecError:
        return _NOTHING
    return {campaign_id: seen for campaign_id, (seen, end_ms) in windows.items() if end_ms > now_ms}


def _ms(seconds: float) -> int:
    return max(round(seconds * 1_000), 1)
