"""docs/dashboard-protocol.md names what is really sent, so that pages can be built against it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dashboard.answers import BidderList, CampaignLive, InstanceList, QueueNow
from dashboard.commands import Backfill, Said, View
from dashboard.feeds import CHANNELS, MESSAGES
from dashboard.hub import PROTOCOL
from rtb.domain.metrics import COUNTERS
from rtb.domain.snapshot import InstanceRow, MinuteReport, Point, Reason, Snapshot, Spread
from rtb.services.auction_tape import Answer, AuctionRow, AuctionStory, ImpFacts, RequestFacts, SoldImp, Timing
from rtb.services.bidder_board import BidderRow
from rtb.services.explain import Explanation, Verdict
from rtb.services.queue_monitor import QueueRow, Warned

TEXT = (Path(__file__).parents[3] / "docs" / "dashboard-protocol.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([A-Za-z0-9_.-]+)`", TEXT))
NOT_TOLD = {"request_id", "type"}
"""Of an explanation the one stands in the auction's row; the other heads the tables."""


@pytest.mark.parametrize(
    "kind",
    [
        *(Snapshot, Spread, Reason, Point, InstanceRow, BidderRow, MinuteReport, QueueRow, CampaignLive),
        *(AuctionRow, SoldImp, AuctionStory, RequestFacts, ImpFacts, Timing, Answer, Explanation, Verdict),
        *(InstanceList, BidderList, QueueNow, Backfill, View, Said),
    ],
)
def test_every_field_is_named(kind: Any) -> None:
    """In backticks."""
    assert {name for name in kind.__struct_fields__ if name not in NAMED} - NOT_TOLD == set()


def test_every_word_is_named() -> None:
    """Counters, channels, the messages of channels, warnings, and the version."""
    assert {*COUNTERS, *CHANNELS, *MESSAGES.values(), *(warned.value for warned in Warned)} <= NAMED
    assert f"protocol, version {PROTOCOL}" in TEXT


@pytest.mark.parametrize("kind", [Point, CampaignLive])
def test_arrays_are_described_in_their_order(kind: Any) -> None:
    """Their fields follow each other in the text as they do on the wire."""
    assert re.search(r"[^`]*".join(f"`{name}`" for name in kind.__struct_fields__), re.sub(r"\([^)]*\)", "", TEXT))
