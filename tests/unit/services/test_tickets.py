"""Tickets that were read lately: what is kept, for how long, and what never is."""

from __future__ import annotations

import pytest

from rtb.domain.campaign import Pricing
from rtb.domain.tracking import BadToken, Flaw, Keys, Signer, Ticket
from rtb.services.tickets import Tickets

KEYS, IDENTITY = Keys({1: b"a secret of the test"}, 1), b"the secret of its digests"


class Counting(Signer):
    """Counts the tokens that it checks."""

    checked = 0

    def read(self, token: str) -> Ticket:
        """As every signer."""
        self.checked += 1
        return super().read(token)


def token(auction_id: str) -> str:
    """Of a win."""
    ticket = Ticket(auction_id, "1", "c", "ad", "", "here", Pricing.CPM, 7, 9, 1_795_305_600.0, 1_795_305_660.0)
    return Signer(KEYS, IDENTITY).token(ticket)


def test_a_token_is_checked_once_for_the_edge_and_the_consumer() -> None:
    """The edge reads it, told once or twice; who takes the event off its queue gets the same ticket unchecked,
    once."""
    signer = Counting(KEYS, IDENTITY)
    tickets = Tickets(signer)
    told = token("a")
    first = tickets.read(told)
    assert (first.auction_id, first.price_nanos, first.held_nanos) == ("a", 7, 9)
    assert tickets.read(told) is first
    assert tickets.again(told) is first
    assert signer.checked == 1
    assert tickets.again(told) == first
    assert signer.checked == 2


def test_a_token_of_another_daemon_s_edge_is_checked() -> None:
    """What was not read here is read by the consumer each time: only an edge is worth remembering for."""
    signer = Counting(KEYS, IDENTITY)
    tickets = Tickets(signer)
    assert tickets.again(token("a")) == tickets.again(token("a"))
    assert signer.checked == 2


def test_the_oldest_are_forgotten() -> None:
    """Of three with room for two the first is checked again."""
    signer = Counting(KEYS, IDENTITY)
    tickets = Tickets(signer, most=2)
    for name in "abc":
        tickets.read(token(name))
    assert [tickets.again(token(name)).auction_id for name in "cb"] == ["c", "b"]
    assert signer.checked == 3
    assert tickets.again(token("a")).auction_id == "a"
    assert signer.checked == 4


def test_what_is_not_believed_is_refused_every_time() -> None:
    """An altered token is refused by edge and consumer alike, beside its original that is known; and takes no room."""
    signer = Counting(KEYS, IDENTITY)
    tickets = Tickets(signer, most=1)
    genuine = token("a")
    tickets.read(genuine)
    forged = genuine[:40] + ("A" if genuine[40] != "A" else "B") + genuine[41:]
    for read in (tickets.read, tickets.again, tickets.read):
        with pytest.raises(BadToken) as caught:
            read(forged)
        assert caught.value.flaw is Flaw.FORGED
    checked = signer.checked
    assert tickets.again(genuine).auction_id == "a"
    assert signer.checked == checked == 4
