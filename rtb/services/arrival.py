"""One tracked event on its way to the ledger: what is known of it so far, and what it is looked up by."""

from __future__ import annotations

from msgspec import Struct

from rtb.domain.campaign import Campaign
from rtb.domain.money import unit_nanos
from rtb.domain.tracking import Ticket, event_id
from rtb.messages import TrackedEvent
from rtb.ports import LedgerKind, LedgerRow, Refusal
from rtb.services.billing import BillingEvent

MAX_DETAIL = 300
_CLICK, _CONVERSION = LedgerKind.CLICK, LedgerKind.CONVERSION


class Arrival(Struct, frozen=True, gc=False):
    """A tracked event off its queue. After the `last` attempt it does not come again."""

    message_id: str
    kind: LedgerKind
    event: TrackedEvent
    last: bool = False


class Work(Struct, gc=False):
    """One arrival on its way: it ends refused, postponed (each with its reason), as a row, or repeated, when the very
    same message stands in the ledger. `key` is that of its row; `campaign_id` is known of what has no ticket, too."""

    arrival: Arrival
    ticket: Ticket | None = None
    key: str = ""
    refused: str = ""
    postponed: str = ""
    repeated: bool = False
    campaign_id: str = ""
    expires_at: float = 0.0
    value_nanos: int = 0
    attributed: str = ""
    bill: BillingEvent | None = None

    @property
    def open(self) -> bool:
        """Whether nothing speaks against it yet."""
        return not (self.refused or self.postponed or self.repeated)


def touched(work: Work) -> tuple[str, ...]:
    """The keys of what it needs: its impression, and for a conversion the click, too."""
    ticket = work.ticket
    if ticket is None:
        return ()
    win = f"{ticket.auction_id}:{ticket.impid}"
    if work.arrival.kind is _CLICK:
        return (f"{win}:impression",)
    return (f"{win}:impression", f"{win}:click")


def other_names(work: Work) -> tuple[str, ...]:
    """Under which other key the same order may stand: a token brings one conversion of its win, an advertiser's server
    that is known by itself one for each order."""
    order_id = work.arrival.event.order_id
    if work.ticket is None or not order_id or work.arrival.kind is not _CONVERSION:
        return ()
    return (event_id(work.ticket, "conversion", "" if not work.arrival.event.token else order_id),)


def is_same_order(work: Work, other: LedgerRow | None) -> bool:
    """Whether a row under another name is of the order that this conversion tells."""
    assert work.ticket is not None
    order = event_id(work.ticket, "conversion", work.arrival.event.order_id)
    return other is not None and order in (other.key, other.event_id)


def ticket_of(touch: LedgerRow, campaign: Campaign) -> Ticket:
    """What a conversion without a token goes by: the touch, and the price that the campaign pays for one today."""
    return Ticket(
        auction_id=touch.auction_id,
        impid=touch.impid,
        campaign_id=touch.campaign_id,
        creative_id=touch.creative_id,
        day=touch.day,
        instance=touch.instance,
        pricing=campaign.pricing,
        price_nanos=unit_nanos(campaign.bid),
        held_nanos=0,
        won_at=touch.received_at,
        expires_at=touch.expires_at,
        user=touch.user,
    )


def click_claim(work: Work) -> str:
    """What a user's click on a creative claims; where the user is not known, the win stands for him."""
    ticket = work.ticket
    assert ticket is not None
    return f"click:{ticket.user or f'{ticket.auction_id}:{ticket.impid}'}:{ticket.creative_id}"


def order_claim(work: Work) -> str:
    """What the conversion of an order claims."""
    return f"order:{work.campaign_id}:{work.arrival.event.order_id}"


def refusal(work: Work) -> Refusal:
    """What is kept of it."""
    arrival, event = work.arrival, work.arrival.event
    return Refusal(
        id=arrival.message_id,
        kind=arrival.kind,
        reason=work.refused,
        received_at=event.received_at,
        campaign_id=work.campaign_id,
        detail=f"{event.source} {event.ip} {event.ua}"[:MAX_DETAIL],
    )
