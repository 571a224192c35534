"""A request's members without what a bidder may not be told of its user."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from rtb.domain.privacy import Treatment

USER = frozenset({"id", "buyeruid", "customdata", "yob", "gender", "keywords", "kwarray", "data", "eids"})
USER_EXT = frozenset({"eids", "data", "prebid"})
DEVICE = frozenset({"ifa", "didsha1", "didmd5", "dpidsha1", "dpidmd5", "macsha1", "macmd5"})
GEO = frozenset({"accuracy", "lastfix", "ipservice", "zip"})
_STEPS = 100
"""Of a degree: about a kilometre each."""
_MOST_DEGREES = 180
_NUMBER = (int, float)
_KEPT_BYTES = (("ip", socket.AF_INET, 3), ("ipv6", socket.AF_INET6, 6))

_members = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder(Any)


def stripped(members: Mapping[str, Any], treatment: Treatment) -> dict[str, Any]:
    """The members of a request after a treatment; what is not as the specification has it is left out."""
    found = dict(members)
    anonymous = treatment >= Treatment.ANONYMOUS
    if "user" in members and (user := _opened(found, "user")) is not None:
        _coarsen(user)
        if anonymous:
            _drop(user, USER)
            ext = _object(user, "ext")
            if ext is not None:
                _drop(ext, USER_EXT)
                user["ext"] = ext
    if "device" in members and (device := _opened(found, "device")) is not None:
        _coarsen(device)
        for name, family, kept in _KEPT_BYTES:
            if name in device:
                device[name] = _network(_any.decode(device[name]), family, kept)
        if anonymous:
            _drop(device, DEVICE)
    return found


def _opened(members: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A member that is an object, to be changed in its place; what is none is left out."""
    found = _object(members, name)
    if found is None:
        del members[name]
    else:
        members[name] = found
    return found


def _object(members: Mapping[str, Raw], name: str) -> dict[str, Any] | None:
    """A member that is an object."""
    try:
        return _members.decode(members[name]) if name in members else None
    except msgspec.DecodeError:
        return None


def _drop(members: dict[str, Any], names: frozenset[str]) -> None:
    if not names.isdisjoint(members):
        for name in names & members.keys():
            del members[name]


def _coarsen(holder: dict[str, Any]) -> None:
    """Its geo, if any, to about a kilometre."""
    if "geo" not in holder or (geo := _opened(holder, "geo")) is None:
        return
    _drop(geo, GEO)
    for name in ("lat", "lon"):
        if name in geo:
            degrees = _any.decode(geo.pop(name))
            if isinstance(degrees, _NUMBER) and -_MOST_DEGREES <= degrees <= _MOST_DEGREES:
                geo[name] = round(degrees * _STEPS) / _STEPS


def _network(address: object, family: int, kept: int) -> str:
    """The first bytes of an address, zeros for the rest; "" for what is none."""
    try:
        packed = socket.inet_pton(family, str(address))
    except (OSError, ValueError):
        return ""
    return socket.inet_ntop(family, packed[:kept] + bytes(len(packed) - kept))
