"""How long the parts of a stopping daemon may take."""

from __future__ import annotations

import asyncio

import pytest

from rtb import daemon
from rtb.daemon import Patience


def test_the_parts_share_one_limit_and_each_has_a_fifth() -> None:
    """Of 10 s, counted from the first part on, 3 s are gone, so 7 s are left; after 9 s and after 60 s it is 2 s."""
    now = 1_000.0
    patience = Patience(10.0, lambda: now)
    now = 2_000.0  # the daemon has run for a while
    left = [patience.left_s]
    for passed in (3.0, 9.0, 60.0):
        now = 2_000.0 + passed
        left.append(patience.left_s)
    assert left == [10.0, 7.0, 2.0, 2.0]


async def test_a_part_that_does_not_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when it loses the cancellation, as waits of the standard library may: the parts after it have their
    turn."""
    monkeypatch.setattr(daemon, "LEAVING_S", 0.01)
    asked = asyncio.Event()
    freed = asyncio.Event()

    async def stubborn() -> None:
        while not freed.is_set():
            try:
                await freed.wait()
            except asyncio.CancelledError:
                asked.set()

    await daemon._within(stubborn, Patience(0.01), "stubborn")
    assert asked.is_set()
    freed.set()


async def test_what_a_part_raises_is_raised() -> None:
    """It is no matter of time."""

    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await daemon._within(broken, Patience(10.0), "broken")
