"""What tests of commands share: commands run in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command says how its process logs; later tests log as before."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
