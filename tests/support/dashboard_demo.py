"""A dashboard with a past: real auctions of a made-up quarter of an hour, for pictures and for looking at pages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rtb.adapters.clock import ManualClock
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.campaign import Campaign, Pacing, Pricing, Status, Targeting
from rtb.domain.money import NANOS
from rtb.domain.pacing import Pace
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.openrtb import BidRequest, Device, Geo, Loss, NoBid, Site
from rtb.ports import LedgerKind, LedgerRow, OpenAuction
from rtb.ports.history import Action, HistoryEvent
from rtb.ports.metric_source import BidResult, BidUpdate, SourceError, SourceFailure
from rtb.services.bidder_health import BidderHealth
from rtb.services.metrics import Metrics
from rtb.services.queue_monitor import MinuteRow, QueueReport, QueueRow, Warned
from tests.support.dashboard_site import DashboardSite
from tests.unit.parts import Prompt, bid_request, campaign, imp, offer, world

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC).timestamp()
SITES = ("news.example", "sport.example", "kitchen.example", "travel.example", "weather.example", "games.example")
PLACES = (("USA", "NY", "New York"), ("USA", "CA", "San Francisco"), ("GBR", "ENG", "London"), ("DEU", "BE", "Berlin"))
NAMES = (
    ("autumn-shoes", "Autumn shoes", "Trailhead Outfitters"),
    ("city-bikes", "City bikes, test rides", "Velomondo"),
    ("espresso-at-home", "Espresso at home", "Crema & Co"),
    ("night-trains", "Night trains across Europe", "Somnia Rail"),
    ("garden-spring", "Garden: early spring", "Green Thumb"),
    ("learn-piano", "Learn the piano in 30 days", "Etude"),
    ("solar-roof", "A roof that earns", "Heliotop"),
    ("winter-sale", "Winter sale -50 %", "Nordlicht Fashion"),
    ("indie-games", "Indie games festival", "Pixel Harbour"),
    ("oat-drinks", "Oat drinks, new taste", "Haferl"),
    ("pet-insurance", "Insure your best friend", "Pfote"),
    ("language-cafe", "Speak Spanish by summer", "Lingua Viva"),
    ("e-scooters", "First ride free", "Swoosh"),
    ("tax-made-easy", "Tax made easy", "Ledgerly"),
    ("family-cinema", "Sunday family cinema", "Lichtspiel"),
    ("run-marathon", "Run your first marathon", "Trailhead Outfitters"),
    ("smart-thermostat", "Heat only when you are in", "Heliotop"),
    ("vinyl-club", "A record a month", "Rillenrausch"),
    ("mountain-huts", "Hut to hut, all summer", "Somnia Rail"),
    ("fresh-pasta", "Fresh pasta in 20 minutes", "Crema & Co"),
)


REMOTE = {
    "northlight": (18.0, 0.004, 0.0),
    "bidwell": (31.0, 0.02, 0.002),
    "tern": (44.0, 0.06, 0.01),
    "harbour": (27.0, 0.01, 0.6),
}
"""Remote bidders: the median of their answers in ms, the share that is late, the share that fails."""


class Moody(Prompt):
    """Bids at most times, by its own dice."""

    def __init__(self, name: str, chance: float, low: float, high: float, dice: random.Random) -> None:
        super().__init__(name)
        self.chance, self.low, self.high, self.dice = chance, low, high, dice

    def bid(self, auction: OpenAuction) -> None:
        """Report a bid, or none."""
        self.bids = (offer(self.name, self.dice.uniform(self.low, self.high)),) if self._wants() else ()
        super().bid(auction)
        self.seen.clear()

    def _wants(self) -> bool:
        return self.dice.random() < self.chance


class AdPlatform:
    """A metric source that knows something of each campaign; one may be `away`."""

    batch = 100

    def __init__(self, name: str, dice: random.Random, *, away: bool = False) -> None:
        self.name, self.dice, self.away = name, dice, away

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """Tell."""
        if self.away:
            raise SourceError("answered 503")
        return {campaign_id: self._one((days.last - days.first).days + 1) for campaign_id in ids}

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Do as told."""
        return [BidResult(update, update.bid_nanos, "") for update in updates]

    def _one(self, days: int) -> CampaignMetrics:
        shown = self.dice.randint(4_000, 9_000) * days
        clicks = shown // self.dice.randint(60, 140)
        bought = clicks * self.dice.randint(10_000, 40_000)
        return CampaignMetrics(Figures(shown, clicks, bought, shown * 2_400_000, bought * 42_000), "USD")


