"""What people see and do: alerts and whom they tell, the tape of sampled auctions, and the dashboard over all of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from dashboard.access import Access
from dashboard.api import Api
from dashboard.guard import check_bind
from dashboard.server import create_app
from dashboard.tokens import Identity, Role, Tokens, token_file
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.adapters.smtp_notifier import SmtpNotifier
from rtb.adapters.sql_alerts import SqlAlerts
from rtb.adapters.webhook import SlackWebhook, Webhook
from rtb.config import Alerts, Settings
from rtb.ports import Clock, StateStore
from rtb.ports.notifier import Notifier
from rtb.services.alert_notices import AlertNotices
from rtb.services.alert_values import AlertValues
from rtb.services.alerts import AlertWatch
from rtb.services.auction_tape import AuctionTape
from rtb.services.exchange import Exchange
from rtb.services.frame_source import MetricsSource
from rtb.services.metric_sources import MetricSources
from rtb.services.performance import Performance
from rtb.services.queue_monitor import QueueMonitor
from rtb.wiring.ground import Ground
from rtb.wiring.house import House


@dataclass(frozen=True, slots=True)
class Operators:
    """The parts; nothing is started."""

    alerts: AlertWatch
    tape: AuctionTape
    api: Api
    http: OutgoingHttp


def operators(
    ground: Ground,
    home: House,
    exchange: Exchange,
    performance: Performance,
    sources: MetricSources,
    source: MetricsSource,
    monitor: QueueMonitor,
) -> Operators:
    """The parts around `exchange`. The tape listens only where a dashboard shows it."""
    settings, clock, out, outbox, rates = ground.settings, ground.clock, ground.out, ground.outbox, ground.rates
    given = settings.alerts
    http = OutgoingHttp(allow=given.allow)
    notices = AlertNotices(
        SqlAlerts(out.database),
        out.state,
        clock,
        instance=ground.instance,
        notifiers=_notifiers(given, http, clock.time),
        post=outbox.post,
        per_minute=given.per_minute,
    )
    values = AlertValues(
        source,
        lambda: monitor.report,
        performance.current,
        lambda campaign_id: home.bidder.index.get(campaign_id),
        clock,
        pace=home.pacer.pace,
    )
    alerts = AlertWatch(SqlAlerts(out.database), values, notices, clock, every_s=given.every_s)
    page = settings.dashboard
    tape = AuctionTape(exchange, home.bidder, rates, clock, keep=page.tape_keep, per_s=page.tape_per_s)
    if page.enabled:
        exchange.listen(tape)

    api = Api(
        catalogue=home.catalogue,
        campaigns=home.bidder.campaigns,
        performance=performance,
        sources=sources,
        history=out.history,
        alerts=alerts,
        channels=lambda: notices.channels,
        tape=tape,
        queues=lambda: monitor.report,
        waiting=lambda: outbox.waiting,
        snapshots=source,
        clock=clock,
        currency=rates.currency,
        funded=home.bidder.is_funded,
        pace=home.pacer.pace,
    )
    return Operators(alerts, tape, api, http)


def dashboard(
    settings: Settings, source: MetricsSource, api: Api, clock: Clock, state: StateStore
) -> tuple[web.Application, str]:
    """The dashboard's application, and the token that was made for it, to be shown once ("" when there was one).

    Raises:
        ConfigError: the token file is of no use, or the address would let in people without a token.
    """
    given = settings.dashboard
    path, made = Path(given.token_file), ""
    if given.open_on_loopback and not path.exists():
        tokens = Tokens({}, secrets.token_bytes(32))
    else:
        tokens, made = token_file(path)
    check_bind(given.host, tokens=len(tokens), everyone=given.open_on_loopback)
    access = Access(
        tokens,
        clock.time,
        clock.monotonic_ns,
        secure=given.secure_cookie,
        everyone=Identity("local", Role.OPERATOR) if given.open_on_loopback else None,
        state=state,
    )
    return create_app(source, access=access, api=api, names=given.names, origins=given.origins), made


def _notifiers(given: Alerts, http: OutgoingHttp, time: Callable[[], float]) -> Sequence[Notifier]:
    found: list[Notifier] = []
    if given.webhook:
        found.append(Webhook("webhook", given.webhook, http, time, secret=given.webhook_secret))
    if given.slack:
        found.append(SlackWebhook("slack", given.slack, http))
    if given.smtp_host:
        found.append(
            SmtpNotifier(
                "email",
                given.smtp_host,
                given.smtp_port,
                given.smtp_from,
                given.smtp_to,
                security=given.smtp_security,
                username=given.smtp_user,
                password=given.smtp_password,
            )
        )
    return found
