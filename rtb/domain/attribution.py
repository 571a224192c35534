"""Which events count: in time, and a click after its impression, a conversion after the touch that it is owed to.

A conversion is owed to the last click within `click_through_s` before it, else to the last impression within
`view_through_s`. The defaults are those that are usual: 30 days after a click, 1 day after a view. A campaign may have
windows of its own.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from rtb.domain.campaign import Campaign
from rtb.domain.tracking import Ticket


class Windows(Struct, frozen=True, kw_only=True):
    """How long events count, in seconds; those of impressions are in their tickets.

    A click is in time until `click_s` after its win. With a `view_through_s` of 0 a conversion needs a click. An event
    may be received `skew_s` before its win by the clock of the daemon that took it. A second click of one user on one
    creative within `same_click_s` is the same click.
    """

    click_s: float = 86_400.0
    click_through_s: float = 30 * 86_400.0
    view_through_s: float = 86_400.0
    skew_s: float = 60.0
    same_click_s: float = 3_600.0

    def of(self, campaign: Campaign | None) -> Windows:
        """These, or a campaign's own where it has some."""
        if campaign is None or (campaign.click_window_s is None and campaign.view_window_s is None):
            return self
        click_s, view_s = campaign.click_window_s, campaign.view_window_s
        return replace(
            self,
            click_through_s=self.click_through_s if click_s is None else float(click_s),
            view_through_s=self.view_through_s if view_s is None else float(view_s),
        )


class Refused(StrEnum):
    """Why an event is charged to nobody. A token that is not believed has a reason of its own (tracking.Flaw)."""

    EARLY = "received before its win"
    LATE = "received after its window"
    CRAWLER = "user agent of a crawler"
    DUPLICATE = "seen before"
    SAME_CLICK = "the user clicked this creative before, within the hour"
    NO_IMPRESSION = "no impression of its win"
    NO_TOUCH = "no click and no impression that it is owed to"
    NO_TOKEN = "no token"
    NO_CAMPAIGN = "not of a house campaign that is known"
    BAD_VALUE = "a value without an exchange rate, or too large"


class Attribution(StrEnum):
    """What a conversion is owed to."""

    CLICK = "click"
    VIEW = "view"


def impression_objection(ticket: Ticket, received_at: float, windows: Windows) -> Refused | None:
    """Why an impression does not count, by the time of its receipt."""
    if received_at > ticket.expires_at:
        return Refused.LATE
    return _early(ticket, received_at, windows)


def click_objection(ticket: Ticket, received_at: float, windows: Windows) -> Refused | None:
    """Why a click does not count, by the time of its receipt."""
    if received_at > ticket.won_at + windows.click_s:
        return Refused.LATE
    return _early(ticket, received_at, windows)


def conversion_objection(ticket: Ticket, received_at: float, windows: Windows) -> Refused | None:
    """Why a conversion cannot count, whatever touch it is owed to."""
    last = max(windows.click_s + windows.click_through_s, ticket.expires_at - ticket.won_at + windows.view_through_s)
    if received_at > ticket.won_at + last:
        return Refused.LATE
    return _early(ticket, received_at, windows)


def attribute(
    clicked_at: float | None, viewed_at: float | None, received_at: float, windows: Windows
) -> Attribution | Refused:
    """What a conversion received then is owed to, of the last click and view that are known (Unix seconds)."""
    if clicked_at is not None and -windows.skew_s <= received_at - clicked_at <= windows.click_through_s:
        return Attribution.CLICK
    if (
        viewed_at is not None
        and windows.view_through_s
        and -windows.skew_s <= received_at - viewed_at <= windows.view_through_s
    ):
        return Attribution.VIEW
    return Refused.NO_TOUCH if clicked_at is None and viewed_at is None else Refused.LATE


def _early(ticket: Ticket, received_at: float, windows: Windows) -> Refused | None:
    return Refused.EARLY if received_at < ticket.won_at - windows.skew_s else None
