"""No test hangs: pytest-timeout fails one that takes too long, what its tasks wait for is printed with it, and when
even that does not get through (a teardown that hangs, a thread in C), the run ends with all stacks and exit code 1.

The limit is `timeout` in pyproject.toml, ``--timeout`` or the test's own ``@pytest.mark.timeout``; 0 means no limit.
tests/conftest.py makes the hooks known.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import io
import os
import sys
from collections.abc import Generator

import pytest

GRACE_S = 120.0
"""How much longer than its limit a part of a test (set-up, call, teardown) may take before the run is ended."""

END_S = 60.0
"""How long the interpreter may take to end after the last test: threads that never return would keep it for ever."""

_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the terminal: file descriptor 2 is captured later."""
    assert sys.__stderr__ is not None
    config.stash[_stderr] = os.dup(sys.__stderr__.fileno())


def pytest_unconfigure(config: pytest.Config) -> None:
    """From here on only the interpreter has to end."""
    faulthandler.dump_traceback_later(END_S, exit=True, file=config.stash[_stderr])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Bound it."""
    return (yield from _bounded(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Bound it, and tell what the tasks of a test that took too long wait for."""
    try:
        return (yield from _bounded(item))
    except pytest.fail.Exception as failure:
        if "pytest-timeout" in str(failure):
            item.add_report_section("call", "tasks", tasks())
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Bound it."""
    return (yield from _bounded(item))


def tasks() -> str:
    """The stack of every asyncio task that has not ended."""
    told = io.StringIO()
    for found in gc.get_objects():
        if issubclass(type(found), asyncio.Task) and not found.done():
            found.print_stack(file=told)
    return told.getvalue()


def _bounded(item: pytest.Item) -> Generator[None, object, object]:
    limit_s = _limit_s(item)
    if limit_s:
        faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True, file=item.config.stash[_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    option = item.config.getoption("timeout")
    return float(item.config.getini("timeout") or 0) if option is None else float(option)
