"""A dashboard with all of its API over real services: embedded databases, a clock set by hand, a real server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from dashboard.access import Access
from dashboard.api import Api
from dashboard.server import create_app
from dashboard.tokens import Role, Tokens
from rtb.adapters.memory_alerts import MemoryAlerts
from rtb.adapters.memory_history import MemoryHistory
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.adapters.memory_state import MemoryState
from rtb.domain.campaign import Campaign
from rtb.domain.pacing import Pace
from rtb.ports import LedgerKind, LedgerRow
from rtb.ports.metric_source import MetricSource
from rtb.services.alert_notices import AlertNotices
from rtb.services.alerts import AlertWatch
from rtb.services.auction_tape import AuctionTape
from rtb.services.bidder_health import BidderHealth
from rtb.services.campaigns import Campaigns
from rtb.services.frame_source import FrameSource
from rtb.services.history import Recorder
from rtb.services.metric_sources import MetricSources
from rtb.services.own_figures import OwnFigures, in_ledger
from rtb.services.performance import Performance
from rtb.services.queue_monitor import QueueReport, QueueRow
from tests.unit.parts import World

OPS, WALL = {"Authorization": "Bearer ops-token"}, {"Authorization": "Bearer wall-token"}


class DashboardSite:
    """Serves a world; `start` it, and `stop` it in the end."""

    def __init__(self, world: World, *, port: int = 0, sources: Sequence[MetricSource] = ()) -> None:
        """Of this world; with campaigns known by their own ids at `sources`."""
        self.world = world
        self.port = port
        self.paces: dict[str, Pace] = {}
        clock = world.clock
        self.ledger = MemoryLedger()
        self.performance = Performance(self.ledger, clock, instance="a")
        self.sources = MetricSources(
            sources,
            lambda campaign_id: {source.name: campaign_id for source in sources},
            world.rates,
            clock,
            house=OwnFigures(in_ledger(self.ledger), world.rates.currency),
        )
        self.catalogue = Campaigns(world.repository, world.house)
        self.actors: list[str] = []
        self.recorder = Recorder(MemoryHistory(), clock)
        self.catalogue.record = self._record
        self.bidders: list[BidderHealth] = []
        self.source = FrameSource(
            world.metrics,
            clock,
            bidders=lambda: [health.tally() for health in self.bidders],
            queue_ready=lambda: self.queues.ready,
        )
        self.values: dict[str, Mapping[str, float | None]] = {"": {"bid_rate": 0.5}}
        notices = AlertNotices(MemoryAlerts(), MemoryState(clock), clock, instance="a")
        self.alerts = AlertWatch(notices._store, lambda id_: self.values.get(id_, {}), notices, clock)
        self.tape = AuctionTape(world.exchange, world.house, world.rates, clock)
        world.exchange.listen(self.tape)
        self.queues = QueueReport(1.0, (QueueRow("bid.requests", 3, 1, 2, 10.0, None),))
        hashes = {
            name: (role, hashlib.sha256(f"{name}-token".encode()).hexdigest())
            for name, role in (("ops", Role.OPERATOR), ("wall", Role.VIEWER))
        }
        self.api = Api(
            catalogue=self.catalogue,
            campaigns=world.house.campaigns,
            performance=self.performance,
            sources=self.sources,
            history=self.recorder.history,
            alerts=self.alerts,
            channels=lambda: notices.channels,
            tape=self.tape,
            queues=lambda: self.queues,
            waiting=lambda: 4,
            snapshots=self.source,
            clock=clock,
            currency=world.rates.currency,
            funded=world.house.is_funded,
            pace=self.paces.get,
        )
        self.tokens = Tokens(hashes, bytes(32))
        access = Access(self.tokens, clock.time, clock.monotonic_ns)
        self.runner = web.AppRunner(create_app(self.source, access=access, api=self.api), shutdown_timeout=1)
        self.session = aiohttp.ClientSession()
        self.origin = ""

    def _record(self, old: Campaign | None, new: Campaign, actor: str, cause: str) -> None:
        self.actors.append(actor)
        self.recorder.changed(old, new, actor, cause)

    async def start(self) -> None:
        """Open the database, put the world's campaigns there, and serve."""
        await self.world.repository.start()
        await self.world.repository.put_campaigns([*self.world.house.campaigns()])
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self.runner.addresses[0][1]
        self.origin = f"http://127.0.0.1:{self.port}"

    def cookie(self, name: str) -> str:
        """The session cookie of somebody who has logged in: "ops" or "wall"."""
        found = self.tokens.identify(f"{name}-token")
        assert found is not None
        return self.tokens.session(found.identity, int(self.world.clock.time()) + 3_600)

    async def stop(self) -> None:
        """End it all."""
        await self.session.close()
        await self.runner.cleanup()
        await self.alerts.stop()
        await self.sources.close()
        await self.recorder.stop()

    async def bought(self, campaign_id: str, date: str, kind: LedgerKind, charged: float = 0.0) -> None:
        """A row in the ledger, as the consumers of events write it; `charged` is in units of the currency."""
        key = f"{campaign_id}-{date}-{kind}-{charged}"
        nanos = round(charged * 1e9)
        row = LedgerRow(
            key=key,
            kind=kind,
            campaign_id=campaign_id,
            day=date,
            date=date,
            auction_id="x",
            impid="1",
            instance="a",
            price_nanos=nanos,
            charged_nanos=nanos,
            expires_at=self.world.clock.time() + 60,
            received_at=self.world.clock.time(),
        )
        await self.ledger.append([row], epochs={})
        self.performance.note([row])

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and decoded body, as the operator unless `headers` say otherwise."""
        options.setdefault("headers", OPS)
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.origin + path, **options) as response:
            text = await response.text()
            return response.status, (await response.json() if text else None)
