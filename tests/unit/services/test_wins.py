"""Wins on their way to the ledger."""

from __future__ import annotations

import asyncio

from rtb import messages
from rtb.domain.campaign import Pricing
from rtb.domain.tracking import Ticket
from rtb.messages import WIN, MessageType, Win
from rtb.ports import Message
from rtb.services.wins import Wins

TICKET = Ticket("a1", "1", "c", "ad", "2026-11-22", "i", Pricing.CPC, 500_000_000, 10_000, 100.5, 160.5, "u" * 16)


async def test_a_win_is_posted_after_the_step_that_made_it() -> None:
    """What was held for the impression is its price, also where clicks are billed; the id is the same every time."""
    posted: list[tuple[str, str, Message]] = []
    wins = Wins(lambda *post: posted.append(post))
    wins(TICKET)
    wins(TICKET)
    assert posted == []
    await asyncio.sleep(0)
    assert (len(posted), wins.posted) == (2, 2)
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
