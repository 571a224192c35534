"""What unit tests of services and edges share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from rtb.ports import Bidder
from tests.unit.parts import Build, World, world


@pytest_asyncio.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """Exchanges on a database file each, closed after the test; who needs the database starts it."""
    worlds: list[World] = []

    def make(*bidders: Bidder, **options: Any) -> World:
        made = world(str(tmp_path / f"{len(worlds)}.db"), *bidders, **options)
        worlds.append(made)
        return made

    yield make
    for made in worlds:
        await made.profiles.close()
        await made.repository.close()
