"""The only place where concrete classes meet: settings in, a system of parts out, nothing started."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from dashboard.server import create_app
from rtb.adapters.clock import SystemClock
from rtb.adapters.coroutine_bidder import CoroutineBidder
from rtb.config import MEMORY, Settings
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign
from rtb.domain.money import Rates, to_micros
from rtb.domain.tracking import Ticket
from rtb.domain.windows import Windows
from rtb.edges import http1, prometheus
from rtb.edges.admin import Admin, Command
from rtb.edges.admin_broker import broker_commands
from rtb.edges.admin_money import audit_command
from rtb.edges.admin_performance import history_command, stats_command
from rtb.edges.admin_sources import metrics_command
from rtb.edges.campaign_consumer import CampaignListener, CampaignWriter
from rtb.edges.consumers import BidRequestConsumer
from rtb.edges.http1 import Limits, Server
from rtb.edges.openrtb_http import AuctionResponder
from rtb.edges.prometheus_events import EventsCollector
from rtb.lab.bidders import SlowBidder
from rtb.lab.load.plan import Plan
from rtb.lab.load.queue_target import run_queue
from rtb.messages import AlertKind, PerformanceUpdate
from rtb.ports import Bidder, Broker, Clock
from rtb.services.admission import Admission
from rtb.services.announcements import Announcements
from rtb.services.auction_log import AuctionLog
from rtb.services.automation import Automation
from rtb.services.campaigns import Campaigns
from rtb.services.exchange import Exchange, Rules
from rtb.services.history import Recorder
from rtb.services.house_bidder import HouseBidder
from rtb.services.metrics import FrameSource, Metrics
from rtb.services.outbox import Outbox
from rtb.services.pacing import Pacer, Traffic
from rtb.services.profiles import Profiles
from rtb.services.queue_monitor import QueueMonitor
from rtb.services.rebuild import UTC_ZONE
from rtb.services.results import Results
from rtb.wiring.money import Money, money
from rtb.wiring.outside import Outside, outside
from rtb.wiring.sources import Elsewhere, elsewhere
from rtb.wiring.tracking import Told, signer, told

__all__ = ["Money", "Outside", "System", "Told", "build", "create_app", "resource"]


@dataclass(slots=True)
class System:
    """The parts of a daemon, wired."""

    settings: Settings
    instance: str
    clock: Clock
    rates: Rates
    metrics: Metrics
    source: FrameSource
    outside: Outside
    broker: Broker
    money: Money
    told: Told
    elsewhere: Elsewhere
    profiles: Profiles
    house: HouseBidder
    catalogue: Campaigns
    traffic: Traffic
    automation: Automation
    recorder: Recorder
    outbox: Outbox
    listener: CampaignListener
    writer: CampaignWriter
    monitor: QueueMonitor
    exchange: Exchange
    consumer: BidRequestConsumer
    responder: AuctionResponder
    server: Server
    admin: Admin
    ready: bool = False


def build(settings: Settings, pid: int) -> System:
    """Wire a daemon as the settings say. Raises ConfigError for what cannot be."""
    clock = SystemClock()
    instance = f"{pid}-{secrets.token_hex(4)}"
    rates = Rates(settings.currency.code, settings.currency.rates)
    metrics = Metrics(instance, clock)
    out = outside(settings, clock, instance)
    broker = out.broker
    outbox = Outbox(broker, out.spool, metrics)

    async def find(campaign_id: str) -> Campaign | None:
        return house.index.get(campaign_id) or await out.repository.campaign(campaign_id)

    def date(campaign_id: str, at: float) -> str:
        campaign = house.index.get(campaign_id)
        return budget_day(at, UTC_ZONE if campaign is None else campaign.zone)

    def alert(campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        automation.alert(campaign_id, day, kind, spent_nanos=spent_nanos, limit_nanos=limit_nanos)

    def shares(campaign_id: str) -> tuple[float | None, float]:
        return automation.shares(campaign_id)

    funds = money(settings, out, outbox, metrics, clock, instance, find=find, date=date, alert=alert, shares=shares)
    profiles = Profiles(
        out.state,
        out.repository,
        clock,
        metrics,
        wait_s=settings.profiles.wait_ms / 1e3,
        gather_s=settings.profiles.gather_ms / 1e3,
        cached=settings.profiles.cached,
        fresh_s=settings.profiles.fresh_s,
        ttl_s=settings.profiles.ttl_s,
        on_unknown=settings.profiles.on_unknown,
    )
    auction, tracking = settings.auction, settings.tracking
    signs = signer(settings)
    house = HouseBidder(
        profiles,
        clock,
        rates,
        advertisers=auction.advertisers,
        budgets=funds.budgets,
        signer=signs,
        windows=Windows(
            web_s=tracking.web_s,
            app_s=tracking.app_s,
            native_s=tracking.native_s,
            interstitial_s=tracking.interstitial_s,
        ),
    )
    traffic = Traffic(clock, lambda: metrics.imps)
    pacer = Pacer(clock, funds.budgets.spending, instance=instance, traffic=traffic.weights)

    def won(ticket: Ticket) -> None:
        pacer.won(ticket)
        funds.wins(ticket)

    house.on_win, house.admits, house.objection = won, pacer.admits, pacer.objection
    after = told(
        settings,
        out,
        funds,
        outbox,
        metrics,
        clock,
        instance,
        signs=signs,
        rates=rates,
        campaign=lambda campaign_id: house.index.get(campaign_id),
    )
    bidders: list[Bidder] = [house]
    if settings.lab.bidder:
        lab = settings.lab
        slow = SlowBidder(wait_ms=lab.bidder_ms, cpu_us=lab.bidder_cpu_us, cpm=lab.bidder_cpm)
        bidders.append(CoroutineBidder("lab", slow, clock, rates, crid=auction.crid, adomain=auction.adomain_required))
    admission = Admission(
        deadline_ms=auction.deadline_ms,
        network_margin_ms=auction.network_margin_ms,
        minimum_ms=auction.minimum_ms,
        max_in_flight=auction.max_in_flight,
    )
    rules = Rules(
        increment_micros=to_micros(auction.increment_cpm),
        deals_first=auction.deals == "priority",
        first_price_types=frozenset(auction.auction_types),
        tie_key=blake2b(auction.tie_key.encode(), digest_size=32).digest() if auction.tie_key else b"",
    )
    exchange = Exchange(bidders, profiles, admission, metrics, clock, rates=rates, rules=rules)
    if settings.log.auctions:
        exchange.listen(AuctionLog(settings.log.auctions))
    if settings.state.announce_results:
        exchange.listen(Results(out.state, clock, rates, links=after.links))
    if after.notices is not None and len(bidders) > 1:
        exchange.listen(after.notices.auction_closed)
    catalogue = Campaigns(out.repository, house, announce=Announcements(outbox, clock, instance).campaigns)
    recorder = Recorder(out.history, clock)
    automation = Automation(catalogue, recorder, clock, alert=funds.alerts.raise_alert, funded=funds.budgets.funded)
    catalogue.record = recorder.changed
    catalogue.watchers += [pacer.watch, automation.watch]
    admin = Admin(catalogue, exchange, house, clock, rates, ledger=None if settings.state.url == MEMORY else out.ledger)
    admin.commands["audit"] = audit_command(funds.audit, rates.currency)
    admin.commands["campaigns.history"] = history_command(out.history, catalogue)
    admin.commands["campaigns.stats"] = stats_command(after.performance, catalogue, clock, rates.currency, pacer.pace)
    others = elsewhere(
        settings,
        out.ledger,
        clock,
        rates,
        find=lambda campaign_id: house.index.get(campaign_id),
        campaigns=lambda: house.campaigns(),
    )
    admin.commands["campaigns.metrics"] = metrics_command(others.sources, catalogue, clock)
    consumer = BidRequestConsumer(
        broker, exchange, metrics, clock, rates, prefetch=settings.broker.prefetch, links=after.links
    )
    pages: dict[bytes, Callable[[], bytes]] = {}
    source = FrameSource(metrics, clock, currency=rates.currency)
    responder = AuctionResponder(
        exchange,
        metrics,
        rates,
        shed_after_ms=settings.http.shed_after_ms,
        pages=pages,
        lag_ns=lambda: source.lag_ns,
        links=after.links,
        tracker=after.responder,
    )

    def performed(update: PerformanceUpdate, message_id: str) -> None:
        after.performance.hear(update, message_id)
        pacer.performed(update.campaign_id, update.day, update.impressions)

    http = settings.http
    limits = Limits(http.max_body_bytes, http.max_connections, http.idle_timeout_s, http.request_timeout_s)
    system = System(
        settings=settings,
        instance=instance,
        clock=clock,
        rates=rates,
        metrics=metrics,
        source=source,
        outside=out,
        broker=broker,
        money=funds,
        told=after,
        elsewhere=others,
        profiles=profiles,
        house=house,
        catalogue=catalogue,
        traffic=traffic,
        automation=automation,
        recorder=recorder,
        outbox=outbox,
        listener=CampaignListener(broker, catalogue, metrics, instance=instance, on_performance=after.performance.hear),
        writer=CampaignWriter(broker, catalogue, metrics, clock),
        monitor=QueueMonitor(broker, metrics, clock, stats=out.management),
        exchange=exchange,
        consumer=consumer,
        responder=responder,
        server=Server(responder, clock, limits),
        admin=admin,
    )
    pages |= _pages(system, pid)
    admin.commands |= broker_commands(broker, system.monitor, outbox)
    admin.commands["load.queue"] = _queue_load(broker, pid)
    return system


def _queue_load(broker: Broker, pid: int) -> Command:
    """The load tool over the embedded queue: it must run where the queue is, in this process."""

    async def run(arguments: dict[str, Any]) -> Any:
        plan = msgspec.structs.replace(msgspec.convert(arguments["plan"], Plan), pid=pid)
        return msgspec.to_builtins(await run_queue(broker, plan, lambda line: None))

    return run


def _pages(system: System, pid: int) -> dict[bytes, Callable[[], bytes]]:
    """The pages for machines: alive, ready for traffic, Prometheus."""
    told = system.told
    events = EventsCollector(
        told.tracker, told.tracking, told.notices, system.outbox, lambda: system.profiles.caps_unknown
    )

    def health() -> bytes:
        body = {"status": "ok", "pid": pid, "instance": system.instance}
        return http1.response(b"200 OK", msgspec.json.encode(body))

    def readiness() -> bytes:
        ready = system.ready and system.broker.connected
        status = b"200 OK" if ready else b"503 Service Unavailable"
        body = {"ready": ready, "broker": system.broker.connected, "campaigns": len(system.house.index)}
        return http1.response(status, msgspec.json.encode(body))

    def metrics() -> bytes:
        body = prometheus.render(system.metrics, system.monitor.report, events)
        return http1.response(b"200 OK", body, content_type=prometheus.CONTENT_TYPE.encode())

    return {b"/healthz": health, b"/readyz": readiness, b"/metrics": metrics}


def resource(name: str) -> Path:
    """A file of config/, as installed or in the checkout."""
    installed = Path(__file__).parents[1] / "data" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "config" / name
