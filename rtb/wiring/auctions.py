"""The exchange: its bidders, who come and go, its rules, and who listens to its auctions."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

from rtb.adapters.bidder_file import BidderFile
from rtb.adapters.coroutine_bidder import CoroutineBidder
from rtb.adapters.supply_files import supply_files
from rtb.config import Settings
from rtb.domain.money import to_micros
from rtb.domain.schain import SchainPolicy, SupplyCheck, SupplyFiles
from rtb.errors import ConfigError
from rtb.lab.bidders import SlowBidder
from rtb.ports import Bidder
from rtb.ports.clock import TimerClock
from rtb.services.admission import Admission
from rtb.services.auction_log import AuctionLog
from rtb.services.exchange import Exchange, Rules
from rtb.services.further_bids import FurtherBids
from rtb.services.metrics import Metrics
from rtb.services.results import Results
from rtb.services.supply import SupplyGate
from rtb.wiring.bidders import RemoteBidders
from rtb.wiring.ground import Ground
from rtb.wiring.house import House
from rtb.wiring.market import Market
from rtb.wiring.tracking import Told


def market(ground: Ground, house: House, told: Told) -> Market:
    """An exchange of the house and whoever else the settings name. Raises ConfigError."""
    settings, clock, rates = ground.settings, ground.clock, ground.rates
    auction = settings.auction
    own: list[Bidder] = [house.bidder]
    if settings.lab.bidder:
        lab = settings.lab
        slow = SlowBidder(wait_ms=lab.bidder_ms, cpu_us=lab.bidder_cpu_us, cpm=lab.bidder_cpm)
        own.append(CoroutineBidder("lab", slow, clock, rates, crid=auction.crid, adomain=auction.adomain_required))
    given = settings.bidders
    file = BidderFile(Path(given.file)) if given.file else None
    remote = RemoteBidders(
        clock, rates, os.environ, allow=given.allow, crid=auction.crid, adomain=auction.adomain_required
    )
    admission = Admission(
        deadline_ms=auction.deadline_ms,
        network_margin_ms=auction.network_margin_ms,
        minimum_ms=auction.minimum_ms,
        max_in_flight=auction.max_in_flight,
    )
    tie_key = secrets.token_bytes(32)
    if auction.tie_key:
        tie_key = blake2b(auction.tie_key.encode(), digest_size=32).digest()
    rules = Rules(
        increment_micros=to_micros(auction.increment_cpm),
        deals_first=auction.deals == "priority",
        first_price_types=frozenset(auction.auction_types),
        tie_key=tie_key,
    )

    def exchange(bidders: Sequence[Bidder], counters: Metrics) -> Exchange:
        return Exchange(bidders, house.profiles, admission, counters, clock, rates=rates, rules=rules)

    made = exchange(own, ground.metrics)
    gate = _supply_gate(settings)
    if gate is not None:
        made.guard(gate)
    if settings.log.auctions:
        made.listen(AuctionLog(settings.log.auctions))
    if settings.state.announce_results:
        made.listen(Results(ground.out.state, clock, rates, links=told.links))
    notices = told.notices if len(own) > 1 or file is not None else None
    if notices is not None:
        made.listen(notices.auction_closed)
    alone = partial(_alone, exchange, clock)
    found = Market(made, rules, own, remote, file, clock, alone, code=settings.http.bidder_code, gate=gate)
    found.further = FurtherBids(made, rules, None if notices is None else notices.auction_closed)
    return found


def _alone(exchange: Callable[[Sequence[Bidder], Metrics], Exchange], clock: TimerClock, bidder: Bidder) -> Exchange:
    """An exchange of one bidder, which counts for nobody."""
    return exchange([bidder], Metrics("test", clock))


def _supply_gate(settings: Settings) -> SupplyGate | None:
    """What judges supply chains; None where nobody wants to know. Raises ConfigError."""
    given = settings.supply
    if given.on_fault == "ignore":
        return None
    policy = SchainPolicy(
        on_fault=given.on_fault, required=given.required, most_nodes=given.most_nodes, blocked=given.blocked
    )
    try:
        files = supply_files(Path(given.folder)) if given.folder else SupplyFiles()
    except ConfigError as error:
        raise ConfigError(f"supply.folder: {error}") from None
    return SupplyGate(SupplyCheck(policy, files))
