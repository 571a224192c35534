"""The adapters that the settings name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.management import ManagementApi
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.redis_state import RedisState
from rtb.adapters.spool import FileSpool
from rtb.adapters.sql import SqlRepository
from rtb.adapters.sql_database import SqlDatabase
from rtb.adapters.sql_history import SqlHistory
from rtb.adapters.sql_ledger import SqlLedger
from rtb.config import MEMORY, Settings
from rtb.ports import Broker, Spool, StateStore
from rtb.ports.clock import TimerClock


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything beyond the process; nothing is connected yet. `repository`, `ledger` and `history` are one
    database."""

    broker: Broker
    management: ManagementApi | None
    state: StateStore
    database: SqlDatabase
    repository: SqlRepository
    ledger: SqlLedger
    history: SqlHistory
    spool: Spool


def outside(settings: Settings, clock: TimerClock, instance: str) -> Outside:
    """The adapters of broker, state and store. Raises StoreError for a store's URL that is none."""
    journal = Path(settings.broker.journal) if settings.broker.journal else None
    broker: Broker = MemoryBroker(clock, journal=journal)
    if settings.broker.url != MEMORY:
        broker = RabbitBroker(
            settings.broker.url, clock, deferred=True, name=f"rtb {instance}", heartbeat_s=settings.broker.heartbeat_s
        )
    state: StateStore = MemoryState(clock)
    if settings.state.url != MEMORY:
        state = RedisState(settings.state.url, cluster=settings.state.cluster)
    database = SqlDatabase(settings.store.url)
    return Outside(
        broker=broker,
        management=_management(settings),
        state=state,
        database=database,
        repository=SqlRepository(database),
        ledger=SqlLedger(database),
        history=SqlHistory(database),
        spool=FileSpool(Path(settings.broker.spool), heir_from=int(os.environ.get("RTB_WORKERS", "1"))),
    )


def _management(settings: Settings) -> ManagementApi | None:
    """RabbitMQ's management API, for the virtual host of the broker's URL."""
    if settings.broker.url == MEMORY or not settings.broker.management_url:
        return None
    vhost = urlsplit(settings.broker.url).path.removeprefix("/")
    return ManagementApi(settings.broker.management_url, vhost=unquote(vhost) or "/")
