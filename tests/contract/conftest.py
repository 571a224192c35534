"""Every contract test runs over every adapter of its port; a new adapter joins by a line in support.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
import pytest_asyncio

from rtb.ports import Broker, Ledger, Repository, StateStore
from tests.contract.brokers import BROKERS, Connect
from tests.contract.ledgers import LEDGERS, OpenLedger
from tests.contract.support import REPOSITORIES, STATES, StateUnderTest


@pytest.fixture
def prefix() -> str:
    """Keeps the objects of one test apart from another's on a shared server."""
    return uuid4().hex[:8]


@pytest_asyncio.fixture(params=BROKERS)
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Opens connections to one broker."""
    async with BROKERS[request.param](request) as connect:
        yield connect


@pytest_asyncio.fixture
async def broker(connect: Connect) -> Broker:
    """A started connection."""
    return await connect()


@pytest_asyncio.fixture(params=STATES)
async def state_under_test(request: pytest.FixtureRequest) -> AsyncIterator[StateUnderTest]:
    """A state store and its time."""
    async with STATES[request.param](request) as state:
        yield state


@pytest.fixture
def state(state_under_test: StateUnderTest) -> StateStore:
    """A state store."""
    return state_under_test.store


@pytest_asyncio.fixture(params=REPOSITORIES)
async def repositories(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Repository]]:
    """Makes repositories on one database, not started."""
    async with REPOSITORIES[request.param](request) as make:
        yield make


@pytest_asyncio.fixture
async def repository(repositories: Callable[[], Repository]) -> Repository:
    """A started repository."""
    repository = repositories()
    await repository.start()
    return repository


@pytest_asyncio.fixture(params=LEDGERS)
async def ledgers(request: pytest.FixtureRequest) -> AsyncIterator[OpenLedger]:
    """Opens ledgers on one database."""
    async with LEDGERS[request.param](request) as connect:
        yield connect


@pytest_asyncio.fixture
async def ledger(ledgers: OpenLedger) -> Ledger:
    """An open ledger."""
    return await ledgers()
