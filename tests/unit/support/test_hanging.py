"""A test that hangs ends the run red, and says where."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(folder: Path, text: str, limit_s: float = 1.0) -> tuple[int, str]:
    """Exit code and output of pytest on one file, where nothing may take longer than `limit_s`."""
    (folder / "conftest.py").write_text("from tests.support import hanging\nfrom tests.support.hanging import *\n")
    with (folder / "conftest.py").open("a") as conftest:
        conftest.write(f"hanging.GRACE_S = hanging.END_S = {limit_s}\n")
    (folder / "test_it.py").write_text(textwrap.dedent(text))
    rules = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={folder}", f"--timeout={limit_s}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *rules, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    """With the stacks of its tasks: the thread's own ends in the event loop. Its time is over as soon as it waits, so
    that nothing else runs out of time on a busy machine."""
    code, said = run(
        tmp_path,
        """
        import asyncio
        import signal

        async def nobody_comes():
            assert 60 < signal.getitimer(signal.ITIMER_REAL)[0] <= 120
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            await asyncio.Event().wait()

        async def test_hangs():
            await asyncio.create_task(nobody_comes())

        def test_next():
            pass
        """,
        limit_s=120.0,
    )
    assert code == 1
    assert "1 failed, 1 passed" in said
    assert "Timeout (>120.0s) from pytest-timeout" in said
    assert "in nobody_comes" in said


@pytest.mark.parametrize(
    "text",
    [
        """
        import asyncio

        async def stubborn():
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass

        async def test_leaves_a_task_that_cannot_be_ended():
            task = asyncio.create_task(stubborn())
            await asyncio.sleep(0)
            assert False, task
        """,
        """
        import threading, time

        def stubborn():
            time.sleep(30)

        def test_leaves_a_thread_that_does_not_return():
            threading.Thread(target=stubborn).start()
        """,
    ],
)
def test_what_no_timeout_reaches_ends_the_run(tmp_path: Path, text: str) -> None:
    """A teardown that hangs, and an interpreter that cannot end: exit code 1 and all stacks."""
    code, said = run(tmp_path, text)
    assert code == 1
    assert "most recent call first" in said
