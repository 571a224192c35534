"""A private Redis server."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtb.lab.servers.redis import Persistence, RedisRefused
from tests.support.redis import MakeRedis, make_redis  # noqa: F401


@pytest.mark.parametrize(
    ("persistence", "stopped", "killed"),
    [(Persistence.NONE, b"$-1\r\n", b"$-1\r\n"), (Persistence.APPENDONLY, b"$1\r\n1\r\n", b"$1\r\n2\r\n"),
     (Persistence.RDB, b"$1\r\n1\r\n", b"$1\r\n1\r\n")],
)  # fmt: skip
def test_what_survives_is_what_was_asked_for(
    make_redis: MakeRedis,  # noqa: F811
    persistence: Persistence,
    stopped: bytes,
    killed: bytes,
) -> None:
    """Nothing, what stood there at the stop, or every command; the port stays."""
    server = make_redis(persistence=persistence)
    server.command("SET", "key", "1")
    server.stop()
    server.start()
    assert server.command("GET", "key") == stopped
    server.command("SET", "key", "2")
    server.kill()
    server.start()
    assert server.command("GET", "key") == killed
    server.restart_empty()
    assert server.command("GET", "key") == b"$-1\r\n"


def test_it_keeps_its_files_in_its_folder_and_evicts_nothing(make_redis: MakeRedis, tmp_path: Path) -> None:  # noqa: F811
    """Two servers do not meet; a setting of redis.conf reaches the server, and a full one refuses to write."""
    one, two = make_redis(settings={"maxmemory": "100kb"}), make_redis()
    assert one.url != two.url
    assert b"noeviction" in one.command("CONFIG", "GET", "maxmemory-policy")
    assert str(tmp_path).encode() in two.command("CONFIG", "GET", "dir")
    with pytest.raises(RedisRefused, match="OOM command not allowed"):
        one.command("SET", "key", b"x" * 100)
