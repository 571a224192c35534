"""Answers of bidders that came in one step of the loop, worked on together.

To read an answer, to check its bids and to enter them in the auction takes more code than a processor's instruction
cache holds, and so does the kernel between two of them. So all that came is taken through each of these stages before
the next one, as requests are (rtb.edges.together).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from rtb.adapters.http_call import Call
from rtb.domain.auction import Bid, Lost
from rtb.openrtb import BidResponse

MOST = 64
"""Answers that go through a stage together: more of them would not be faster, and what they lead to would be later."""

Taken = tuple[Sequence[Bid], Sequence[Lost]]


class Answered(Protocol):
    """Whose answer it is: what becomes of it, stage by stage."""

    def read(self, call: Call) -> BidResponse | None:
        """What it says; None when it bids on nothing."""
        ...

    def take_in(self, call: Call, response: BidResponse) -> Taken:
        """Its valid bids, and the others."""
        ...

    def hand_in(self, call: Call, taken: Taken) -> None:
        """Have them enter the auction."""
        ...

    def misread(self, call: Call, error: Exception) -> None:
        """The end of an answer at which a stage raised, in the except clause."""
        ...


class Answers:
    """Takes answers through the stages."""

    def __init__(self) -> None:
        """None has come yet."""
        self._come: list[tuple[Answered, Call]] = []

    def add(self, bidder: Answered, call: Call) -> None:
        """Note it; what comes in one step of the loop is worked on in the next."""
        if not self._come:
            asyncio.get_running_loop().call_soon(self._work)
        self._come.append((bidder, call))

    def _work(self) -> None:
        come, self._come = self._come, []
        for first in range(0, len(come), MOST):
            self._take(come[first : first + MOST])

    def _take(self, several: Sequence[tuple[Answered, Call]]) -> None:
        read, taken = [], []
        for bidder, call in several:
            try:
                read.append((bidder, call, bidder.read(call)))
            except Exception as error:
                bidder.misread(call, error)
        for bidder, call, response in read:
            try:
                taken.append((bidder, call, ((), ()) if response is None else bidder.take_in(call, response)))
            except Exception as error:
                bidder.misread(call, error)
        for bidder, call, found in taken:
            bidder.hand_in(call, found)
