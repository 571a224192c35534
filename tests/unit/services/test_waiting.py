"""Waiting with a limit, and ending tasks."""

from __future__ import annotations

import asyncio

import pytest

from rtb.services.waiting import ended, within


async def test_what_comes_in_time_is_told() -> None:
    """True for an event that is set, False for one that is not set within the limit."""
    event = asyncio.Event()
    assert not await within(event.wait(), 0.001)
    assert not await within(event.wait(), -1)
    event.set()
    assert await within(event.wait(), 0)


@pytest.mark.parametrize("between", range(6))
async def test_a_cancellation_that_meets_the_event_gets_through(between: int) -> None:
    """However many iterations of the loop lie between the two."""
    event = asyncio.Event()

    async def wait_for_ever() -> None:
        while True:
            await within(event.wait(), 20)
            event.clear()

    task = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0)
    event.set()
    for _ in range(between):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()


async def test_a_task_that_loses_its_cancellation_is_cancelled_again() -> None:
    """It and the others have ended when `ended` returns."""
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.Event().wait())]
    await asyncio.sleep(0)
    await ended(*tasks, again_s=0.001)
    assert lost == 3
    assert all(task.cancelled() for task in tasks)


async def test_what_has_ended_is_not_waited_for() -> None:
    """No task, or one that failed: its error stays its own."""

    async def fail() -> None:
        raise ZeroDivisionError

    await ended()
    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    await ended(task)
    assert isinstance(task.exception(), ZeroDivisionError)
