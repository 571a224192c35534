"""What tracking URLs tell: which events are accepted, and as which messages they go on their way.

An edge hands in what it was told and when; whether it counts is decided by the signed token alone, without asking
anybody. An accepted event is posted to ``ad.events``, and the edge answers once it is safe: confirmed by the broker, or
fsynced in the spool. Everything that needs memory (seen before, attribution, bots) is for those who consume it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from rtb import messages
from rtb.domain.tracking import BadToken, Signer, Ticket, event_id, untold_id
from rtb.errors import BrokerError, Unroutable
from rtb.messages import BidderNotice, MessageType, TrackedEvent
from rtb.openrtb import Loss
from rtb.ports import Clock, Message
from rtb.services import topology
from rtb.services.tickets import Tickets

Done = Callable[[BrokerError | None], None]
Post = Callable[[str, str, Message, Done | None], None]

IMPRESSION, CLICK, CONVERSION = MessageType.IMPRESSION, MessageType.CLICK, MessageType.CONVERSION
MAX_TOKEN, MAX_UA, MAX_IP, MAX_ID = 2_048, 512, 45, 200
MAX_VALUE = 1e9
REFUSED_PER_S = 50
"""Refused events that are recorded; more are only counted, lest an attacker fill the ledger."""


class Refused(StrEnum):
    """Why an event is not accepted."""

    MALFORMED = "malformed token"
    UNKNOWN_KEY = "unknown key"
    FORGED = "forged token"
    EXPIRED = "expired"
    OTHER_CAMPAIGN = "token of another campaign"
    NO_CAMPAIGN = "token of another bidder's win"
    DESTINATION = "another destination"
    NO_TOKEN = "no token"
    UNAUTHORIZED = "unauthorized"
    INVALID = "invalid"
    FORGOTTEN = "no such sale is remembered"
    GONE = "the instance that sold it is gone"


class Visit(Struct, frozen=True, gc=False):
    """What an edge was told, beside the token: see messages.TrackedEvent. `received_at` is the moment it arrived."""

    received_at: float
    source: str = "pixel"
    ua: str = ""
    ip: str = ""
    value: float = 0.0
    currency: str = ""
    order_id: str = ""


class Tracker:
    """Accepts or refuses events and notices.

    Counters only grow: `accepted` by kind, `refused` by kind and reason, `notices` by kind, those of them that were
    `forwarded` to the instance that sold, and `unsafe`: accepted, but neither broker nor spool had it when the answer
    could wait no longer (it may still get there).
    """

    def __init__(
        self,
        signer: Signer,
        post: Post,
        clock: Clock,
        *,
        instance: str,
        on_won: Callable[[str, str], bool] | None = None,
        on_lost: Callable[[str, str, int], bool] | None = None,
        on_billed: Callable[[str, str, str, str], bool] | None = None,
        refused_per_s: int = REFUSED_PER_S,
        tickets: Tickets | None = None,
    ) -> None:
        """Post what is accepted.

        Args:
            signer: of the tokens.
            post: exchange, routing key, message, and what to call once it is safe; neither raises nor waits.
            clock: time.
            instance: of this process.
            on_won: with auction id and impid, when another bidder's win was also won upstream; whether it is known.
            on_lost: the same and the loss reason, when it was lost there.
            on_billed: the same and the device's address and user agent, when its impression is to be billed.
            refused_per_s: how many refused events a second are recorded.
            tickets: kept of what was read, for whoever takes the events off their queues in this process.
        """
        self.signer = signer
        self._read = signer.read if tickets is None else tickets.read
        self._post = post
        self._clock = clock
        self._instance = instance
        self._on_won, self._on_lost, self._on_billed = on_won, on_lost, on_billed
        self._bucket = _Bucket(refused_per_s, clock)
        self._refusals = 0
        self.accepted = dict.fromkeys(_ROUTES, 0)
        self.refused: dict[tuple[str, str], int] = {}
        self.notices = {"win": 0, "loss": 0, "billing": 0}
        self.forwarded = {"win": 0, "loss": 0, "billing": 0}
        self.unsafe = 0

    def ticket(self, kind: str, token: str, visit: Visit) -> Ticket | Refused:
        """The ticket of a token that may speak of this kind of event; else the refusal, counted and recorded."""
        try:
            ticket = self._read(token)
        except BadToken as error:
            return self.refuse(kind, Refused(error.flaw.value), visit, token=token)
        if not ticket.campaign_id:
            return self.refuse(kind, Refused.NO_CAMPAIGN, visit, token=token)
        if kind == "impression" and visit.received_at > ticket.expires_at:
            return self.refuse(kind, Refused.EXPIRED, visit, token=token)
        return ticket

    def take(self, kind: str, token: str, visit: Visit, done: Done | None) -> Refused | None:
        """Accept an event, and call `done` once it is safe, perhaps at once; or refuse it, and do not."""
        ticket = self.ticket(kind, token, visit)
        if isinstance(ticket, Refused):
            return ticket
        self.accept(kind, ticket, token, visit, done)
        return None

    def accept(self, kind: str, ticket: Ticket, token: str, visit: Visit, done: Done | None) -> None:
        """Post the event of a ticket that was found good."""
        self.send(kind, self.message(kind, ticket, token, visit), done)

    def message(self, kind: str, ticket: Ticket, token: str, visit: Visit) -> Message:
        """What tells the event of a ticket that was found good."""
        return _message(kind, event_id(ticket, kind, visit.order_id), _event(visit, token=token))

    def send(self, kind: str, message: Message, done: Done | None) -> None:
        """Post the message of an event that is accepted by that."""
        self.accepted[kind] += 1
        _, exchange, routing_key = _ROUTES[kind]
        self._post(exchange, routing_key, message, done)

    def take_told(self, campaign_id: str, user_id: str, visit: Visit, done: Done | None) -> Refused | None:
        """Accept a conversion without a token from a teller who is known; its order makes it one of a kind."""
        if not (campaign_id and user_id and visit.order_id):
            return self.refuse("conversion", Refused.NO_TOKEN, visit, campaign_id=campaign_id)
        event = _event(visit, campaign_id=campaign_id, user_id=user_id)
        self.send("conversion", _message("conversion", untold_id(campaign_id, user_id, visit.order_id), event), done)
        return None

    def refuse(self, kind: str, reason: Refused, visit: Visit, *, token: str = "", campaign_id: str = "") -> Refused:
        """Count an event that is not accepted, and record it while there are not too many."""
        self.refused[kind, reason.value] = self.refused.get((kind, reason.value), 0) + 1
        if self._bucket.take():
            self._refusals += 1
            message_id = f"{self._instance}:refused:{self._refusals}"
            event = _event(visit, token=token, campaign_id=campaign_id, refused=reason.value)
            _, exchange, routing_key = _ROUTES[kind]
            self._post(exchange, routing_key, _message(kind, message_id, event), None)
        return reason

    def notice(self, kind: str, token: str, done: Done, reason: int = Loss.OUTBID) -> Refused | None:
        """Take our own nurl ("win") or lurl ("loss"), and tell who fires the notices of another bidder; `done` is
        called once he knows, perhaps at once."""
        try:
            ticket = self.signer.read(token)
        except BadToken as error:
            return self.count_refused(kind, Refused(error.flaw.value))
        self.notices[kind] += 1
        if ticket.campaign_id:
            done(None)
            return None
        return self._pass_on(BidderNotice(kind, ticket.auction_id, ticket.impid, int(reason)), ticket.instance, done)

    def bill(self, token: str, visit: Visit, done: Done) -> Refused | None:
        """Take our own burl: the impression of a house campaign, or what another bidder waits for."""
        try:
            ticket = self._read(token)
        except BadToken as error:
            return self.refuse("impression", Refused(error.flaw.value), visit, token=token)
        self.notices["billing"] += 1
        if ticket.campaign_id:
            return self.take("impression", token, visit, done)
        ip, ua = visit.ip[:MAX_IP], visit.ua[:MAX_UA]
        notice = BidderNotice("billing", ticket.auction_id, ticket.impid, ip=ip, ua=ua)
        return self._pass_on(notice, ticket.instance, done)

    def heard(self, notice: BidderNotice) -> None:
        """Take a notice that was called at another instance."""
        if not self._tell(notice):
            self.count_refused(notice.kind, Refused.FORGOTTEN)

    def _pass_on(self, notice: BidderNotice, instance: str, done: Done) -> Refused | None:
        """Tell who fires notices here, or the instance that sold."""
        if self._tell(notice):
            done(None)
            return None
        if instance in ("", self._instance):
            return self.count_refused(notice.kind, Refused.FORGOTTEN)

        def forwarded(error: BrokerError | None) -> None:
            if error is None:
                self.forwarded[notice.kind] += 1
            elif isinstance(error, Unroutable):
                self.count_refused(notice.kind, Refused.GONE)
            done(error)

        now = self._clock.time()
        name = f"{notice.auction_id}:{notice.impid}:{notice.kind}"
        body = messages.encode(MessageType.BIDDER_NOTICE, notice, message_id=name, timestamp=now)
        message = Message(body=body, message_id=name, timestamp=now, persistent=False)
        self._post("", topology.notice_queue(instance), message, forwarded)
        return None

    def _tell(self, notice: BidderNotice) -> bool:
        """Whether the sale is known here; where nobody fires notices, every one is."""
        auction_id, impid = notice.auction_id, notice.impid
        if notice.kind == "win":
            return self._on_won is None or self._on_won(auction_id, impid)
        if notice.kind == "loss":
            return self._on_lost is None or self._on_lost(auction_id, impid, notice.reason)
        return self._on_billed is None or self._on_billed(auction_id, impid, notice.ip, notice.ua)

    def count_refused(self, kind: str, reason: Refused) -> Refused:
        """Count what is not accepted, and is not worth a record."""
        self.refused[kind, reason.value] = self.refused.get((kind, reason.value), 0) + 1
        return reason


class _Bucket:
    """Lets so many through a second."""

    def __init__(self, per_s: int, clock: Clock) -> None:
        """Full."""
        self._per_s = per_s
        self._clock = clock
        self._left = float(per_s)
        self._seen_ns = clock.monotonic_ns()

    def take(self) -> bool:
        """Whether one more may pass."""
        now_ns = self._clock.monotonic_ns()
        self._left = min(float(self._per_s), self._left + (now_ns - self._seen_ns) * self._per_s / 1e9)
        self._seen_ns = now_ns
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


_ROUTES = {kind.value: (kind, *topology.ROUTES[kind]) for kind in (IMPRESSION, CLICK, CONVERSION)}


def _message(kind: str, message_id: str, event: TrackedEvent) -> Message:
    """What goes to the queue of its kind."""
    message_type, _, _ = _ROUTES[kind]
    received_at = event.received_at
    body = messages.encode(message_type, event, message_id=message_id, timestamp=received_at)
    return Message(body=body, message_id=message_id, timestamp=received_at)


def _event(
    visit: Visit, *, token: str = "", campaign_id: str = "", user_id: str = "", refused: str = ""
) -> TrackedEvent:
    """What is passed on, within the limits of the message."""
    return TrackedEvent(
        received_at=visit.received_at,
        token=token[:MAX_TOKEN] if refused else token,
        source=visit.source,
        ua=visit.ua[:MAX_UA],
        ip=visit.ip[:MAX_IP],
        campaign_id=campaign_id[:MAX_ID],
        user_id=user_id[:MAX_UA],
        value=visit.value,
        currency=visit.currency,
        order_id=visit.order_id[:MAX_ID],
        refused=refused,
    )
