"""Results announced on Pub/Sub."""

from __future__ import annotations

from msgspec import json

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_state import MemoryState
from rtb.domain.money import Rates
from rtb.messages import MessageType
from rtb.openrtb import BidResponse
from rtb.services.results import Results
from tests.unit.parts import Build, Prompt, bid_request, offer


async def test_a_result_is_announced_as_the_requester_gets_it(build: Build) -> None:
    """By the request's id: an envelope auction_result around the bid response (no floor, no rival: 0.01)."""
    world, heard = build(Prompt("dsp", offer("dsp", 2.0))), []
    clock = ManualClock()
    state = MemoryState(clock)
    state.listen(lambda request_id, body: heard.append((request_id, messages.decode(body))))
    world.exchange.listen(Results(state, clock, Rates("USD")))
    request = bid_request()
    await world.run(request)
    ((request_id, envelope),) = heard
    assert (request_id, envelope.correlation_id) == (request.id, request.id)
    assert envelope.message_type is MessageType.AUCTION_RESULT
    response = json.decode(envelope.data, type=BidResponse)
    assert [bid.price for seat in response.seatbid or () for bid in seat.bid or ()] == [0.01]


async def test_a_rehearsal_is_not_announced(build: Build) -> None:
    """`test` = 1 sells nothing, so there is nothing to tell."""
    world, heard = build(), []
    clock = ManualClock()
    state = MemoryState(clock)
    state.listen(lambda request_id, body: heard.append(request_id))
    world.exchange.listen(Results(state, clock, Rates("USD")))
    await world.run(bid_request(test=1))
    assert heard == []
