"""What an imp is sold under: its floors, by duration where it says so, and the deals on its table.

Prices are integer CPM micros of the exchange currency (rtb.domain.money). Sources: OpenRTB 2.6 3.2.11 and 3.2.12
(deals), 3.2.35 (floors by duration), 7.11.2 (floors).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from rtb.domain import money
from rtb.domain.validation import is_or_under
from rtb.openrtb import AuctionType, BidRequest, DurFloors, Imp, MarkupType

if TYPE_CHECKING:
    from rtb.domain.auction import Bid

_SECOND_PRICE = int(AuctionType.SECOND_PRICE_PLUS)
_VIDEO, _AUDIO = int(MarkupType.VIDEO), int(MarkupType.AUDIO)


class DealTerms(Struct, gc=False, kw_only=True):
    """A deal on the table for an imp; `floor_micros` None means it gives no bidfloor of its own."""

    id: str
    at: int | None = None
    floor_micros: int | None = None
    wseat: frozenset[str] | None = None
    wadomain: frozenset[str] | None = None
    cpm_per_second_micros: int = 0
    durfloors: tuple[tuple[int, int, int], ...] = ()


class Terms(Struct, gc=False, kw_only=True):
    """What an imp is sold under.

    `streams` are the floors by duration of a video (mtype 2) or audio (3) offer: CPM micros a second, and
    (mindur, maxdur, floor) ranges, ends included. `multiplier` is how many impressions one sale counts for. An imp with
    a floor in a currency without a rate is not for sale (`sold` is False): nobody can tell who meets that floor.
    """

    impid: str
    at: int = _SECOND_PRICE
    floor_micros: int = 0
    deals: Mapping[str, DealTerms] | None = None
    private: bool = False
    streams: Mapping[int, tuple[int, tuple[tuple[int, int, int], ...]]] | None = None
    multiplier: float = 1.0
    sold: bool = True


def terms_of(request: BidRequest, imp: Imp, rates: money.Rates, *, at: int | None = None) -> Terms:
    """The terms an imp is sold under; deal floors do not inherit the imp's currency, stream floors do."""
    micros, at = 0, at or request.at or _SECOND_PRICE
    try:
        if imp.bidfloor:
            micros, code = money.to_micros(imp.bidfloor), imp.bidfloorcur or "USD"
            if code != rates.currency:
                micros = rates.inward_micros(micros, code)
        found = Terms(impid=imp.id or "", at=at, floor_micros=micros)
        if imp.video is not None or imp.audio is not None or imp.pmp is not None:
            _add_terms(found, imp, rates)
    except KeyError:
        return Terms(impid=imp.id or "", at=at, sold=False)
    if imp.qty is not None and imp.qty.multiplier:
        found.multiplier = imp.qty.multiplier
    return found


def _add_terms(found: Terms, imp: Imp, rates: money.Rates) -> None:
    """What differs from bid to bid."""
    currency = imp.bidfloorcur or "USD"
    if imp.video is not None or imp.audio is not None:
        streams = {}
        for mtype, stream in ((_VIDEO, imp.video), (_AUDIO, imp.audio)):
            if stream is not None and (stream.mincpmpersec or stream.durfloors):
                per_second = rates.inward_micros(money.to_micros(stream.mincpmpersec or 0.0), currency)
                streams[mtype] = (per_second, _ranges(stream.durfloors, rates, currency))
        found.streams = streams or None
    if imp.pmp is not None:
        found.private = imp.pmp.private_auction == 1
        deals = {}
        for deal in imp.pmp.deals or ():
            code = deal.bidfloorcur or "USD"
            deals[deal.id or ""] = DealTerms(
                id=deal.id or "",
                at=deal.at or None,
                floor_micros=None
                if deal.bidfloor is None
                else rates.inward_micros(money.to_micros(deal.bidfloor), code),
                wseat=frozenset(deal.wseat) if deal.wseat else None,
                wadomain=frozenset(name.lower() for name in deal.wadomain) if deal.wadomain else None,
                cpm_per_second_micros=rates.inward_micros(money.to_micros(deal.mincpmpersec or 0.0), code),
                durfloors=_ranges(deal.durfloors, rates, code),
            )
        found.deals = deals or None


def floor_micros(bid: Bid, imp: Terms) -> int:
    """The floor this bid must reach: its deal's guidance, else the stream's, else the imp's.

    Guidance by duration counts for a video or audio bid that tells its `dur`; a dur outside all durfloors falls back on
    the imp's floor, and where several of them apply, the lowest does.

    Source: OpenRTB 2.6 7.11.2 and 3.2.35.
    """
    timed = bid.dur > 0 and bid.mtype in (_VIDEO, _AUDIO)
    if bid.dealid is not None and imp.deals is not None:
        deal = imp.deals[bid.dealid]
        if deal.floor_micros is not None:
            return deal.floor_micros
        if timed and (deal.cpm_per_second_micros or deal.durfloors):
            return _by_duration(deal.cpm_per_second_micros, deal.durfloors, bid.dur, imp.floor_micros)
    if timed and imp.streams is not None and bid.mtype in imp.streams:
        per_second_micros, ranges = imp.streams[bid.mtype]
        return _by_duration(per_second_micros, ranges, bid.dur, imp.floor_micros)
    return imp.floor_micros


def allows(wadomain: Collection[str], adomain: Sequence[str]) -> bool:
    """Whether a deal's wadomain [3.2.12] lets an advertiser in: each of its domains is or lies under a listed one."""
    return bool(adomain) and all(is_or_under(name, wadomain) for name in adomain)


def _ranges(floors: Sequence[DurFloors] | None, rates: money.Rates, code: str) -> tuple[tuple[int, int, int], ...]:
    if not floors:
        return ()
    return tuple(
        (
            floor.mindur or 0,
            10**9 if floor.maxdur is None else floor.maxdur,
            rates.inward_micros(money.to_micros(floor.bidfloor or 0.0), code),
        )
        for floor in floors
    )


def _by_duration(per_second_micros: int, ranges: Iterable[tuple[int, int, int]], dur: int, default_micros: int) -> int:
    if per_second_micros:
        return per_second_micros * dur
    return min((floor for low, high, floor in ranges if low <= dur <= high), default=default_micros)
