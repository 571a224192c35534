"""What comes after the auction: tracking URLs and their edge, the events behind them, and notices to bidders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtb.adapters.key_file import key_file
from rtb.adapters.lean_http import LeanHttp
from rtb.config import MEMORY, Settings
from rtb.domain.attribution import Windows
from rtb.domain.tracking import Signer
from rtb.edges.bidder_notices import BidderNotices
from rtb.edges.event_consumers import EventConsumer, tracked_consumers
from rtb.edges.tracker_http import TrackerResponder
from rtb.services.links import Links
from rtb.services.notice_sender import NoticeSender
from rtb.services.notices import Notices
from rtb.services.performance import Performance
from rtb.services.refusals import RefusalKeeper
from rtb.services.tickets import Tickets
from rtb.services.tracker import Tracker
from rtb.services.tracking import Arrival, Tracking
from rtb.wiring.ground import Ground
from rtb.wiring.money import Money


@dataclass(frozen=True, slots=True)
class Told:
    """The parts by which impressions, clicks, conversions and notices are told; nothing is started."""

    signer: Signer
    links: Links | None
    tracker: Tracker
    responder: TrackerResponder | None
    tracking: Tracking
    consumers: list[EventConsumer[Arrival]]
    elsewhere: BidderNotices
    performance: Performance
    refusals: RefusalKeeper
    notices: Notices | None
    http: LeanHttp


def signer(settings: Settings) -> Signer:
    """Of the keys in `tracking.key_file`, which is made when it is missing. Raises ConfigError."""
    keys, identity = key_file(Path(settings.tracking.key_file))
    return Signer(keys, identity)


def told(ground: Ground, funds: Money, signs: Signer) -> Told:
    """The parts around `signs`."""
    settings, clock, instance = ground.settings, ground.clock, ground.instance
    out, outbox, metrics, rates = ground.out, ground.outbox, ground.metrics, ground.rates
    given = settings.tracking
    http = LeanHttp(allow=settings.notices.allow)
    notices = None
    if settings.notices.enabled:
        notices = Notices(NoticeSender(http, clock, timeout_s=settings.notices.timeout_s), clock, rates)
    # Where daemons share a broker, another one may take an event: its ticket would be kept here in vain.
    tickets = Tickets(signs) if settings.broker.url == MEMORY else None
    tracker = Tracker(
        signs,
        outbox.post,
        clock,
        instance=instance,
        on_won=notices.won if notices else None,
        on_lost=notices.lost if notices else None,
        on_billed=notices.billed if notices else None,
        tickets=tickets,
    )
    tracking = Tracking(
        signs.read if tickets is None else tickets.again,
        signs.user_digest,
        funds.billing,
        out.ledger,
        out.state,
        campaign=ground.late.campaign,
        rates=rates,
        bills_wins=settings.bills_wins,
        windows=Windows(
            click_s=given.click_s, click_through_s=given.click_through_s, view_through_s=given.view_through_s
        ),
    )
    performance = Performance(out.ledger, clock, instance=instance, post=outbox.post)
    funds.billing.on_written = performance.note
    responder = None
    if given.enabled:
        responder = TrackerResponder(
            tracker,
            clock,
            postback_secret=given.postback_secret,
            trusted_proxy=given.trusted_proxy,
            patience_s=given.answer_ms / 1e3,
            redirect_s=given.redirect_ms / 1e3,
        )
    return Told(
        signer=signs,
        links=Links(signs, clock, instance=instance) if given.enabled else None,
        tracker=tracker,
        responder=responder,
        tracking=tracking,
        consumers=tracked_consumers(out.broker, tracking, metrics, clock),
        elsewhere=BidderNotices(out.broker, tracker, metrics, instance=instance),
        performance=performance,
        refusals=RefusalKeeper(out.ledger, clock),
        notices=notices,
        http=http,
    )
