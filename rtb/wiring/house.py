"""The house: campaigns, who changes them, what paces them, and the profiles that they are matched with."""

from __future__ import annotations

from dataclasses import dataclass

from rtb.domain.tracking import Signer, Ticket
from rtb.domain.windows import Windows
from rtb.services.announcements import Announcements
from rtb.services.automation import Automation
from rtb.services.campaigns import Campaigns
from rtb.services.history import Recorder
from rtb.services.house_bidder import HouseBidder
from rtb.services.pacing import Pacer, Traffic
from rtb.services.profiles import Profiles
from rtb.wiring.ground import Ground
from rtb.wiring.money import Money


@dataclass(frozen=True, slots=True)
class House:
    """The bidder of the house and all that keeps its catalogue; nothing is started."""

    profiles: Profiles
    bidder: HouseBidder
    catalogue: Campaigns
    traffic: Traffic
    pacer: Pacer
    automation: Automation
    recorder: Recorder


def house(ground: Ground, funds: Money, signs: Signer) -> House:
    """The parts around the catalogue; `ground.late` learns of them."""
    settings, clock, instance, metrics = ground.settings, ground.clock, ground.instance, ground.metrics
    out, late = ground.out, ground.late
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
    given = settings.tracking
    bidder = late.house = HouseBidder(
        profiles,
        clock,
        ground.rates,
        advertisers=settings.auction.advertisers,
        budgets=funds.budgets,
        signer=signs,
        bills_wins=settings.bills_wins,
        windows=Windows(
            web_s=given.web_s, app_s=given.app_s, native_s=given.native_s, interstitial_s=given.interstitial_s
        ),
    )
    traffic = Traffic(clock, lambda: metrics.imps)
    pacer = Pacer(clock, funds.budgets.spending, instance=instance, traffic=traffic.weights)

    def won(ticket: Ticket) -> None:
        pacer.won(ticket)
        funds.wins(ticket)

    bidder.on_win, bidder.admits, bidder.objection = won, pacer.admits, pacer.objection
    catalogue = Campaigns(out.repository, bidder, announce=Announcements(ground.outbox, clock, instance).campaigns)
    recorder = Recorder(out.history, clock)
    automation = late.automation = Automation(
        catalogue, recorder, clock, alert=funds.alerts.raise_alert, funded=funds.budgets.funded
    )
    catalogue.record = recorder.changed
    catalogue.watchers += [pacer.watch, automation.watch]
    return House(profiles, bidder, catalogue, traffic, pacer, automation, recorder)
