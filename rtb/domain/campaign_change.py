"""A change of the catalogue that comes from outside, and what it makes of a campaign.

Two shapes of JSON. A whole campaign, as in ``config/campaigns.json``, bare or as ``{"campaign": {...}}``: it is
inserted, or replaces the one of its id. Or the fields that change of one that is known, by the names of `Campaign`:

    {"campaign_id": "c1", "status": "paused"}
    {"campaign_id": "c1", "bid": 2.5, "daily_budget": null}

`version` is optional. With it, a change that is not above the version kept is old and does nothing, so that sending it
twice is harmless; without it, a change that changes nothing does nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, structs

from rtb.domain import campaign as campaigns
from rtb.domain.campaign import Campaign
from rtb.errors import InvalidCampaign, Malformed, NotFound

MAX_VERSION = 2**63 - 1
ENVELOPE = frozenset({"campaign_id", "persisted", "origin"})


class Change(Struct, frozen=True):
    """The fields that change, by the names of `Campaign`; `whole` when they are all that the campaign shall have."""

    campaign_id: str
    fields: dict[str, Any]
    whole: bool


def decode(data: bytes) -> Change:
    """The change in a message's data.

    Raises:
        Malformed: neither of the two shapes; names the field.
    """
    try:
        given = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"data: not JSON: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise Malformed("data: expected an object")
    whole = given.get("campaign", given if "campaign_id" not in given else None)
    if whole is not None:
        if not isinstance(whole, dict):
            raise Malformed("data.campaign: expected an object")
        return Change(_id(whole, "id"), whole, whole=True)
    fields = {name: value for name, value in given.items() if name not in ENVELOPE}
    if "id" in fields:
        raise Malformed("data.id: an id does not change; leave it out")
    if not fields.keys() - {"version"}:
        raise Malformed("data: names no field that changes")
    return Change(_id(given, "campaign_id"), fields, whole=False)


def changed(current: Campaign | None, change: Change) -> Campaign | None:
    """The campaign that a change makes of the current one, its version one above, or None when nothing changes.

    Raises:
        NotFound: fields of a campaign that does not exist.
        InvalidCampaign: it would make no sense; names the field.
    """
    if current is None and not change.whole:
        raise NotFound(f"campaign {change.campaign_id!r}: unknown; send the whole campaign first")
    base = {} if current is None or change.whole else msgspec.to_builtins(current)
    wanted = campaigns.convert({**base, **change.fields})
    if current is None:
        return wanted
    if "version" in change.fields:
        return wanted if wanted.version > current.version else None
    wanted = structs.replace(wanted, version=current.version)
    return None if wanted == current else newer(wanted, current)


def newer(wanted: Campaign, current: Campaign) -> Campaign:
    """The wanted campaign with the version after the current one's, unless its own is higher still.

    Raises:
        InvalidCampaign: there is no higher version.
    """
    if wanted.version > current.version:
        return wanted
    if current.version >= MAX_VERSION:
        raise InvalidCampaign(f"campaign {wanted.id!r}: version: {current.version} is the last there is")
    return structs.replace(wanted, version=current.version + 1)


def _id(given: dict[str, Any], field: str) -> str:
    value = given.get(field)
    if not isinstance(value, str) or not value:
        raise Malformed(f"data.{field}: required, as text")
    return value
