"""What is changed in a replay: ``floor=0.8``, ``bidder.x.enabled=false`` ..., and what of an auction that changes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from rtb.domain import campaign as campaigns
from rtb.domain import money
from rtb.domain.campaign import Campaign
from rtb.domain.replay import AuctionLine
from rtb.domain.terms import Terms
from rtb.errors import ConfigError

_MS = 1_000_000

KNOWN: Mapping[str, str] = {
    "floor": "the floor of every imp, in CPM",
    "floor.times": "what each floor is multiplied by",
    "floor.plus": "what is added to each floor, in CPM",
    "floor.least": "the least that any floor is, in CPM",
    "auction.at": "1: first price, 2: second price, whatever the request says",
    "auction.increment_cpm": "the plus of second price plus",
    "auction.deals": "priority or price",
    "auction.advertisers": "house advertisers in an auction, no more than were recorded",
    "auction.deadline_ms": "answers that came later are late",
    "bidder.NAME.enabled": "whether it takes part",
    "bidder.NAME.adjustment": "what its prices are multiplied by",
    "bidder.NAME.at": "1: its wins pay their bid, 2: the second price, 0: as the request says",
    "bidder.NAME.floor": "the least that it may bid, in CPM",
    "bidder.NAME.timeout_ms": "answers that it took longer for are late",
    "campaign.ID.enabled": "whether it takes part",
    "campaign.ID.bid": "its bid, in the unit of the campaign",
}
"""What can be changed, and what it is."""


class BidderChange(Struct, kw_only=True):
    """What differs for a bidder; None is as recorded."""

    enabled: bool = True
    adjustment: Fraction | None = None
    at: int | None = None
    floor_micros: int = 0
    timeout_ns: int | None = None


class CampaignChange(Struct, kw_only=True):
    """What differs for a campaign; None is as recorded."""

    enabled: bool = True
    bid: float | None = None


class Changes(Struct, kw_only=True):
    """All that differs. What is None or empty is as recorded."""

    floors: list[Callable[[int], int]] = []
    at: int | None = None
    increment_micros: int | None = None
    deals_first: bool | None = None
    advertisers: int | None = None
    deadline_ns: int | None = None
    bidders: dict[str, BidderChange] = {}
    campaigns: dict[str, CampaignChange] = {}

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return self != Changes()

    def terms(self, recorded: Terms) -> Terms:
        """What an imp is sold under. Deals keep their own floors and auction types, bidders their types, streams their
        floors a second."""
        if not self.floors and self.at is None:
            return recorded
        floor_micros = recorded.floor_micros
        for change in self.floors:
            floor_micros = change(floor_micros)
        return replace(recorded, floor_micros=floor_micros, at=self.at or recorded.at)

    def late(self, auction: AuctionLine) -> set[str]:
        """Who was in time, and would be late now."""
        late = set()
        for name, answered_ns in auction.answered_ns.items():
            timeout_ns = self.bidders[name].timeout_ns if name in self.bidders else None
            latest_ns = math.inf if timeout_ns is None else (auction.asked_ns or 0) + timeout_ns
            if answered_ns > min(latest_ns, self.deadline_ns or math.inf):
                late.add(name)
        return late

    def takes_part(self, bidder: str) -> bool:
        """Whether a bidder is in the exchange."""
        change = self.bidders.get(bidder)
        return change is None or change.enabled

    def price_micros(self, bidder: str, price_micros: int, sent_micros: int | None) -> int:
        """What a bid counts as that was `sent_micros` before its bidder's adjustment; 0 for one that is not let in."""
        change = self.bidders.get(bidder)
        if change is None:
            return price_micros
        if change.adjustment is not None:
            sent_micros = price_micros if sent_micros is None else sent_micros
            price_micros = max(int(sent_micros * change.adjustment), 1)
        return price_micros if price_micros >= change.floor_micros else 0

    def auction_type(self, bidder: str, agreed: int) -> int:
        """What is agreed with a bidder; `agreed` as it was recorded."""
        change = self.bidders.get(bidder)
        return agreed if change is None or change.at is None else change.at

    def campaign(self, recorded: Campaign) -> Campaign | None:
        """A campaign as it takes part, None where it does not.

        Raises:
            InvalidCampaign: its new bid is none.
        """
        change = self.campaigns.get(recorded.id)
        if change is None:
            return recorded
        if not change.enabled:
            return None
        return recorded if change.bid is None else campaigns.validated(replace(recorded, bid=change.bid))

    def check_names(self, bidders: Collection[str], campaign_ids: Collection[str]) -> None:
        """Hold the names of changes against those of the log.

        Raises:
            ConfigError: nobody is called so.
        """
        for kind, named, known in (("bidder", self.bidders, bidders), ("campaign", self.campaigns, campaign_ids)):
            for name in named:
                if name not in known:
                    raise ConfigError(f"--set {kind}.{name}: no {kind} {name!r} in the log; {_some(kind, name, known)}")


