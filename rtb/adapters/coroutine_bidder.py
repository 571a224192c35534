"""A bidder that is a coroutine: anything that awaits a request's answer can bid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from rtb.domain.auction import Bid
from rtb.domain.intake import take_in
from rtb.domain.money import Rates
from rtb.domain.validation import CridRule
from rtb.errors import BidderError, RtbError
from rtb.openrtb import BidRequest, BidResponse
from rtb.ports import Clock, OpenAuction

_log = structlog.get_logger(__name__)


class CoroutineBidder:
    """Runs ``respond(request)`` for each auction under its own asyncio.wait_for and reports what came of it."""

    secondary = False

    def __init__(
        self,
        name: str,
        respond: Callable[[BidRequest], Awaitable[BidResponse]],
        clock: Clock,
        rates: Rates,
        *,
        crid: CridRule = CridRule.OPTIONAL,
        adomain: bool = False,
    ) -> None:
        """`respond` gets the decoded request; an exception of its is this bidder's failure, never the auction's."""
        self.name = name
        self._respond = respond
        self._clock = clock
        self._rates = rates
        self._crid = crid
        self._adomain = adomain
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: set[type[Exception]] = set()

    def bid(self, auction: OpenAuction) -> None:
        """Start to answer."""
        task = asyncio.get_running_loop().create_task(self._run(auction))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Its money is its own."""
        return True

    async def _run(self, auction: OpenAuction) -> None:
        left_ns = auction.deadline_ns - self._clock.monotonic_ns()
        try:
            response = await asyncio.wait_for(self._answer(auction.request), max(left_ns, 0) / 1e9)
            bids, rejected = take_in(
                response, auction.request, self.name, self._rates, crid=self._crid, adomain=self._adomain
            )
        except TimeoutError:
            return  # the auction's own deadline has passed: it counts this bidder as late
        except RtbError as error:
            auction.report(self, failure=str(error))
        except Exception as error:
            if type(error) not in self._logged:
                self._logged.add(type(error))
                _log.exception("bidder_failed", bidder=self.name, note="further ones of its kind are only counted")
            auction.report(self, failure=f"{type(error).__name__}: {error}")
        else:
            auction.report(self, bids, rejected, answered_ns=self._clock.monotonic_ns())

    async def _answer(self, request: BidRequest) -> BidResponse:
        try:
            return await self._respond(request)
        except TimeoutError as error:  # its own, not the auction's
            raise BidderError(f"TimeoutError: {error}") from None
