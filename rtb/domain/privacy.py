"""The privacy gate: what a remote bidder may be told of a user, or whether it may be asked at all.

What applies to a request is read once for all bidders; what follows is decided for each by its settings. The strictest
rule decides. GDPR applies where the request says so (regs.gdpr, or section 2 among gpp_sid), whatever else is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from rtb.domain.consent import TCF_EU, TcString, gpp_sections, tc_string, us_opted_out, usp_opted_out
from rtb.openrtb import BidRequest

Without = Literal["strip", "skip"]

_STORAGE, _PRECISE_GEO = 1, 1
"""TCF: the purpose without which no identifier may be read, and the special feature for precise geolocation."""
_US_SECTIONS = range(6, 28)


class PrivacyPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do where the law or the user forbids this bidder to know who it is: strip the request, or not ask it.

    Attributes:
        gvlid: its id in the Global Vendor List; 0 if it has none: then a TC string that allows storage will do.
        gdpr: without consent. us: after an opt-out of sale, sharing or targeted advertising. lmt: limited tracking.
    """

    gvlid: Annotated[int, Meta(ge=0, le=65_535)] = 0
    gdpr: Without = "strip"
    us: Without = "strip"
    coppa: Without = "strip"
    lmt: Without = "strip"


class Reason(StrEnum):
    """Why a bidder was told less, or not asked."""

    COPPA = "coppa"
    LMT = "lmt or dnt"
    US = "us privacy: opted out"
    GDPR_STRING = "gdpr: no readable consent string"
    GDPR_PURPOSE = "gdpr: no consent to storage"
    GDPR_VENDOR = "gdpr: no consent for its vendor id"
    GDPR_GEO = "gdpr: no opt-in to precise geolocation"


class Treatment(IntEnum):
    """What becomes of a request on its way to a bidder."""

    WHOLE = 0
    COARSE = 1
    """Without precise geography and the end of the address."""
    ANONYMOUS = 2
    """Besides, without identifiers and what is known of the user."""
    NONE = 3
    """It is not asked."""


_WHOLE, _COARSE, _ANONYMOUS, _NONE = Treatment

Verdict = tuple[Treatment, Reason | None]
_FREE: Verdict = (_WHOLE, None)
_WITHOUT_PLACE: Verdict = (_COARSE, Reason.GDPR_GEO)
_COPPA, _US, _LMT, _GDPR_STRING = Reason.COPPA, Reason.US, Reason.LMT, Reason.GDPR_STRING
"""By names of their own, as those of `Treatment` are: a look-up in an enum costs ten times that of a name."""


class Signals(Struct, frozen=True, kw_only=True):
    """What a request says of privacy; None in place of this when it says nothing that limits anybody."""

    coppa: bool = False
    lmt: bool = False
    us: bool = False
    gdpr: bool = False
    consent: TcString | None = None

    def verdict(self, policy: PrivacyPolicy) -> Verdict:
        """What a bidder may be told, and why not more: of equally strict rules, the first of these is the reason."""
        found = _FREE
        if self.coppa:
            found = _stricter(found, _without(policy.coppa, _COPPA))
        if self.us:
            found = _stricter(found, _without(policy.us, _US))
        if self.lmt:
            found = _stricter(found, _without(policy.lmt, _LMT))
        return _stricter(found, self._gdpr_verdict(policy)) if self.gdpr else found

    def _gdpr_verdict(self, policy: PrivacyPolicy) -> Verdict:
        consent = self.consent
        if consent is None:
            return _without(policy.gdpr, _GDPR_STRING)
        if policy.gvlid and not consent.has_vendor(policy.gvlid):
            return _without(policy.gdpr, Reason.GDPR_VENDOR)
        if not consent.has_purpose(_STORAGE):
            return _without(policy.gdpr, Reason.GDPR_PURPOSE)
        return _FREE if consent.has_special_feature(_PRECISE_GEO) else _WITHOUT_PLACE


def _without(without: Without, reason: Reason) -> Verdict:
    """Where it may not be known who the user is."""
    return (_NONE if without == "skip" else _ANONYMOUS), reason


def _stricter(one: Verdict, other: Verdict) -> Verdict:
    return other if other[0] > one[0] else one


class _Gpp(Struct):
    gpp: str | None = None


class _GppSid(Struct):
    gpp_sid: list[int] | None = None


class _Gpc(Struct):
    gpc: str | int | None = None


_gpp, _gpp_sid, _gpc = (msgspec.json.Decoder(kind) for kind in (_Gpp, _GppSid, _Gpc))


def signals(request: BidRequest) -> Signals | None:
    """Read them, 2.6 or 2.5; None when nobody is limited by what the request says."""
    regs, device = request.regs, request.device
    lmt = device is not None and (device.lmt == 1 or device.dnt == 1)
    if regs is None:
        return Signals(lmt=True) if lmt else None
    ext = regs.ext
    sections: Mapping[int, str] = {}
    applying: Sequence[int] = ()
    us = usp_opted_out(request.us_privacy)
    if ext or regs.gpp or regs.gpp_sid:
        sections = gpp_sections(regs.gpp or _of(_gpp, ext, "gpp")) or {}
        applying = regs.gpp_sid or _of(_gpp_sid, ext, "gpp_sid") or ()
        us = us or str(_of(_gpc, ext, "gpc")) == "1"
        us = us or any(
            us_opted_out(section, sections.get(section, "")) for section in applying if section in _US_SECTIONS
        )
    coppa, gdpr = regs.coppa == 1, request.gdpr == 1 or TCF_EU in applying
    if not (coppa or lmt or us or gdpr):
        return None
    consent = tc_string(request.consent or sections.get(TCF_EU)) if gdpr else None
    return Signals(coppa=coppa, lmt=lmt, us=us, gdpr=gdpr, consent=consent)


def _of(decoder: msgspec.json.Decoder[Any], ext: Raw, name: str) -> Any:
    """A member of an ``ext`` that is what it should be; a misfit is absent."""
    if not ext or name.encode() not in bytes(ext):
        return None
    try:
        return getattr(decoder.decode(ext), name)
    except (msgspec.DecodeError, RecursionError):
        return None
