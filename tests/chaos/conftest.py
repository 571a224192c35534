"""The tests of this folder start servers again and again: on a slow machine that takes its time."""

from __future__ import annotations

from pathlib import Path

import pytest

LIMIT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each has a quarter of an hour, unless it says otherwise; only one that hangs takes it."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT_S))
