"""docs/campaigns.md names every field of a campaign, and its example is one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rtb.domain import campaign as campaigns
from rtb.domain import profile
from rtb.domain.campaign import (
    Campaign,
    Circle,
    Creative,
    FrequencyCap,
    Media,
    Optimise,
    Pacing,
    Per,
    Status,
    Targeting,
)
from rtb.domain.profile import Profile

TEXT = (Path(__file__).parents[3] / "docs" / "campaigns.md").read_text(encoding="utf-8")
NAMED = {word for quoted in re.findall(r"`([^`\n]+)`", TEXT) for word in re.findall(r"[A-Za-z0-9_]+", quoted)}


@pytest.mark.parametrize("kind", [Campaign, Targeting, Creative, FrequencyCap, Circle, Optimise, Profile])
def test_every_field_is_named(kind: Any) -> None:
    """In backticks."""
    assert set(kind.__struct_fields__) - NAMED == set()


def test_every_choice_is_named() -> None:
    """Of the fields that have some."""
    assert {*Status, *campaigns.Pricing, *Pacing, *Per, *Media} <= NAMED


def test_the_examples_are_campaigns() -> None:
    """The whole one by itself, and with the values that the tables show."""
    whole, user = map(json.loads, re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))
    assert campaigns.convert(whole).creatives[0].image_url == "https://cdn.acme.example/k1.png"
    assert profile.decode(json.dumps(user).encode()).value == 0.5
    weights, caps, circle = map(json.loads, re.findall(r'`(\[?\{"(?:value|count|lat)[^`]*)`', TEXT))
    more = campaigns.convert(
        {**whole, "optimise": weights, "frequency_caps": caps, "targeting": {"geo": [circle]}, "max_bid": 3.0}
    )
    assert more.optimise == Optimise()
    assert more.frequency_caps == (FrequencyCap(2, per=Per.HOUR),)
    assert more.targeting.geo == (Circle(37.56, 126.97),)
