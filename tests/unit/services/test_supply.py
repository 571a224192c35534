"""The gate of supply chains: what is at fault is refused, marked, or nobody's business."""

from __future__ import annotations

from typing import Literal

import pytest

from rtb.domain.schain import SchainPolicy, SupplyCheck, SupplyFiles
from rtb.openrtb import NoBid
from rtb.services.exchange import Status
from rtb.services.supply import SupplyGate
from tests.unit.parts import Build, Prompt, bid_request, offer


@pytest.mark.parametrize(
    ("on_fault", "nbr", "counted"),
    [("refuse", NoBid.INCOMPLETE_SCHAIN, 1), ("mark", None, 1), ("ignore", None, 0)],
)
async def test_a_request_without_the_chain_that_is_required(
    build: Build, on_fault: Literal["ignore", "mark", "refuse"], nbr: NoBid | None, counted: int
) -> None:
    """Refused it is asked of nobody, and says why; marked it is auctioned as ever."""
    bidder = Prompt("dsp", offer("dsp", 1.0))
    world = build(bidder)
    gate = SupplyGate(SupplyCheck(SchainPolicy(on_fault=on_fault, required=True), SupplyFiles()))
    world.exchange.guard(gate)
    outcome = await world.run(bid_request())
    assert outcome.nbr is nbr
    assert (outcome.status is Status.WON, len(bidder.seen)) == (nbr is None, 0 if nbr else 1)
    assert gate.why(bid_request(), outcome.nbr) == ("schain: absent" if nbr else "")
    assert gate.why(bid_request(), NoBid.INSUFFICIENT_TIME) == ""
    assert gate.faults.total() == counted


async def test_a_rehearsal_is_refused_and_not_counted(build: Build) -> None:
    """As `rtb explain` asks, and a request with `test` = 1."""
    world = build(Prompt("dsp", offer("dsp", 1.0)))
    gate = SupplyGate(SupplyCheck(SchainPolicy(on_fault="refuse", required=True), SupplyFiles()))
    world.exchange.guard(gate)
    outcome = await world.exchange.run(bid_request(), world.clock.monotonic_ns(), rehearsal=True)
    assert (outcome.nbr, gate.faults.total()) == (NoBid.INCOMPLETE_SCHAIN, 0)
