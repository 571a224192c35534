"""Results on Pub/Sub, for whoever waits for an auction somebody else asked for."""

from __future__ import annotations

from rtb import messages
from rtb.domain.money import Rates
from rtb.messages import MessageType
from rtb.ports import Clock, StateStore
from rtb.services.answers import bid_response
from rtb.services.exchange import Auction, Outcome
from rtb.services.links import Links


class Results:
    """A listener of `Exchange.listen`: announces every result on ``auction:results:{request_id}``.

    The message is an envelope of type auction_result around the bid response as the requester gets it; what cannot be
    sent is dropped and counted by the state store, never waited for. Rehearsals are not announced.
    """

    def __init__(self, state: StateStore, clock: Clock, rates: Rates, links: Links | None = None) -> None:
        """Announce over `state`; `links` as for the answers themselves."""
        self._state = state
        self._clock = clock
        self._rates = rates
        self._links = links

    def __call__(self, auction: Auction, outcome: Outcome) -> None:
        """Announce one."""
        request_id = auction.request.id
        if auction.rehearsal or not request_id:
            return
        body = messages.encode(
            MessageType.AUCTION_RESULT,
            bid_response(auction.request, outcome, self._rates, self._links),
            message_id=auction.id,
            timestamp=self._clock.time(),
            correlation_id=request_id,
        )
        self._state.announce(request_id, body)
