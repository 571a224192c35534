"""The budget world's accounts in a real Redis: its own scripts, on a clock and a run id that stand in keys."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import uuid4

from redis import Redis

from rtb.adapters.clock import ManualClock
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.adapters.redis_accounts_scripts import Scripts
from rtb.adapters.redis_scripts import Script, script
from tests.support.budget_world import TIMING

RUN_ID = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"


class BlockingLink:
    """Runs scripts without giving way: a step of the world is one piece."""

    connected = True

    def __init__(self, url: str) -> None:
        self.client: Any = Redis.from_url(url)

    async def run(self, one: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """The replies."""
        return [self.client.eval(one.text, len(keys), *keys, *words) for keys, words in calls]

    async def close(self) -> None:
        """Disconnect."""
        self.client.close()


class KeptInRedis:
    """Accounts under a prefix of their own; a restart is a new run id."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.prefix = f"budget-{uuid4().hex[:12]}:"
        self._clock = clock
        self._run_ids = count(1)
        self._copy: dict[bytes, bytes] = {}
        link = BlockingLink(url)
        self._client = link.client
        accounts = RedisAccounts(url, TIMING, prefix=self.prefix, scripts=self._scripts())
        accounts._link = link  # type: ignore[assignment]
        self.accounts = accounts
        self.advance(0)
        self._restart()

    def advance(self, ms: int) -> None:
        """Set its clock to the world's."""
        now_ms = round(self._clock.time() * 1_000)
        seconds, rest = divmod(now_ms, 1_000)
        self._client.hset(f"{self.prefix}clock", mapping={"s": seconds, "us": rest * 1_000})

    def lose(self) -> None:
        """Restart empty."""
        if keys := self._keys():
            self._client.delete(*keys)
        self._restart()

    def snapshot(self) -> None:
        """Keep a copy."""
        self._copy = {key: self._client.dump(key) for key in self._keys()}

    def restore(self) -> None:
        """Restart with the copy."""
        self.lose()
        for key, value in self._copy.items():
            self._client.restore(key, 0, value)

    def close(self) -> None:
        """Leave nothing behind."""
        self._client.delete(f"{self.prefix}clock", f"{self.prefix}run", *self._keys())
        self._client.close()

    def _restart(self) -> None:
        self._client.set(f"{self.prefix}run", f"run{next(self._run_ids)}")

    def _keys(self) -> list[bytes]:
        return list(self._client.scan_iter(match=f"{self.prefix}{{*", count=1_000))

    def _scripts(self) -> Scripts:
        def told(one: Script) -> Script:
            text = one.text.replace("redis.call('TIME')", f"redis.call('HMGET', '{self.prefix}clock', 's', 'us')")
            return script(text.replace(RUN_ID, f"redis.call('GET', '{self.prefix}run')"))

        return Scripts(*map(told, Scripts()))
