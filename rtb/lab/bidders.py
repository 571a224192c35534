"""Bidders of the lab, for overload and deadline experiments."""

from __future__ import annotations

import asyncio
import time

from rtb.openrtb import Bid, BidRequest, BidResponse, SeatBid


class SlowBidder:
    """Answers every imp with one price, after a wait and a busy stretch of processor time."""

    def __init__(self, *, wait_ms: float, cpu_us: int, cpm: float) -> None:
        """Wait `wait_ms`, burn `cpu_us`, bid `cpm`."""
        self._wait_s = wait_ms / 1e3
        self._cpu_ns = cpu_us * 1000
        self._cpm = cpm

    async def __call__(self, request: BidRequest) -> BidResponse:
        """The response of rtb.adapters.coroutine_bidder.CoroutineBidder's kind."""
        if self._wait_s:
            await asyncio.sleep(self._wait_s)
        until_ns = time.perf_counter_ns() + self._cpu_ns
        while time.perf_counter_ns() < until_ns:
            pass
        bids = [
            Bid(id=f"lab-{imp.id}", impid=imp.id, price=self._cpm, adm="<b>lab</b>", adomain=["lab.test"], crid="lab")
            for imp in request.imp or ()
        ]
        return BidResponse(id=request.id, cur="USD", seatbid=[SeatBid(seat="lab", bid=bids)])
