"""What a campaign update from outside says, and what it makes of a campaign."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from rtb.domain import campaign as campaigns
from rtb.domain.campaign import Campaign, Creative, Status
from rtb.domain.campaign_change import Change, changed, decode
from rtb.errors import InvalidCampaign, Malformed, NotFound

KNOWN = Campaign(id="c", advertiser="acme", creatives=(Creative(id="ad"),), bid=2.0, daily_budget=10.0, version=4)
WHOLE = json.loads(campaigns.encode(KNOWN))


def made(data: Any, current: Campaign | None = KNOWN) -> Campaign | None:
    return changed(current, decode(json.dumps(data).encode()))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "paused"}, {"status": Status.PAUSED}),
        ({"bid": 3.5}, {"bid": 3.5}),
        ({"bid": 3, "daily_budget": None}, {"bid": 3.0, "daily_budget": None}),
        ({"adomain": ["ACME.test"]}, {"adomain": ("acme.test",)}),
    ],
)
def test_fields_of_a_known_campaign_change(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Those that are named, nothing else; the version is the next."""
    assert made({"campaign_id": "c", **fields}) == replace(KNOWN, version=5, **expected)


@pytest.mark.parametrize("shape", [lambda whole: whole, lambda whole: {"campaign": whole}])
def test_a_whole_campaign_replaces_the_known_one(shape: Any) -> None:
    """Bare, as it stands in a campaigns file, or under its name; what it leaves out has its default."""
    whole = {"id": "c", "advertiser": "acme", "creatives": [{"id": "ad"}], "bid": 9.0}
    expected = Campaign(id="c", advertiser="acme", creatives=(Creative(id="ad"),), bid=9.0, version=5)
    assert made(shape(whole)) == expected


def test_an_unknown_whole_campaign_is_new() -> None:
    """With its own version, 1 by default."""
    assert made(WHOLE, None) == KNOWN
    assert made({**WHOLE, "version": 1}, None) == replace(KNOWN, version=1)


@pytest.mark.parametrize(
    "data", [{"campaign_id": "c", "bid": 2.0}, {"campaign_id": "c", "status": "active", "daily_budget": 10}]
)
def test_what_changes_nothing_is_no_change(data: dict[str, Any]) -> None:
    """So that an update may come twice."""
    assert made(data) is None
    without = {name: value for name, value in WHOLE.items() if name != "version"}
    assert made(without) is None


@pytest.mark.parametrize(("version", "expected"), [(3, None), (4, None), (5, 5), (90, 90)])
def test_a_version_orders_updates(version: int, expected: int | None) -> None:
    """One that is not above what is kept is old."""
    for data in ({"campaign_id": "c", "bid": 7.0, "version": version}, {**WHOLE, "bid": 7.0, "version": version}):
        new = made(data)
        assert (new and new.version) == expected
        assert new is None or new.bid == 7.0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "data: not JSON"),
        (b"[" * 5_000, "data: not JSON"),
        (b"[]", "data: expected an object"),
        (b'{"campaign": 3}', "data.campaign: expected an object"),
        (b"{}", "data.id: required"),
        (b'{"id": ""}', "data.id: required"),
        (b'{"campaign_id": 3, "bid": 1}', "data.campaign_id: required"),
        (b'{"campaign_id": "c"}', "data: names no field"),
        (b'{"campaign_id": "c", "version": 9}', "data: names no field"),
        (b'{"campaign_id": "c", "id": "d"}', "data.id: an id does not change"),
    ],
)
def test_what_is_no_change_is_malformed(data: bytes, reason: str) -> None:
    """The reason names the field."""
    with pytest.raises(Malformed) as caught:
        decode(data)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"bid": -1}, "bid"),
        ({"bid": 0}, "bid"),
        ({"status": "gone"}, "status"),
        ({"colour": "red"}, "colour"),
        ({"creatives": []}, "creatives"),
        ({"timezone": "Mars"}, "timezone"),
        ({"version": 0, "bid": 1}, "version"),
    ],
)
def test_what_makes_no_sense_is_invalid(fields: dict[str, Any], field: str) -> None:
    """Names the campaign and the field."""
    with pytest.raises(InvalidCampaign, match=rf"campaign 'c'.*{field}"):
        made({"campaign_id": "c", **fields})


def test_fields_of_an_unknown_campaign_are_not_found() -> None:
    """There is nothing to change."""
    with pytest.raises(NotFound, match="'c': unknown"):
        made({"campaign_id": "c", "bid": 1}, None)


def test_there_is_a_last_version() -> None:
    """Which nothing can replace."""
    with pytest.raises(InvalidCampaign, match="is the last there is"):
        changed(replace(KNOWN, version=2**63 - 1), Change("c", {"bid": 1.0}, whole=False))
