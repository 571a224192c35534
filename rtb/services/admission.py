"""Which requests get an auction: deadline, overload, crawlers."""

from __future__ import annotations

from crawleruseragents import is_crawler

from rtb.openrtb import BidRequest, NoBid

MAX_USER_AGENT = 1_024
"""Characters that are looked at and kept."""

_MILLISECOND_NS = 1_000_000


class Admission:
    """Fixes the deadline of a request once and refuses what should not be auctioned."""

    def __init__(self, *, deadline_ms: int, network_margin_ms: int, minimum_ms: int, max_in_flight: int) -> None:
        """See config/default.toml, section auction."""
        self._deadline_ns = deadline_ms * _MILLISECOND_NS
        self._margin_ns = network_margin_ms * _MILLISECOND_NS
        self._minimum_ns = minimum_ms * _MILLISECOND_NS
        self._max_in_flight = max_in_flight
        self._crawlers: dict[str, bool] = {}

    def deadline_ns(self, tmax: int | None, received_ns: int) -> int:
        """When the auction must be over: the configured deadline, or tmax less the way back if that is sooner."""
        if tmax:
            return received_ns + min(self._deadline_ns, tmax * _MILLISECOND_NS - self._margin_ns)
        return received_ns + self._deadline_ns

    def room(self, in_flight: int) -> int:
        """How many more auctions may be under way."""
        return self._max_in_flight - in_flight

    def refusal(self, request: BidRequest, remaining_ns: int, in_flight: int) -> NoBid | None:
        """Why the request gets no auction, None when it does."""
        if remaining_ns < self._minimum_ns:
            return NoBid.INSUFFICIENT_TIME
        if in_flight >= self._max_in_flight:
            return NoBid.SHED
        device = request.device
        if device is not None and device.ua and self._is_crawler(device.ua[:MAX_USER_AGENT]):
            return NoBid.KNOWN_CRAWLER
        return None

    def _is_crawler(self, user_agent: str) -> bool:
        """Remembered for a bounded number of user agents: the list has hundreds of patterns."""
        known = self._crawlers.get(user_agent)
        if known is None:
            if len(self._crawlers) >= 20_000:
                self._crawlers.clear()
            known = self._crawlers[user_agent] = is_crawler(user_agent)
        return known
