"""A bid request. What 2.6 has in the object and 2.5 in its ``ext`` is read from either.

Source: OpenRTB 2.6-202606, sections in brackets.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec
from msgspec import Raw

from rtb.openrtb.context import App, Device, Dooh, Eid, Regs, Site, Source, SupplyChain, User
from rtb.openrtb.imp import Imp
from rtb.openrtb.wire import NonNegative, Wire

_Ext = TypeVar("_Ext", bound=Wire)


class BidRequest(Wire):
    """[3.2.1]; the properties read a 2.5 spelling in ``ext`` where the 2.6 field is absent."""

    id: str | None = None
    imp: list[Imp] | None = None
    site: Site | None = None
    app: App | None = None
    dooh: Dooh | None = None
    device: Device | None = None
    user: User | None = None
    test: int | None = None
    at: NonNegative | None = None
    tmax: NonNegative | None = None
    wseat: list[str] | None = None
    bseat: list[str] | None = None
    allimps: int | None = None
    cur: list[str] | None = None
    wlang: list[str] | None = None
    wlangb: list[str] | None = None
    acat: list[str] | None = None
    bcat: list[str] | None = None
    cattax: int | None = None
    badv: list[str] | None = None
    bapp: list[str] | None = None
    source: Source | None = None
    regs: Regs | None = None
    ext: Raw = Raw()

    @property
    def gdpr(self) -> int | None:
        """regs.gdpr, or 2.5's regs.ext.gdpr; None when unknown."""
        regs = self.regs
        return None if regs is None else regs.gdpr if regs.gdpr is not None else _read(_GdprExt, regs.ext).gdpr

    @property
    def us_privacy(self) -> str | None:
        """regs.us_privacy, or 2.5's regs.ext.us_privacy."""
        regs = self.regs
        return None if regs is None else regs.us_privacy or _read(_UsPrivacyExt, regs.ext).us_privacy

    @property
    def consent(self) -> str | None:
        """user.consent, or 2.5's user.ext.consent."""
        user = self.user
        return None if user is None else user.consent or _read(_ConsentExt, user.ext).consent

    @property
    def eids(self) -> list[Eid]:
        """user.eids, or 2.5's user.ext.eids."""
        user = self.user
        return [] if user is None else user.eids or _read(_EidsExt, user.ext).eids or []

    @property
    def schain(self) -> SupplyChain | None:
        """source.schain, or 2.5's source.ext.schain."""
        source = self.source
        return None if source is None else source.schain or _read(_SchainExt, source.ext).schain

    @property
    def wants_nbr(self) -> bool:
        """Whether ``ext.rtb.nbr = 1`` asks for a 200 with `nbr` in place of an empty 204."""
        asked = _read(_RequestExt, self.ext).rtb
        return asked is not None and asked.nbr == 1


class _GdprExt(Wire):
    gdpr: int | None = None


class _UsPrivacyExt(Wire):
    us_privacy: str | None = None


class _ConsentExt(Wire):
    consent: str | None = None


class _EidsExt(Wire):
    eids: list[Eid] | None = None


class _SchainExt(Wire):
    schain: SupplyChain | None = None


class _RtbExt(Wire):
    nbr: int | None = None


class _RequestExt(Wire):
    rtb: _RtbExt | None = None


_decoders: dict[type[Wire], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (_GdprExt, _UsPrivacyExt, _ConsentExt, _EidsExt, _SchainExt, _RequestExt)
}


def _read(kind: type[_Ext], raw: Raw) -> _Ext:
    """What an ``ext`` says in the shape of kind; an ext is free-form, so a misfit reads as empty.

    A kind has one field, so that a misfit does not take its neighbours along: a broken eid must not hide the consent.
    """
    if not raw:
        return kind()
    try:
        return cast(_Ext, _decoders[kind].decode(raw))
    except (msgspec.DecodeError, RecursionError):
        return kind()
