"""Answers of bidders that came in one step of the loop, worked on together.

To read an answer, to check its bids and enter them in the auction, and what the kernel does between two answers, is
more code than a processor's instruction cache holds. So all that came is read before any of it is worked on, as
requests are taken through their stages (rtb.edges.together).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from rtb.adapters.http_call import Call
from rtb.openrtb import BidResponse, decode_response

MOST = 64
"""Answers that are worked on together: more of them would not be faster, and what they lead to would be later."""


class Answered(Protocol):
    """Whose answer it is."""

    def take(self, call: Call, response: BidResponse) -> None:
        """Have its bids enter the auction."""
        ...

    def failed(self, call: Call, error: Exception) -> None:
        """Something was raised, for it is no response or cannot be taken; called in the except clause."""
        ...


class Answers:
    """Reads answers, and has them taken."""

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
        read = []
        for bidder, call in several:
            try:
                read.append((bidder, call, decode_response(call.content)))
            except Exception as error:
                bidder.failed(call, error)
        for bidder, call, response in read:
            try:
                bidder.take(call, response)
            except Exception as error:
                bidder.failed(call, error)
