"""Pacing in a daemon: whether a campaign that would bid takes part in this auction (rtb.domain.pacing).

No I/O and no task: a controller is run by the auctions that ask for its campaign, once a second at most, on what the
budget has heard so far. So a campaign that nobody asks for costs nothing, and one that is not paced a single look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from hashlib import blake2b
from zoneinfo import ZoneInfo

from rtb.domain import pacing
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign, Pacing, Pricing
from rtb.domain.money import NANOS, unit_nanos
from rtb.domain.pacing import GOLDEN, Curve, Pace, Plan, Throttle
from rtb.domain.remembered import Remembered
from rtb.domain.tracking import Ticket
from rtb.ports import Clock
from rtb.services.budgets import Spending

NS = 1_000_000_000
UNHEARD_S = 0.05
"""How soon the budget is asked again when shared accounts have not answered yet."""
MOST_CURVES = 1_000
KEPT_DAYS = 7
HOUR_S = 3_600
KNOWN_HOURS = 20
"""Of the 24 of a day: with traffic of fewer there is no curve to learn."""

_CurveKey = tuple[str, str, tuple[float, ...], tuple[int, ...], float | None, float | None]


def _no_traffic() -> Sequence[float]:
    return ()


class _Paced(Throttle, gc=False, eq=False):
    """A controller and what it paces. Amounts of campaigns that pay by click or conversion are of the plan's day:
    `own_nanos` is what the impressions won here are expected to be worth, `told_nanos` those that all daemons told."""

    campaign: Campaign | None = None
    day: str = ""
    due_ns: int = 0
    replan: bool = True
    own_nanos: int = 0
    told_nanos: int = 0


_ASLEEP = _Paced(0, 0)
"""Stands for every paced campaign that no auction has asked for yet."""


class Pacer:
    """Admits paced campaigns to auctions, and all others always; see `HouseBidder.admits`."""

    def __init__(
        self,
        clock: Clock,
        spending: Callable[[str], Spending | None],
        *,
        instance: str = "local",
        traffic: Callable[[], Sequence[float]] = _no_traffic,
        interval_s: float = 1.0,
    ) -> None:
        """Pace nothing yet; `watch` says what.

        Args:
            clock: time.
            spending: what is known of a campaign's budget, None when nothing is: `Budgets.spending`.
            instance: of this daemon, so that no two count their auctions from the same phase.
            traffic: of the 24 hours of a day in UTC, in any unit, for campaigns with a learned curve; empty when
                unknown: then they are spread evenly.
            interval_s: between two runs of a controller.
        """
        self._clock = clock
        self._monotonic_ns = clock.monotonic_ns
        self._spending = spending
        self._instance = instance
        self._traffic = traffic
        self._interval_ns = int(interval_s * NS)
        self._campaigns: dict[str, Campaign] = {}
        self._paced: dict[str, _Paced] = {}
        self._curves: Remembered[_CurveKey, Curve] = Remembered(_curve, MOST_CURVES)

    def watch(self, campaign: Campaign) -> None:
        """Pace a campaign as it says, from now on; what was learned of its supply stays."""
        if not campaign.paces:
            self.drop(campaign.id)
            return
        old = self._campaigns.get(campaign.id)
        self._campaigns[campaign.id] = campaign
        paced = self._paced.setdefault(campaign.id, _ASLEEP)
        if paced is not _ASLEEP:
            paced.campaign = campaign
            paced.unit_nanos, paced.lump_nanos = _amounts(campaign)
            if old is None or _course(old) != _course(campaign):
                paced.replan, paced.due_ns = True, 0

    def drop(self, campaign_id: str) -> None:
        """Pace it no longer."""
        self._campaigns.pop(campaign_id, None)
        self._paced.pop(campaign_id, None)

    def admits(self, campaign_id: str) -> bool:
        """Whether a campaign that would bid takes part in this auction."""
        paced = self._paced.get(campaign_id)
        if paced is None:
            return True
        now_ns = self._monotonic_ns()
        if now_ns >= paced.due_ns:
            paced = self._run(campaign_id, paced, now_ns)
        paced.asks += 1  # paced.admits(), without the call
        phase = paced.phase + GOLDEN
        if phase >= 1.0:
            phase -= 1.0
        paced.phase = phase
        if phase >= paced.probability or paced.left_nanos <= 0.0:
            return False
        paced.admitted += 1
        return True

    def won(self, ticket: Ticket) -> None:
        """A house campaign won an imp here."""
        paced = self._paced.get(ticket.campaign_id)
        if paced is None or paced.campaign is None:
            return
        if paced.campaign.pricing is Pricing.CPM:
            paced.won(ticket.held_nanos)
        else:
            paced.won(paced.unit_nanos)
            paced.own_nanos += paced.unit_nanos

    def performed(self, campaign_id: str, day: str, impressions: int) -> None:
        """So many impressions of a campaign were counted, wherever they were won: tells what campaigns that pay by
        click or conversion may still owe."""
        paced = self._paced.get(campaign_id)
        if paced is not None and paced.day == day and paced.campaign is not None:
            paced.told_nanos += impressions * paced.unit_nanos

    def pace(self, campaign_id: str) -> Pace | None:
        """How a campaign stands; None when it is not paced, or nothing is known of its budget yet."""
        paced = self._paced.get(campaign_id)
        if paced is None:
            return None
        now_ns = self._monotonic_ns()
        if now_ns >= paced.due_ns:
            paced = self._run(campaign_id, paced, now_ns)
        if paced.plan is None:
            return None
        target = paced.plan.target_nanos(self._clock.time())
        return Pace(paced.probability, round(paced.spent_nanos), round(target))

    def paces(self) -> Iterator[tuple[str, Pace]]:
        """Every campaign that was asked for since the start, and how it stands."""
        for campaign_id, paced in list(self._paced.items()):
            pace = self.pace(campaign_id) if paced is not _ASLEEP else None
            if pace is not None:
                yield campaign_id, pace

    def objection(self, campaign_id: str) -> str:
        """Why pacing may keep a campaign out of an auction, in words for `targeting.check`; "" when it does not."""
        if campaign_id not in self._paced:
            return ""
        pace = self.pace(campaign_id)
        if pace is None:
            return "what its budget has spent is not known yet"
        if pace.probability >= 1.0:
            return ""
        spent, target = pace.spent_nanos / NANOS, pace.target_nanos / NANOS
        percent = 100 * pace.probability
        return f"takes part in {percent:.3g} % of the auctions now: {spent:.6g} spent, target {target:.6g}"

    def _run(self, campaign_id: str, paced: _Paced, now_ns: int) -> _Paced:
        """Run the controller on what is known now."""
        if paced is _ASLEEP:
            campaign = self._campaigns[campaign_id]
            seed = blake2b(f"{self._instance}\0{campaign_id}".encode(), digest_size=4).digest()
            unit, lump = _amounts(campaign)
            paced = _Paced(unit, lump, phase=int.from_bytes(seed, "big") / 2**32, campaign=campaign)
            self._paced[campaign_id] = paced
        spending = self._spending(campaign_id)
        if spending is None:
            paced.probability, paced.due_ns = 0.0, now_ns + int(UNHEARD_S * NS)
            return paced
        paced.due_ns = now_ns + self._interval_ns
        now = self._clock.time()
        if paced.replan or spending.day != paced.day:
            self._follow(paced, spending, now)
        paced.update(now, _spent(paced, spending))
        return paced

    def _follow(self, paced: _Paced, spending: Spending, now: float) -> None:
        """Plan a new day from its beginning; else, at the start or after a change, from now on."""
        campaign = paced.campaign
        assert campaign is not None
        plan = Plan(self._curve_of(campaign, now), spending.most_nanos)
        is_next_day = paced.plan is not None and spending.day != paced.day
        if paced.day != spending.day:
            paced.day = spending.day
            paced.own_nanos, paced.told_nanos = (0 if is_next_day else spending.billed_nanos), 0
        spent = 0.0 if is_next_day else _spent(paced, spending)
        if not is_next_day:
            plan.anchor(now, spent)
        paced.follow(plan, now, spent)
        paced.replan = False

    def _curve_of(self, campaign: Campaign, now: float) -> Curve:
        weights = tuple(self._traffic()) if campaign.pacing is Pacing.LEARNED else ()
        day = budget_day(now, campaign.zone)
        start = None if campaign.start is None else campaign.start.timestamp()
        end = None if campaign.end is None else campaign.end.timestamp()
        return self._curves[day, campaign.timezone, weights, campaign.targeting.hours, start, end]


class Traffic:
    """Traffic of the last days by the hour, for learned curves: what `total` has grown since the last look.

    Complete hours count alone; hours that nothing is known of are taken for average ones.
    """

    def __init__(self, clock: Clock, total: Callable[[], int]) -> None:
        """`total` grows with every auction, as `Metrics.imps` does."""
        self._clock = clock
        self._total = total
        self._seen = total()
        self._hours: dict[int, float] = {}
        self._first_hour = int(clock.time() // HOUR_S)  # the first one is not seen whole

    def refresh(self) -> None:
        """Look; once a second or so."""
        hour, total = int(self._clock.time() // HOUR_S), self._total()
        self._hours[hour] = self._hours.get(hour, 0.0) + total - self._seen
        self._seen = total
        for old in [known for known in self._hours if known < hour - KEPT_DAYS * 24]:
            del self._hours[old]

    def seed(self, hours: dict[int, float]) -> None:
        """Take over what is known from before, as from a ledger: hours since 1970, each with its traffic."""
        self._hours = {**hours, **self._hours}

    def weights(self) -> Sequence[float]:
        """The mean traffic of each hour of the day in UTC; empty when too little is known."""
        now_hour = int(self._clock.time() // HOUR_S)
        known: dict[int, list[float]] = {}
        for hour, traffic in self._hours.items():
            if hour not in (now_hour, self._first_hour) and hour >= now_hour - KEPT_DAYS * 24:
                known.setdefault(hour % 24, []).append(traffic)
        if len(known) < KNOWN_HOURS:
            return ()
        means = {hour: sum(values) / len(values) for hour, values in known.items()}
        average = sum(means.values()) / len(means)
        return [means.get(hour, average) for hour in range(24)]


def _amounts(campaign: Campaign) -> tuple[int, int]:
    """What an impression costs or is worth at most, and what is billed at once, in nanos."""
    if campaign.pricing is Pricing.CPM:
        return campaign.most_micros, campaign.most_micros
    return campaign.bid_micros, unit_nanos(campaign.bid)


def _spent(paced: _Paced, spending: Spending) -> float:
    if paced.campaign is None or paced.campaign.pricing is Pricing.CPM:
        return float(spending.committed_nanos)
    expected = max(paced.own_nanos, paced.told_nanos)
    return pacing.believed_nanos(spending.billed_nanos, expected, paced.lump_nanos)


def _course(campaign: Campaign) -> tuple[object, ...]:
    """What a plan is made of."""
    dates = campaign.start, campaign.end
    return campaign.pacing, campaign.pause_nanos, campaign.timezone, campaign.targeting.hours, *dates


def _curve(key: _CurveKey) -> Curve:
    day, timezone, weights, hours, start, end = key
    zone = ZoneInfo(timezone)
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=zone).timestamp()
    return pacing.curve(noon, zone, weights=weights, hours=hours, start=start, end=end)
