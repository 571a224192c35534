"""Daemons on real servers: one RabbitMQ, Redis and PostgreSQL for all tests, and a corner of each for one test."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import pytest_asyncio

from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.lab.servers.redis import RedisServer
from tests.support.postgres import PostgresDatabases


@dataclass(frozen=True)
class Production:
    """Where a test's daemons keep what they share: a virtual host, an emptied Redis, a database with the schema."""

    broker: str
    state: str
    store: str

    def settings(self) -> list[str]:
        """For ``Daemon(folder, *settings)``."""
        return [f"broker.url={self.broker}", f"state.url={self.state}", f"store.url={self.store}"]


@pytest_asyncio.fixture
async def production(
    rabbit_server: RabbitServer, redis_server: RedisServer, postgres_databases: PostgresDatabases
) -> Production:
    """A corner of the session's servers for one test."""
    redis_server.command("FLUSHALL")
    vhost = rabbit_server.add_vhost(uuid4().hex)
    return Production(vhost, redis_server.url, await postgres_databases.migrated())
