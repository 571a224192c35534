"""Bidder parameters in a request: each bidder is sent its own of ``imp.ext.prebid.bidder``, and nobody else's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from rtb.openrtb import BidRequest

_MARK = b'"prebid"'
_ESCAPE = b"\\u"
_members = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


class _Prebid(Struct, frozen=True):
    aliases: dict[str, str] = {}


class _Ext(Struct, frozen=True):
    prebid: _Prebid = _Prebid()


_ext = msgspec.json.Decoder(_Ext)


def has_params(request: BidRequest) -> bool:
    """Whether parameters may be among what the imps say besides OpenRTB."""
    for imp in request.imp or ():
        if imp.ext:
            said = bytes(imp.ext)
            if _MARK in said or _ESCAPE in said:
                return True
    return False


def aliases(request: BidRequest) -> Mapping[str, str]:
    """Whom a request's bidder codes stand for besides the bidders of their names."""
    try:
        return _ext.decode(request.ext).prebid.aliases if request.ext else {}
    except (msgspec.DecodeError, RecursionError):
        return {}


def own_params(imp: Raw, bidder: str, known_as: Mapping[str, str]) -> Raw:
    """An imp with the parameters of this bidder alone, under the codes that mean it; `known_as` are the aliases."""
    members = members_of(imp)
    ext = members_of(members.get("ext", Raw()))
    prebid = members_of(ext.get("prebid", Raw()))
    if "bidder" not in prebid:
        return imp
    params = members_of(prebid.pop("bidder"))
    own = {code: said for code, said in params.items() if known_as.get(code, code).lower() == bidder}
    if own:
        prebid["bidder"] = Raw(_encode(own))
    ext["prebid"] = Raw(_encode(prebid))
    members["ext"] = Raw(_encode(ext))
    return Raw(_encode(members))


def members_of(raw: Raw) -> dict[str, Raw]:
    """The members of an object, as they stand; none of what is no object."""
    try:
        return _members.decode(raw) if raw else {}
    except msgspec.DecodeError:
        return {}
