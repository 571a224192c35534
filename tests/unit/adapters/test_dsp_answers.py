"""Answers that come together go through each stage together."""

from __future__ import annotations

import asyncio

import pytest

from rtb.adapters.dsp_answers import MOST, Answers, Taken
from rtb.adapters.http_call import Call
from rtb.openrtb import BidResponse


class Ledger:
    """A bidder that writes down what becomes of its answers; those named in `faults` fail at that stage."""

    def __init__(self, **faults: str) -> None:
        self.lines: list[str] = []
        self.faults = faults
        self.over = asyncio.Event()
        self.left = 0

    def _note(self, stage: str, call: Call) -> None:
        self.lines.append(f"{stage} {call.context}")
        if self.faults.get(str(call.context)) == stage:
            raise ValueError(stage)

    def read(self, call: Call) -> BidResponse | None:
        """Nothing but a response, or none."""
        self._note("read", call)
        return None if call.context == "silent" else BidResponse()

    def take_in(self, call: Call, response: BidResponse) -> Taken:
        """No bids."""
        self._note("take", call)
        return [], []

    def hand_in(self, call: Call, taken: Taken) -> None:
        """The end of most."""
        self._note("hand", call)
        self._count()

    def misread(self, call: Call, error: Exception) -> None:
        """The end of the others."""
        self.lines.append(f"{error} failed {call.context}")
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            self.over.set()


async def worked(ledger: Ledger, *names: str) -> list[str]:
    """What becomes of answers that come in one step of the loop."""
    answers, ledger.left = Answers(), len(names)
    for name in names:
        answers.add(ledger, Call(b"", lambda call: None, 0, name))
    assert ledger.lines == []
    await ledger.over.wait()
    return ledger.lines


async def test_a_stage_is_done_for_all_before_the_next() -> None:
    """An answer without a bid is not taken in, and reported with the others."""
    lines = await worked(Ledger(), "a", "silent", "b")
    assert lines == ["read a", "read silent", "read b", "take a", "take b", "hand a", "hand silent", "hand b"]


@pytest.mark.parametrize("stage", ["read", "take"])
async def test_an_answer_that_fails_costs_no_other(stage: str) -> None:
    """It leaves the stages; its bidder is told why."""
    lines = await worked(Ledger(bad=stage), "bad", "good")
    assert f"{stage} failed bad" in lines
    assert [line for line in lines if line.startswith("hand")] == ["hand good"]


async def test_many_answers_are_worked_on_in_parts() -> None:
    """The first are through before the last are read."""
    lines = await worked(Ledger(), *(str(n) for n in range(MOST + 1)))
    assert lines.index(f"hand {MOST - 1}") + 1 == lines.index(f"read {MOST}")
