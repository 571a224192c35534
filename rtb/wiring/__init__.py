"""The only place where concrete classes meet: settings in, a system of parts out, nothing started."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rtb.config import MEMORY, Settings
from rtb.domain.money import Rates
from rtb.edges import prometheus
from rtb.edges.admin import Admin, Command
from rtb.edges.admin_broker import broker_commands
from rtb.edges.admin_money import audit_command
from rtb.edges.admin_performance import history_command, stats_command
from rtb.edges.admin_sources import metrics_command
from rtb.edges.campaign_consumer import CampaignListener, CampaignWriter
from rtb.edges.consumers import BidRequestConsumer
from rtb.edges.http1 import Limits, Server
from rtb.edges.http_responses import response
from rtb.edges.openrtb_http import AuctionResponder
from rtb.edges.prebid_http import Origins, PrebidPages
from rtb.edges.prometheus_events import EventsCollector
from rtb.edges.prometheus_market import MarketCollector
from rtb.lab.load.plan import Plan
from rtb.lab.load.queue_target import run_queue
from rtb.messages import PerformanceUpdate
from rtb.ports import Broker, Clock
from rtb.services.automation import Automation
from rtb.services.bid_sample import BidSample
from rtb.services.campaigns import Campaigns
from rtb.services.exchange import Exchange
from rtb.services.frame_source import FrameSource
from rtb.services.frames import FrameExchange
from rtb.services.history import Recorder
from rtb.services.house_bidder import HouseBidder
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from rtb.services.pacing import Traffic
from rtb.services.profiles import Profiles
from rtb.services.queue_monitor import QueueMonitor
from rtb.wiring.auctions import market
from rtb.wiring.ground import Ground, ground
from rtb.wiring.house import House, house
from rtb.wiring.market import Market
from rtb.wiring.money import Money, money
from rtb.wiring.operators import Operators, dashboard, operators
from rtb.wiring.outside import Outside
from rtb.wiring.rates import FollowedRates, followed_rates
from rtb.wiring.recording import Recording, recording
from rtb.wiring.sources import Elsewhere, elsewhere
from rtb.wiring.tracking import Told, signer, told

__all__ = ["Money", "Outside", "System", "Told", "build", "dashboard", "resource"]


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
    market: Market
    operators: Operators
    sample: BidSample
    frames: FrameExchange
    recording: Recording | None
    rates_source: FollowedRates | None
    consumer: BidRequestConsumer
    responder: AuctionResponder
    server: Server
    admin: Admin
    ready: bool = False


def build(settings: Settings, pid: int) -> System:
    """Wire a daemon as the settings say. Raises ConfigError for what cannot be."""
    base = ground(settings, instance=f"{pid}-{secrets.token_hex(4)}")
    out, clock, metrics, rates = base.out, base.clock, base.metrics, base.rates
    broker, instance, signs = out.broker, base.instance, signer(settings)
    funds = money(base)
    home = house(base, funds, signs)
    after = told(base, funds, signs)
    others = elsewhere(base)
    trade = market(base, home, after)
    monitor = QueueMonitor(broker, metrics, clock, stats=out.management)
    source = FrameSource(
        metrics,
        clock,
        currency=rates.currency,
        bidders=lambda: [one.health.tally() for one in trade.remote.bidders],
        queue_ready=lambda: monitor.report.ready,
    )
    pages: dict[bytes, Callable[[], bytes]] = {}
    responder = _responder(base, trade, after, source, pages, ready=lambda: system.ready and broker.connected)
    people = operators(base, home, trade.exchange, after.performance, others.sources, source, monitor)
    shared = settings.broker.url != MEMORY
    sample = BidSample(clock, instance=instance, zone=base.late.zone, post=base.outbox.post if shared else None)
    trade.exchange.listen(sample.auction_closed)

    def performed(update: PerformanceUpdate, message_id: str) -> None:
        if sample.hear(update):
            return
        after.performance.hear(update, message_id)
        home.pacer.performed(update.campaign_id, update.day, update.impressions)

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
        profiles=home.profiles,
        house=home.bidder,
        catalogue=home.catalogue,
        traffic=home.traffic,
        automation=home.automation,
        recorder=home.recorder,
        outbox=base.outbox,
        listener=CampaignListener(broker, home.catalogue, metrics, instance=instance, on_performance=performed),
        writer=CampaignWriter(broker, home.catalogue, metrics, clock),
        monitor=monitor,
        exchange=trade.exchange,
        market=trade,
        operators=people,
        sample=sample,
        frames=FrameExchange(source, broker, instance=instance),
        rates_source=followed_rates(base),
        recording=recording(base, trade, home.bidder),
        consumer=BidRequestConsumer(
            broker, trade.exchange, metrics, clock, rates, prefetch=settings.broker.prefetch, links=after.links
        ),
        responder=responder,
        server=Server(responder, clock, limits),
        admin=Admin(
            home.catalogue,
            trade.exchange,
            home.bidder,
            clock,
            rates,
            ledger=None if settings.state.url == MEMORY else out.ledger,
            bidder_code=http.bidder_code,
            further=trade.further,
            links=after.links,
            supply=trade.gate,
        ),
    )
    pages |= _pages(system, pid)
    system.admin.commands |= _commands(system, home, pid)
    return system


def _responder(
    base: Ground,
    trade: Market,
    after: Told,
    source: FrameSource,
    pages: Mapping[bytes, Callable[[], bytes]],
    *,
    ready: Callable[[], bool],
) -> AuctionResponder:
    """What answers over HTTP; `pages` may be filled later."""
    http = base.settings.http
    prebid = PrebidPages(
        lambda: {
            **{bidder.name: () for bidder in trade.exchange.bidders},
            **{one.name: one.settings.media for one in trade.remote.bidders},
        },
        own=http.bidder_code,
        origins=Origins(http.origins),
        ready=ready,
    )
    return AuctionResponder(
        trade.exchange,
        base.metrics,
        base.rates,
        base.clock,
        shed_after_ms=http.shed_after_ms,
        pages=pages,
        lag_ns=lambda: source.lag_ns,
        links=after.links,
        tracker=after.responder,
        prebid_pages=prebid,
        further=trade.further,
    )


def _commands(system: System, home: House, pid: int) -> dict[str, Command]:
    """What the admin socket answers beside the commands of Admin."""
    told, out, clock, currency = system.told, system.outside, system.clock, system.rates.currency
    catalogue = home.catalogue
    return {
        **broker_commands(system.broker, system.monitor, system.outbox),
        "audit": audit_command(system.money.audit, catalogue, currency),
        "campaigns.history": history_command(out.history, catalogue),
        "campaigns.stats": stats_command(
            told.performance, catalogue, clock, currency, home.pacer.pace, sampled=system.sample.performed
        ),
        "campaigns.metrics": metrics_command(system.elsewhere.sources, catalogue, clock),
        "bidders.list": system.market.listed,
        "bidders.switch": system.market.switched,
        "bidders.test": system.market.tested,
        "load.queue": _queue_load(system.broker, pid),
    }


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

    source, recorded = system.rates_source, system.recording
    market = MarketCollector(
        system.market.reports,
        None if source is None else source.conversion.report,
        None if recorded is None else lambda: recorded.file.dropped,
        lambda: {} if system.market.gate is None else system.market.gate.faults,
    )

    def health() -> bytes:
        body = {"status": "ok", "pid": pid, "instance": system.instance}
        return response(b"200 OK", msgspec.json.encode(body))

    def readiness() -> bytes:
        ready = system.ready and system.broker.connected
        status = b"200 OK" if ready else b"503 Service Unavailable"
        body = {"ready": ready, "broker": system.broker.connected, "campaigns": len(system.house.index)}
        return response(status, msgspec.json.encode(body))

    def metrics() -> bytes:
        body = prometheus.render(system.metrics, system.monitor.report, events, market)
        return response(b"200 OK", body, content_type=prometheus.CONTENT_TYPE.encode())

    return {b"/healthz": health, b"/readyz": readiness, b"/metrics": metrics}


def resource(name: str) -> Path:
    """A file of config/, as installed or in the checkout."""
    installed = Path(__file__).parents[1] / "data" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "config" / name
