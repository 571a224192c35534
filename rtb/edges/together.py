"""Requests of one step of the loop, worked on together.

An auction from end to end does not fit a processor's instruction cache: one whole auction after the other runs at half
the speed of its parts run by themselves. So what has come is taken through a list of stages, each together: read all,
admit all, and so on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from rtb.ports import Clock
from rtb.services.exchange import Auction, Exchange

MOST = 64
"""Requests that go through a stage together: more of them would not be faster, and their answers would be later."""
LONGEST_NS = 10_000_000
"""If together they take longer, there are fewer the next time, down to one by one."""

Item = TypeVar("Item")
Stage = Callable[[Item], bool]


class Auctioned(Protocol):
    """What has an auction, once that is admitted."""

    auction: Auction


Sold = TypeVar("Sold", bound=Auctioned)


def auctioning(
    exchange: Exchange, concluded: Callable[[Sold, Auction, Exception | None], None]
) -> tuple[Stage[Sold], Stage[Sold]]:
    """The stages from an admitted auction to its outcome. One that has to wait for somebody goes on by itself, and
    comes to its end in `concluded`."""

    def ask(item: Sold) -> bool:
        exchange.ask(item.auction)
        return True

    def settle(item: Sold) -> bool:
        auction = item.auction
        exchange.settle(auction)
        if auction.outcome is None:
            exchange.conclude(auction, partial(concluded, item))
            return False
        return True

    return ask, settle


class Together(Generic[Item]):
    """Takes items through stages. A stage says whether it has done its work, so that the next one can follow."""

    def __init__(
        self,
        stages: Sequence[Stage[Item]],
        failed: Callable[[Item, Exception], None],
        room: Callable[[], int],
        clock: Clock,
    ) -> None:
        """Nothing has come yet.

        Args:
            stages: in their order.
            failed: told of an item at which a stage raised, and why, in the except clause; its stages are over.
            room: how many items may be taken into work now, at least one.
            clock: time.
        """
        self._stages = stages
        self._failed = failed
        self._room = room
        self._now_ns = clock.monotonic_ns
        self._most = 1
        self._come: list[Item] = []

    def add(self, item: Item) -> None:
        """Note it; what comes in one step of the loop is worked on in the next."""
        if not self._come:
            asyncio.get_running_loop().call_soon(self._work)
        self._come.append(item)

    def go_on(self, item: Item, stages: Sequence[Stage[Item]]) -> None:
        """Take an item that had to wait through its last stages."""
        for stage in stages:
            if not self._through(stage, (item,)):
                return

    def _work(self) -> None:
        come, self._come = self._come, []
        first = 0
        while first < len(come):
            began_ns, most = self._now_ns(), self._most
            several: Sequence[Item] = come[first : first + max(1, min(most, self._room()))]
            first += len(several)
            done = len(several)
            for stage in self._stages:
                several = self._through(stage, several)
            if self._now_ns() - began_ns > LONGEST_NS:
                self._most = max(1, most // 2)
            elif done == most < MOST:
                self._most = 2 * most

    def _through(self, stage: Stage[Item], several: Sequence[Item]) -> Sequence[Item]:
        """Those for which a stage has done its work."""
        done = []
        for item in several:
            try:
                if stage(item):
                    done.append(item)
            except Exception as error:
                self._failed(item, error)
        return done
