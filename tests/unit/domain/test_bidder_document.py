"""docs/bidders.md names every key of a bidder; the example file is one that is read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.breaker import BreakerPolicy
from rtb.domain.privacy import PrivacyPolicy

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "bidders.md").read_text(encoding="utf-8")
NAMED = {word for quoted in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"[a-z0-9_]+", quoted)}


@pytest.mark.parametrize("kind", [BidderSettings, BreakerPolicy, PrivacyPolicy])
def test_every_key_is_named(kind: Any) -> None:
    """In backticks."""
    assert set(kind.__struct_fields__) - NAMED == set()


def test_the_defaults_of_a_breaker_are_those_of_the_code() -> None:
    """In brackets, on the line that names the key."""
    for field in msgspec.structs.fields(BreakerPolicy):
        assert any(f"({field.default:g}" in line for line in TEXT.splitlines() if f"`{field.name}`" in line), field.name


def test_the_example_is_a_file_of_bidders() -> None:
    """As it stands there."""
    given = tomllib.loads((ROOT / "config" / "bidders.example.toml").read_text(encoding="utf-8"))
    [acme] = msgspec.convert(given["bidder"], list[BidderSettings])
    assert (acme.name, acme.privacy.gvlid) == ("acme", 52)
