"""What is offered: an imp, and the objects it is made of.

Source: OpenRTB 2.6-202606, sections in brackets.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw

from rtb.openrtb.wire import NonNegative, Price, Seconds, Wire


class Format(Wire):
    """An allowed size of a banner [3.2.10]: w x h, or a flex ad's ratio and minimum width."""

    w: NonNegative | None = None
    h: NonNegative | None = None
    wratio: NonNegative | None = None
    hratio: NonNegative | None = None
    wmin: NonNegative | None = None


class Banner(Wire):
    """[3.2.6]"""

    format: list[Format] | None = None
    w: NonNegative | None = None
    h: NonNegative | None = None
    wmin: NonNegative | None = None
    wmax: NonNegative | None = None
    hmin: NonNegative | None = None
    hmax: NonNegative | None = None
    btype: list[int] | None = None
    battr: list[int] | None = None
    pos: int | None = None
    mimes: list[str] | None = None
    topframe: int | None = None
    expdir: list[int] | None = None
    api: list[int] | None = None
    id: str | None = None
    vcm: int | None = None


class DurFloors(Wire):
    """A floor for creatives of mindur..maxdur seconds, ends included [3.2.35]."""

    mindur: NonNegative | None = None
    maxdur: NonNegative | None = None
    bidfloor: Price | None = None


class Video(Wire):
    """[3.2.7]; durations in seconds, bit rates in Kbps."""

    mimes: list[str] | None = None
    minduration: NonNegative | None = None
    maxduration: NonNegative | None = None
    startdelay: int | None = None
    maxseq: NonNegative | None = None
    poddur: NonNegative | None = None
    protocols: list[int] | None = None
    w: NonNegative | None = None
    h: NonNegative | None = None
    podid: str | int | None = None
    podseq: int | None = None
    rqddurs: list[NonNegative] | None = None
    placement: int | None = None
    plcmt: int | None = None
    linearity: int | None = None
    skip: int | None = None
    skipmin: NonNegative | None = None
    skipafter: NonNegative | None = None
    slotinpod: int | None = None
    mincpmpersec: Price | None = None
    battr: list[int] | None = None
    maxextended: Seconds | None = None
    minbitrate: NonNegative | None = None
    maxbitrate: NonNegative | None = None
    boxingallowed: int | None = None
    playbackmethod: list[int] | None = None
    delivery: list[int] | None = None
    pos: int | None = None
    companionad: list[Banner] | None = None
    api: list[int] | None = None
    companiontype: list[int] | None = None
    durfloors: list[DurFloors] | None = None


class Audio(Wire):
    """[3.2.8]; durations in seconds, bit rates in Kbps."""

    mimes: list[str] | None = None
    minduration: NonNegative | None = None
    maxduration: NonNegative | None = None
    poddur: NonNegative | None = None
    protocols: list[int] | None = None
    startdelay: int | None = None
    rqddurs: list[NonNegative] | None = None
    podid: str | int | None = None
    podseq: int | None = None
    slotinpod: int | None = None
    mincpmpersec: Price | None = None
    battr: list[int] | None = None
    maxextended: Seconds | None = None
    minbitrate: NonNegative | None = None
    maxbitrate: NonNegative | None = None
    delivery: list[int] | None = None
    companionad: list[Banner] | None = None
    api: list[int] | None = None
    companiontype: list[int] | None = None
    maxseq: NonNegative | None = None
    feed: int | None = None
    stitched: int | None = None
    nvol: int | None = None
    durfloors: list[DurFloors] | None = None


class Native(Wire):
    """[3.2.9]; `request` is a JSON string of the Native Ads specification."""

    request: str | None = None
    ver: str | None = None
    api: list[int] | None = None
    battr: list[int] | None = None


class Deal(Wire):
    """[3.2.12]; `bidfloorcur` does not inherit the imp's. An explicit bidfloor of 0 counts, an absent one is none."""

    id: str | None = None
    bidfloor: Price | None = None
    bidfloorcur: str | None = None
    at: NonNegative | None = None
    wseat: list[str] | None = None
    wadomain: list[str] | None = None
    guar: int | None = None
    mincpmpersec: Price | None = None
    durfloors: list[DurFloors] | None = None


class Pmp(Wire):
    """[3.2.11]"""

    private_auction: int | None = None
    deals: list[Deal] | None = None


class Metric(Wire):
    """[3.2.5]"""

    type: str | None = None
    value: float | None = None
    vendor: str | None = None


class Qty(Wire):
    """How many impressions one sale counts for, as in DOOH [3.2.31]."""

    multiplier: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    sourcetype: int | None = None
    vendor: str | None = None


class Imp(Wire):
    """[3.2.4]"""

    id: str | None = None
    banner: Banner | None = None
    video: Video | None = None
    audio: Audio | None = None
    native: Native | None = None
    metric: list[Metric] | None = None
    pmp: Pmp | None = None
    displaymanager: str | None = None
    displaymanagerver: str | None = None
    instl: int | None = None
    tagid: str | None = None
    bidfloor: Price | None = None
    bidfloorcur: str | None = None
    clickbrowser: int | None = None
    secure: int | None = None
    iframebuster: list[str] | None = None
    rwdd: int | None = None
    ssai: int | None = None
    exp: NonNegative | None = None
    qty: Qty | None = None
    ext: Raw = Raw()
