"""The privacy gate: what a remote bidder may be told of a user, or whether it may be asked at all.

What applies to a request is read once for all bidders; what follows is decided for each by its settings. The strictest
rule decides. GDPR applies where the request says so (regs.gdpr, or section 2 among gpp_sid), whatever else is known.
"""

from __future__ import annotations

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


class Signals(Struct, frozen=True, kw_only=True):
    """What a request says of privacy; None in place of this when it says nothing that limits anybody."""

    coppa: bool = False
    lmt: bool = False
    us: bool = False
    gdpr: bool = False
    consent: TcString | None = None

    def verdict(self, policy: PrivacyPolicy) -> Verdict:
        """What a bidder may be told, and why not more."""
        found = _FREE
        for applies, without, reason in (
            (self.coppa, policy.coppa, Reason.COPPA),
            (self.us, policy.us, Reason.US),
            (self.lmt, policy.lmt, Reason.LMT),
        ):
            if applies:
                found = _stricter(found, (_NONE if without == "skip" else _ANONYMOUS, reason))
        return _stricter(found, self._gdpr_verdict(policy)) if self.gdpr else found

    def _gdpr_verdict(self, policy: PrivacyPolicy) -> Verdict:
        consent = self.consent
        without = _NONE if policy.gdpr == "skip" else _ANONYMOUS
        if consent is None:
            return without, Reason.GDPR_STRING
        if policy.gvlid and not consent.has_vendor(policy.gvlid):
            return without, Reason.GDPR_VENDOR
        if not consent.has_purpose(_STORAGE):
            return without, Reason.GDPR_PURPOSE
        return _FREE if consent.has_special_feature(_PRECISE_GEO) else (_COARSE, Reason.GDPR_GEO)


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
    gpp = gpp_sections(regs.gpp or _of(_gpp, ext, "gpp"))
    applying = regs.gpp_sid or _of(_gpp_sid, ext, "gpp_sid") or ()
    gdpr = request.gdpr == 1 or TCF_EU in applying
    found = Signals(
        coppa=regs.coppa == 1,
        lmt=lmt,
        us=usp_opted_out(request.us_privacy)
        or str(_of(_gpc, ext, "gpc")) == "1"
        or any(us_opted_out(section, (gpp or {}).get(section, "")) for section in applying if section in _US_SECTIONS),
        gdpr=gdpr,
        consent=tc_string(request.consent or (gpp or {}).get(TCF_EU)) if gdpr else None,
    )
    return found if found.coppa or found.lmt or found.us or found.gdpr else None


def _of(decoder: msgspec.json.Decoder[Any], ext: Raw, name: str) -> Any:
    """A member of an ``ext`` that is what it should be; a misfit is absent."""
    if not ext or name.encode() not in bytes(ext):
        return None
    try:
        return getattr(decoder.decode(ext), name)
    except (msgspec.DecodeError, RecursionError):
        return None
