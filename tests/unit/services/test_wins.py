"""Wins on their way to the ledger."""

from __future__ import annotations

import asyncio

from msgspec import structs

from rtb import messages
from rtb.domain.campaign import Pricing
from rtb.domain.tracking import Ticket
from rtb.messages import MAX_BODY, MAX_MORE_WINS, WIN, MessageType, Win
from rtb.ports import Message
from rtb.services.wins import MOST, Wins, message_of, win_of, wins_of

TICKET = Ticket("a1", "1", "c", "ad", "2026-11-22", "i", Pricing.CPC, 500_000_000, 10_000, 100.5, 160.5, "u" * 16)


async def test_a_win_is_posted_after_the_step_that_made_it() -> None:
    """What was held for the impression is its price, also where clicks are billed; the id is the same every time."""
    posted: list[tuple[str, str, Message]] = []
    wins = Wins(lambda *post: posted.append(post))
    for posted_before in range(2):
        wins(TICKET)
        assert len(posted) == posted_before
        await asyncio.sleep(0)
    assert wins.posted == 2
    assert posted[0] == posted[1]
    exchange, routing_key, message = posted[0]
    assert (exchange, routing_key, message.message_id, message.persistent) == (
        "ad.events",
        "event.win",
        "a1:1:win",
        True,
    )
    envelope = messages.decode(message.body)
    assert envelope.message_type is MessageType.WIN
    assert WIN.decode(envelope.data) == Win(
        auction_id="a1",
        impid="1",
        campaign_id="c",
        day="2026-11-22",
        price_nanos=10_000,
        expires_at=160.5,
        instance="i",
        received_at=100.5,
        creative_id="ad",
        user="u" * 16,
    )


async def test_wins_of_one_step_travel_together() -> None:
    """Forty wins are messages of 16, 16 and 8, each called by its first win; they come out as they went in."""
    posted: list[Message] = []
    wins = Wins(lambda exchange, key, message: posted.append(message))
    tickets = [structs.replace(TICKET, auction_id=f"a{n}") for n in range(40)]
    for ticket in tickets:
        wins(ticket)
    await asyncio.sleep(0)
    assert [message.message_id for message in posted] == ["a0:1:win", "a16:1:win", "a32:1:win"]
    told = [wins_of(WIN.decode(messages.decode(message.body).data)) for message in posted]
    assert [len(some) for some in told] == [16, 16, 8]
    assert [win for some in told for win in some] == [win_of(ticket) for ticket in tickets]


async def test_wins_gather_for_others() -> None:
    """With time to gather, the wins of several steps travel together, and those that wait go when they are flushed."""
    posted: list[Message] = []
    wins = Wins(lambda exchange, key, message: posted.append(message), gather_s=3_600.0)
    for n in range(3):
        wins(structs.replace(TICKET, auction_id=f"a{n}"))
        await asyncio.sleep(0)
    assert not posted
    wins.flush()
    [message] = posted
    assert [win.auction_id for win in wins_of(WIN.decode(messages.decode(message.body).data))] == ["a0", "a1", "a2"]
    wins.flush()
    assert (wins.posted, len(posted)) == (3, 1)


async def test_wins_that_gather_go_by_themselves() -> None:
    """A win that no other one joins is posted all the same."""
    posted = asyncio.Event()
    wins = Wins(lambda exchange, key, message: posted.set(), gather_s=0.001)
    wins(TICKET)
    await posted.wait()
    assert wins.posted == 1


async def test_many_wins_wait_for_no_others() -> None:
    """Once there are 64, they go in the next step, however long others might take; the next one gathers anew."""
    posted: list[Message] = []
    wins = Wins(lambda exchange, key, message: posted.append(message), gather_s=3_600.0)
    for n in range(MOST):
        wins(structs.replace(TICKET, auction_id=f"a{n}"))
    assert not posted
    await asyncio.sleep(0)
    assert (wins.posted, len(posted)) == (64, 4)
    wins(TICKET)
    await asyncio.sleep(0)
    assert wins.posted == 64
    wins.flush()
    assert wins.posted == 65


def test_the_largest_message_of_wins_is_taken() -> None:
    """Sixteen wins with names as long as they may be stay under what a consumer accepts."""
    long = Win(*["\u4e2d" * 255] * 3, "2026-11-22", 10**15, 2e9, "\u4e2d" * 255, 1.5e9, "\u4e2d" * 200, "u" * 64)
    assert len(message_of([long] * (1 + MAX_MORE_WINS)).body) < MAX_BODY