class Demo:
    """The world and its dashboard: `start`, `live` through some seconds, `stop`."""

    def __init__(self, folder: Path, *, campaigns: Sequence[Campaign] | None = None, seed: int = 7) -> None:
        self.dice = random.Random(seed)
        self.clock = ManualClock(NOON)
        bidders = [
            Moody("northlight", 0.35, 1.0, 4.2, self.dice),
            Moody("bidwell", 0.25, 0.6, 3.4, self.dice),
            Moody("tern", 0.2, 2.0, 6.5, self.dice),
        ]
        self.world = world(
            str(folder / "demo.db"),
            *bidders,
            campaigns=demo_campaigns() if campaigns is None else campaigns,
            clock=self.clock,
        )
        platforms = [AdPlatform("google_ads", self.dice), AdPlatform("facebook_ads", self.dice, away=True)]
        self.site = DashboardSite(self.world, sources=platforms)
        self.remote = [
            BidderHealth(BidderSettings(name=name, url=f"https://{name}.example/bid"), self.clock) for name in REMOTE
        ]
        self.site.bidders += self.remote
        self.second_instance = Metrics("exchange-2", self.clock)
        self.world.metrics.instance = "exchange-1"
        self.seconds = 0

    async def start(self) -> None:
        """Serve it, with ledgers of the last days."""
        await self.site.start()
        for one in self.world.house.campaigns():
            await self._days(one)
        await self._changes()

    async def stop(self) -> None:
        """End it."""
        await self.site.stop()
        await self.world.profiles.close()
        await self.world.repository.close()

    async def live(self, seconds: int) -> None:
        """So many seconds of traffic, as fast as it goes."""
        for _ in range(seconds):
            await self.second()

    async def second(self) -> None:
        """One second of traffic: a few real auctions for the tape, and the counters of a thousand more, in waves; slow
        for a while in every fifth minute, now and then a burst that is shed."""
        self.seconds += 1
        slow = 250 < self.seconds % 300 < 275
        for _ in range(3):
            await self.world.run(self._request(), age_ms=min(95.0, self._took_ms(slow)))
            self.clock.advance(0.2)
        rate = 1_150 + 260 * _wave(self.seconds, 97) + 70 * _wave(self.seconds, 23)
        for metrics, share in ((self.world.metrics, 0.6), (self.second_instance, 0.4)):
            self._count(metrics, round(self.dice.gauss(share * rate, 15)), slow)
        for health in self.remote:
            self._ask(health)
        self._buy()
        self.clock.advance(0.4)
        self._look_at_queues()
        self.site.source.receive(self.second_instance.frame())
        self.site.source.tick()

    def _ask(self, health: BidderHealth) -> None:
        """Forty calls: answers of some speed, some late, and of the last one so many errors that it is throttled."""
        median_ms, late, wrong = REMOTE[health.name]
        for _ in range(40):
            now_ns = self.clock.monotonic_ns()
            if health.refusal(now_ns) is not None:
                health.skipped["breaker"] += 1
                continue
            health.ended()
            if self.dice.random() < wrong:
                health.failed(now_ns, self.dice.choice(("status-503", "connect")))
            elif self.dice.random() < late:
                health.timed_out(now_ns)
            else:
                took_ms = min(89.0, median_ms * self.dice.lognormvariate(0, 0.35))
                health.answered(now_ns, round(took_ms * 1e6), int(self.dice.random() < 0.4), 0)
                if self.dice.random() < 0.1:
                    health.won(2_100_000)

    def _took_ms(self, slow: bool) -> float:
        return (5.5 if slow else 2.2) * self.dice.lognormvariate(0, 0.8 if slow else 0.55)

    def _count(self, metrics: Metrics, auctions: int, slow: bool) -> None:
        shed = self.dice.randint(1, 9) if self.seconds % 180 in (20, 21, 22) else 0
        timeouts = self.dice.randint(0, 12) if slow else self.dice.random() < 0.1
        no_bids = round(auctions * (0.24 + 0.05 * _wave(self.seconds, 140)))
        won = auctions - shed - timeouts - no_bids
        metrics.shed += shed
        metrics.timeout += timeouts
        metrics.no_bid += no_bids
        metrics.won += won
        metrics.imps += auctions
        metrics.bids += 4 * won
        metrics.wins += won
        metrics.spend_nanos += round(won * 2_300_000 * self.dice.uniform(0.95, 1.05))
        for reason, part in ((NoBid.NO_ELIGIBLE_DEMAND, 6), (NoBid.KNOWN_CRAWLER, 2), (NoBid.ALL_BELOW_FLOOR, 1)):
            metrics.nbr[reason] += no_bids * part // 9
        for loss, part in ((Loss.OUTBID, 24), (Loss.BELOW_FLOOR, 7), (Loss.EXPIRED, 1), (Loss.INVALID_DEAL, 1)):
            metrics.losses[loss] += 3 * won * part // 33
        metrics.bidder_timeouts += timeouts + self.dice.randint(0, 3)
        for _ in range(auctions // 4):
            metrics.latency.record(round(min(140.0, self._took_ms(slow)) * 1e6))
        for _ in range(20):
            metrics.lag.record(round(self.dice.lognormvariate(-1, 0.5) * 1e6))
        metrics.in_flight = self.dice.randint(1, 9)

    def _request(self) -> BidRequest:
        country, region, city = self.dice.choice(PLACES)
        return bid_request(
            imp("1", bidfloor=self.dice.choice((0.2, 0.5, 1.0, 3.5))),
            site=Site(domain=self.dice.choice(SITES)),
            device=Device(
                os=self.dice.choice(("iOS", "Android", "macOS")),
                devicetype=4,
                geo=Geo(country=country, region=region, city=city),
            ),
            tmax=100,
        )

    def _look_at_queues(self) -> None:
        wave = _wave(self.seconds, 60)
        rows = (
            QueueRow("bid.requests", round(22 + 18 * wave), 12, 4, 31.0 + 6 * wave, 30.0 + 6 * wave),
            QueueRow("events.wins", round(5 + 4 * wave), 3, 2, 21.0, 21.2),
            QueueRow("events.impressions", 2, 1, 2, 18.4, 18.5),
            QueueRow("campaign.updates", 0, 0, 1, 0.2, 0.2),
            QueueRow("events.losses", 1_840, 0, 0, 44.0, 0.0, (Warned.UNCONSUMED,)),
            QueueRow("dead", 3, 0, 0, 0.0, 0.0),
        )
        now = self.clock.time()
        minute = int(now // 60) * 60
        minutes = tuple(
            MinuteRow(
                minute - 60 * back,
                1_800 + 13 * back % 90,
                1_790 + 17 * back % 80,
                back % 5,
                back == 7,
                0,
                1.8,
                9.4 + back % 4,
                31.0,
            )
            for back in range(30, 0, -1)
        )
        self.site.queues = QueueReport(now, rows, minutes)

    async def _changes(self) -> None:
        """What people and the daemon did to one campaign this morning."""
        done = (
            (7_200, "dashboard:ada", Action.CHANGED, "", {"bid": [0.6, 0.8]}),
            (4_800, "admin", Action.PAUSED, "", {"status": ["active", "paused"]}),
            (4_200, "dashboard:ops", Action.CHANGED, "", {"status": ["paused", "active"], "daily_budget": [30, 40]}),
            (600, "automation", Action.BUDGET_ALERT, "90 % of the daily budget of 40.00 USD are spent", {}),
        )
        one = NAMES[0][0]
        events = [
            HistoryEvent(
                id=f"{one}-{ago}",
                campaign_id=one,
                at=NOON - ago,
                actor=actor,
                action=action,
                cause=why,
                details=details,
            )
            for ago, actor, action, why, details in done
        ]
        await self.site.recorder.history.append(events)

    def _buy(self) -> None:
        """Some campaigns win, and show what they won."""
        for one in self.dice.sample([name for name, _, _ in NAMES[:8]], 3):
            nanos = self.dice.randint(1_000_000, 9_000_000)
            today = datetime.fromtimestamp(self.clock.time(), UTC).date().isoformat()
            kinds = (LedgerKind.WIN, 0), (LedgerKind.IMPRESSION, nanos)
            self.site.performance.note([self._row(one, today, kind, self.seconds, cost) for kind, cost in kinds])

    async def _days(self, one: Campaign) -> None:
        """A row a day stands for many."""
        today = datetime.fromtimestamp(NOON, UTC).date()
        rows = []
        budget = one.daily_budget or 60.0
        for back in range(30):
            day = (today - timedelta(days=back)).isoformat()
            share = (0.52 if back == 0 else 1.0) * self.dice.uniform(0.7, 1.0)
            shown = self.dice.randint(18, 40)
            for i in range(shown):
                rows.append(self._row(one.id, day, LedgerKind.WIN, i, 0))
                rows.append(self._row(one.id, day, LedgerKind.IMPRESSION, i, round(budget * share / shown * NANOS)))
            rows += [self._row(one.id, day, LedgerKind.CLICK, i, 0) for i in range(self.dice.randint(0, 4))]
            rows += [
                self._row(one.id, day, LedgerKind.CONVERSION, i, 0, round(self.dice.uniform(20, 90) * NANOS))
                for i in range(self.dice.randint(0, 2))
            ]
        await self.site.ledger.append(rows, epochs={})
        self.site.performance.note([row for row in rows if row.date == today.isoformat()])
        if one.pacing is not Pacing.ASAP and one.daily_budget:
            target = one.daily_budget * self.dice.uniform(0.42, 0.56)
            self.site.paces[one.id] = Pace(0.4, 0, round(target * NANOS))

    def _row(self, campaign_id: str, day: str, kind: LedgerKind, i: int, nanos: int, value: int = 0) -> LedgerRow:
        return LedgerRow(
            key=f"{campaign_id}-{day}-{kind}-{i}",
            kind=kind,
            campaign_id=campaign_id,
            day=day,
            date=day,
            auction_id=f"{i}",
            impid="1",
            instance="a",
            price_nanos=nanos,
            charged_nanos=nanos,
            expires_at=NOON + 60,
            received_at=NOON,
            value_nanos=value,
        )


def demo_campaigns() -> list[Campaign]:
    """Twenty, of all kinds."""
    found = []
    for i, (id_, name, advertiser) in enumerate(NAMES):
        found.append(
            campaign(
                id_,
                0.8 + (i * 37 % 29) / 8,
                name=name,
                advertiser=advertiser,
                status=Status.PAUSED if i % 9 == 4 else Status.ENDED if i == 13 else Status.ACTIVE,
                pricing=Pricing.CPC if i % 7 == 3 else Pricing.CPM,
                daily_budget=None if i % 8 == 6 else 40.0 + 20 * (i % 5),
                pacing=Pacing.EVEN if i % 3 else Pacing.ASAP,
                targeting=Targeting(
                    domain=(SITES[i % 6], SITES[(i * 5 + 2) % 6]), country=() if i % 2 else (PLACES[i // 2 % 4][0],)
                ),
            )
        )
    return found


async def add_alerts(site: DashboardSite) -> None:
    """Rules of all kinds, two of which hold."""
    rules = [
        ("slow-answers", "latency_p99_ms", "greater_than", 10.0, "warning", 42.0),
        ("no-demand", "bid_rate", "less_than", 0.2, "critical", 0.74),
        ("traffic-lost", "auctions_per_s", "less_than", 100.0, "critical", 1_150.0),
        ("dead-letters", "dead_letters", "greater_than", 0.0, "critical", 3.0),
        ("queue-backlog", "queue_ready_max", "greater_than", 5_000.0, "warning", 1_840.0),
    ]
    site.values[""] = {metric: value for _, metric, _, _, _, value in rules}
    for name, metric, condition, threshold, severity, _ in rules:
        rule = {"id": name, "metric": metric, "condition": condition, "threshold": threshold, "severity": severity}
        await site.ask("POST", "/api/alerts", rule)
    await site.alerts.look()


def _wave(seconds: int, period: int) -> float:
    """A triangle between -1 and 1."""
    share = seconds % period / period
    return 4 * abs(share - 0.5) - 1
