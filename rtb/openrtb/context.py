"""Where and to whom it is offered, and who sells it: site, app, device, user, regs, source.

Source: OpenRTB 2.6-202606, sections in brackets.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw

from rtb.openrtb.wire import NonNegative, Wire


class Publisher(Wire):
    """[3.2.15]"""

    id: str | None = None
    name: str | None = None
    cat: list[str] | None = None
    domain: str | None = None


class Content(Wire):
    """[3.2.16], the fields that targeting reads."""

    id: str | None = None
    title: str | None = None
    series: str | None = None
    cat: list[str] | None = None
    language: str | None = None
    keywords: str | list[str] | None = None
    livestream: int | None = None


class Site(Wire):
    """[3.2.13]"""

    id: str | None = None
    name: str | None = None
    domain: str | None = None
    cat: list[str] | None = None
    sectioncat: list[str] | None = None
    pagecat: list[str] | None = None
    page: str | None = None
    ref: str | None = None
    mobile: int | None = None
    publisher: Publisher | None = None
    content: Content | None = None
    keywords: str | list[str] | None = None


class App(Wire):
    """[3.2.14]"""

    id: str | None = None
    name: str | None = None
    bundle: str | None = None
    domain: str | None = None
    storeurl: str | None = None
    cat: list[str] | None = None
    sectioncat: list[str] | None = None
    pagecat: list[str] | None = None
    ver: str | None = None
    publisher: Publisher | None = None
    content: Content | None = None
    keywords: str | list[str] | None = None


class Dooh(Wire):
    """[3.2.32]"""

    id: str | None = None
    name: str | None = None
    venuetype: list[str] | None = None
    venuetypetax: int | None = None
    publisher: Publisher | None = None
    domain: str | None = None
    keywords: str | list[str] | None = None
    content: Content | None = None


class Geo(Wire):
    """[3.2.19]; degrees, `accuracy` in metres, `country` ISO-3166-1 alpha-3."""

    lat: float | None = None
    lon: float | None = None
    type: int | None = None
    accuracy: NonNegative | None = None
    country: str | None = None
    region: str | None = None
    metro: str | None = None
    city: str | None = None
    zip: str | None = None
    utcoffset: int | None = None


class Device(Wire):
    """[3.2.18]"""

    geo: Geo | None = None
    dnt: int | None = None
    lmt: int | None = None
    ua: str | None = None
    ip: str | None = None
    ipv6: str | None = None
    devicetype: int | None = None
    make: str | None = None
    model: str | None = None
    os: str | None = None
    osv: str | None = None
    h: NonNegative | None = None
    w: NonNegative | None = None
    ppi: NonNegative | None = None
    js: int | None = None
    language: str | None = None
    langb: str | None = None
    carrier: str | None = None
    connectiontype: int | None = None
    ifa: str | None = None


class Uid(Wire):
    """[3.2.28]"""

    id: str | None = None
    atype: int | None = None


class Eid(Wire):
    """[3.2.27]"""

    source: str | None = None
    uids: list[Uid] | None = None


class Segment(Wire):
    """[3.2.22]"""

    id: str | None = None
    name: str | None = None
    value: str | None = None


class Data(Wire):
    """[3.2.21]"""

    id: str | None = None
    name: str | None = None
    segment: list[Segment] | None = None


class User(Wire):
    """[3.2.20]"""

    id: str | None = None
    buyeruid: str | None = None
    keywords: str | list[str] | None = None
    kwarray: list[str] | None = None
    geo: Geo | None = None
    data: list[Data] | None = None
    consent: str | None = None
    eids: list[Eid] | None = None
    ext: Raw = Raw()


class Regs(Wire):
    """[3.2.3]"""

    coppa: int | None = None
    gdpr: Annotated[int, Meta(ge=0, le=1)] | None = None
    us_privacy: str | None = None
    gpp: str | None = None
    gpp_sid: list[int] | None = None
    ext: Raw = Raw()


class SupplyChainNode(Wire):
    """[3.2.26]"""

    asi: str | None = None
    sid: str | None = None
    rid: str | None = None
    name: str | None = None
    domain: str | None = None
    hp: int | None = None


class SupplyChain(Wire):
    """[3.2.25]"""

    complete: int | None = None
    nodes: list[SupplyChainNode] | None = None
    ver: str | None = None


class Source(Wire):
    """[3.2.2]"""

    fd: int | None = None
    tid: str | None = None
    pchain: str | None = None
    schain: SupplyChain | None = None
    ext: Raw = Raw()
