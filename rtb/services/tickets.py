"""Tickets that this process has read lately.

An event's token is read by the edge that accepts it, and again by whoever takes the event off its queue. Where that is
one process, once is enough: the ticket comes of the token's bytes and of keys that stay while a process runs, so what
was believed then is believed now, to the same effect. All else that speaks for or against an event, above all when it
was received and what was seen before, is asked in both places.
"""

from __future__ import annotations

from collections import OrderedDict

from rtb.domain.tracking import Signer, Ticket

MOST = 16_384
"""About 1 KB each: of events that wait no longer than seconds."""


class Tickets:
    """Tickets by their tokens, the last ones that were read. Only what is believed is kept: who makes up tokens crowds
    nothing out."""

    def __init__(self, signer: Signer, most: int = MOST) -> None:
        """Keep at most `most`."""
        self._signer = signer
        self._most = most
        self._known: OrderedDict[str, Ticket] = OrderedDict()

    def read(self, token: str) -> Ticket:
        """The ticket in a token, which is kept for who reads it next. Raises BadToken."""
        known = self._known
        ticket = known.get(token)
        if ticket is None:
            ticket = known[token] = self._signer.read(token)
            if len(known) > self._most:
                known.popitem(last=False)
        return ticket

    def again(self, token: str) -> Ticket:
        """The ticket in a token that was read before, here or elsewhere; it is kept no longer. Raises BadToken."""
        return self._known.pop(token, None) or self._signer.read(token)
