"""Where a campaign's metrics also come from: advertising platforms that the same campaign runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from rtb.domain.source_metrics import CampaignMetrics, Days
from rtb.errors import RtbError


class SourceError(RtbError):
    """A metric source refused, is away, or answers what nobody can read; one line, without secrets."""


class SourceFailure(Struct, frozen=True):
    """Why a source told nothing of one campaign: one line, without secrets."""

    reason: str


class BidUpdate(Struct, frozen=True):
    """A bid to set at a source, in nanos of the account's currency there.

    To `MetricSources` `campaign_id` is the campaign's id here, to a source it is the one there. `target_id` is what
    holds the bid at the source: an ad set, an ad group.
    """

    source: str
    campaign_id: str
    target_id: str
    bid_nanos: int
    currency: str


class BidResult(Struct, frozen=True):
    """What became of one update: `applied_nanos` is what the source bids now (it may have coarser units and is then
    rounded down), None when it refused; `reason` says why, "" when it did not."""

    update: BidUpdate
    applied_nanos: int | None = None
    reason: str = ""


class MetricSource(Protocol):
    """One account at one platform. Ids are the platform's own."""

    @property
    def name(self) -> str:
        """Its name in configuration, campaigns and results."""
        ...

    @property
    def batch(self) -> int:
        """How many campaigns, or bids, one call takes at most."""
        ...

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """The metrics of these campaigns, or for each the reason why not.

        Raises:
            SourceError: nothing can be had for any of them.
        """
        ...

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Set bids; what became of each, in the same order. Setting one again is harmless.

        Raises:
            SourceError: none of them was sent.
        """
        ...


class RequestGate(Protocol):
    """Where a source's requests pass, so that neither it nor this process is overrun."""

    def passage(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn and keep a place until the request is over.

        Raises:
            SourceError: it would take too long; the source has asked to be left alone.
        """
        ...

    def hold_off(self, seconds: float, reason: str) -> None:
        """Let no request pass for so long, as the source asked."""
        ...
