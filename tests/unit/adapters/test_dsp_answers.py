"""Answers that come together are worked on together."""

from __future__ import annotations

import asyncio

from rtb.adapters.dsp_answers import MOST, Answers
from rtb.adapters.http_call import Call
from rtb.openrtb import BidResponse


class Ledger:
    """A bidder that writes down what becomes of its answers; one that says "bad" fails to be taken."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.over = asyncio.Event()
        self.left = 0

    def take(self, call: Call, response: BidResponse) -> None:
        """The end of most."""
        if response.id == "bad":
            raise ValueError("its bids")
        self._note(f"took {response.id}")

    def failed(self, call: Call, error: Exception) -> None:
        """The end of the others."""
        self._note(f"{type(error).__name__} at {call.context}")

    def _note(self, line: str) -> None:
        self.lines.append(line)
        self.left -= 1
        if not self.left:
            self.over.set()


async def worked(*contents: bytes) -> list[str]:
    """What becomes of answers that come in one step of the loop."""
    answers, ledger = Answers(), Ledger()
    ledger.left = len(contents)
    for n, content in enumerate(contents):
        call = Call(b"", lambda call: None, 0, n)
        call.content = content
        answers.add(ledger, call)
    assert ledger.lines == []
    await ledger.over.wait()
    return ledger.lines


def said(name: str) -> bytes:
    """An answer."""
    return b'{"id":"%b"}' % name.encode()


async def test_all_are_read_before_one_is_taken() -> None:
    """So that one that cannot be read has failed when the first is taken."""
    assert await worked(said("a"), b"<html>", said("b")) == ["BadRequest at 1", "took a", "took b"]


async def test_an_answer_that_fails_costs_no_other() -> None:
    """Its bidder is told."""
    assert await worked(said("bad"), said("good")) == ["ValueError at 0", "took good"]


async def test_many_answers_are_worked_on_in_parts() -> None:
    """The last is read, and fails, when the first are through."""
    lines = await worked(*(said(str(n)) for n in range(MOST)), b"<html>")
    assert lines == [*(f"took {n}" for n in range(MOST)), f"BadRequest at {MOST}"]
