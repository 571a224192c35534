"""Every book of accounts in Redis can be listed, of one server and of a cluster."""

from __future__ import annotations

from uuid import uuid4

import pytest

from rtb.adapters.redis_accounts import RedisAccounts
from rtb.domain.budget import Limit, Opening


@pytest.mark.parametrize("kind", ["server", "cluster"])
async def test_all_books_are_listed(request: pytest.FixtureRequest, kind: str) -> None:
    """Whichever node has them, each once, whatever its name; what is not a book is left out."""
    server = request.getfixturevalue("redis_server" if kind == "server" else "redis_cluster")
    accounts = RedisAccounts(server.url, cluster=kind == "cluster", prefix=f"{uuid4().hex}:", timeout_s=20.0)
    names = [f"c-{n}" for n in range(30)] + ["Ünïcode ☂", "with}brace", "a:b"]
    openings = [
        Opening(campaign_id=name, epoch=1, version=1, floor="", limits={"2026-11-22": Limit(9, 9)}, spent={})
        for name in names
    ]
    await accounts.install(openings, await accounts.identity(names))
    assert [book.campaign_id async for book in accounts.books()] == sorted(names)
    await accounts.close()
