"""A request's members without what a bidder may not be told of its user."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from rtb.domain.privacy import Treatment

USER = ("id", "buyeruid", "customdata", "yob", "gender", "keywords", "kwarray", "data", "eids")
USER_EXT = ("eids", "data", "prebid")
DEVICE = ("ifa", "didsha1", "didmd5", "dpidsha1", "dpidmd5", "macsha1", "macmd5")
GEO = ("accuracy", "lastfix", "ipservice", "zip")
_DECIMALS = 2
"""Of degrees: about a kilometre."""
_KEPT_BYTES = (("ip", socket.AF_INET, 3), ("ipv6", socket.AF_INET6, 6))

_members = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder(Any)
_encode = msgspec.json.Encoder().encode


def stripped(members: Mapping[str, Raw], treatment: Treatment) -> dict[str, Raw]:
    """The members of a request after a treatment; what is not as the specification has it is left out."""
    found = dict(members)
    anonymous = treatment >= Treatment.ANONYMOUS
    user, device = _object(members, "user"), _object(members, "device")
    if user is not None:
        _coarsen(user)
        if anonymous:
            _drop(user, USER)
            ext = _object(user, "ext")
            if ext is not None:
                _drop(ext, USER_EXT)
                user["ext"] = Raw(_encode(ext))
        found["user"] = Raw(_encode(user))
    if device is not None:
        _coarsen(device)
        for name, family, kept in _KEPT_BYTES:
            if name in device:
                device[name] = Raw(_encode(_network(_any.decode(device[name]), family, kept)))
        if anonymous:
            _drop(device, DEVICE)
        found["device"] = Raw(_encode(device))
    for name in ("user", "device"):
        if name in found and (user if name == "user" else device) is None:
            del found[name]
    return found


def _object(members: Mapping[str, Raw], name: str) -> dict[str, Raw] | None:
    """A member that is an object."""
    try:
        return _members.decode(members[name]) if name in members else None
    except msgspec.DecodeError:
        return None


def _drop(members: dict[str, Raw], names: tuple[str, ...]) -> None:
    for name in names:
        members.pop(name, None)


def _coarsen(holder: dict[str, Raw]) -> None:
    """Its geo, if any, to about a kilometre."""
    geo = _object(holder, "geo")
    holder.pop("geo", None)
    if geo is None:
        return
    _drop(geo, GEO)
    for name in ("lat", "lon"):
        if name in geo:
            degrees = _any.decode(geo.pop(name))
            if isinstance(degrees, int | float):
                geo[name] = Raw(_encode(round(degrees, _DECIMALS)))
    holder["geo"] = Raw(_encode(geo))


def _network(address: object, family: int, kept: int) -> str:
    """The first bytes of an address, zeros for the rest; "" for what is none."""
    try:
        packed = socket.inet_pton(family, str(address))
    except (OSError, ValueError):
        return ""
    return socket.inet_ntop(family, packed[:kept] + bytes(len(packed) - kept))