def parse(settings: Iterable[str]) -> Changes:
    """The changes in ``name=value`` settings, applied in their order.

    Raises:
        ConfigError: one line that says what is wrong, and what is known.
    """
    changes = Changes()
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ConfigError(f"--set {setting}: write it as name=value, for example floor=0.8")
        try:
            _change(changes, name, text)
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"--set {name}={text}: {error}") from None
    return changes


def _change(changes: Changes, name: str, text: str) -> None:
    kind, _, rest = name.partition(".")
    whose, _, what = rest.rpartition(".")
    if name == "floor" or name.startswith("floor."):
        changes.floors.append(_floor(name, text))
    elif name == "auction.at":
        changes.at = int(_one_of(text, ("1", "2")))
    elif name == "auction.increment_cpm":
        changes.increment_micros = _micros(text)
    elif name == "auction.deals":
        changes.deals_first = _one_of(text, ("priority", "price")) == "priority"
    elif name == "auction.advertisers":
        changes.advertisers = _positive(text)
    elif name == "auction.deadline_ms":
        changes.deadline_ns = _positive(text) * _MS
    elif kind == "bidder" and whose and f"bidder.NAME.{what}" in KNOWN:
        _change_bidder(changes.bidders.setdefault(whose, BidderChange()), what, text)
    elif kind == "campaign" and whose and f"campaign.ID.{what}" in KNOWN:
        campaign = changes.campaigns.setdefault(whose, CampaignChange())
        if what == "enabled":
            campaign.enabled = _flag(text)
        else:
            campaign.bid = _number(text)
    else:
        raise _unknown(name)


def _change_bidder(bidder: BidderChange, what: str, text: str) -> None:
    if what == "enabled":
        bidder.enabled = _flag(text)
    elif what == "adjustment":
        factor = _number(text)
        if not 0 < factor <= 10:
            raise ValueError("must be above 0 and at most 10")
        bidder.adjustment = Fraction(text)
    elif what == "at":
        bidder.at = int(_one_of(text, ("0", "1", "2")))
    elif what == "floor":
        bidder.floor_micros = _micros(text)
    else:
        bidder.timeout_ns = _positive(text) * _MS


def _floor(name: str, text: str) -> Callable[[int], int]:
    if name == "floor.times":
        _number(text)
        factor = Fraction(text)
        return lambda micros: math.ceil(micros * factor)
    amount = _micros(text)
    if name == "floor":
        return lambda micros: amount
    if name == "floor.plus":
        return lambda micros: micros + amount
    if name == "floor.least":
        return lambda micros: max(micros, amount)
    raise _unknown(name)


def _unknown(name: str) -> ConfigError:
    close = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"--set {name}: unknown; {hint}known are {', '.join(KNOWN)}")


def _some(kind: str, name: str, known: Collection[str]) -> str:
    """Who is known, in so many words as a line has."""
    shown: Sequence[str] = difflib.get_close_matches(name, known, n=10, cutoff=0.0) if len(known) > 20 else [*known]
    more = f" and {len(known) - len(shown)} more" if len(shown) < len(known) else ""
    return f"known are {', '.join(sorted(shown))}{more}" if known else f"it has no {kind}s"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a number, 0 or more")
    return value


def _micros(text: str) -> int:
    return money.to_micros(_number(text))


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError("must be a whole number above 0")
    return int(text)


def _flag(text: str) -> bool:
    return _one_of(text, ("true", "false")) == "true"


def _one_of(text: str, choices: Collection[str]) -> str:
    if text not in choices:
        raise ValueError(f"must be {' or '.join(choices)}")
    return text
