"""OpenRTB 2.6 on the wire: structs with the spec's names, decode, validate, encode.

Two views of a request exist (see docs/architecture.md): the typed `BidRequest` that the auction reads, and the bytes it
came from, which are what is forwarded; a field this file does not know, and every ``ext``, survives there untouched.
Enumerated fields are plain integers, because an unknown value is carried, not refused; the IntEnums below name the
known ones. ``null`` means absent. Sizes are DIPS, prices CPM floats, times milliseconds unless told otherwise.

Source: OpenRTB 2.6-202606, sections in brackets; the OpenRTB 3.0 lists for no-bid and loss reasons.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import Meta, Raw, Struct

from rtb.errors import BadRequest, TooLarge

VERSION = "2.6"
MAX_IMPS = 64
MAX_DEPTH = 512
MAX_PRICE_CPM = 1_000_000.0

_Ext = TypeVar("_Ext", bound="Wire")
NonNegative = Annotated[int, Meta(ge=0)]
Price = Annotated[float, Meta(ge=0, le=MAX_PRICE_CPM)]
Seconds = Annotated[int, Meta(ge=-1)]


class AuctionType(IntEnum):
    """`at` of a request or deal [3.2.1, 3.2.12]; 500 and above are an exchange's own."""

    FIRST_PRICE = 1
    SECOND_PRICE_PLUS = 2
    DEAL_PRICE = 3


class MarkupType(IntEnum):
    """`bid.mtype` [4.2.3]: which sub-object of the imp the markup is for."""

    BANNER = 1
    VIDEO = 2
    AUDIO = 3
    NATIVE = 4


class NoBid(IntEnum):
    """Why a request got no bid (`nbr`): the OpenRTB 3.0 list, and from 500 on our own."""

    UNKNOWN = 0
    TECHNICAL_ERROR = 1
    INVALID_REQUEST = 2
    KNOWN_CRAWLER = 3
    NON_HUMAN_TRAFFIC = 4
    DATA_CENTRE_IP = 5
    UNSUPPORTED_DEVICE = 6
    BLOCKED_PUBLISHER = 7
    UNMATCHED_USER = 8
    DAILY_USER_CAP = 9
    DAILY_DOMAIN_CAP = 10
    ADS_TXT_UNAVAILABLE = 11
    ADS_TXT_VIOLATION = 12
    ADS_CERT_UNAVAILABLE = 13
    ADS_CERT_VIOLATION = 14
    INSUFFICIENT_TIME = 15
    INCOMPLETE_SCHAIN = 16
    BLOCKED_SCHAIN_NODE = 17
    NO_ELIGIBLE_DEMAND = 500
    ALL_BELOW_FLOOR = 501
    SHED = 502
    ALL_LATE = 503
    NO_RATE = 504
    """The floor of every imp, or every currency in `cur`, is in a currency without a rate."""


class Loss(IntEnum):
    """Why a bid lost (`${AUCTION_LOSS}`): the OpenRTB 3.0 list."""

    WON = 0
    INTERNAL_ERROR = 1
    EXPIRED = 2
    INVALID_RESPONSE = 3
    INVALID_DEAL = 4
    INVALID_AUCTION_ID = 5
    ADOMAIN_MISSING = 6
    MARKUP_MISSING = 7
    CRID_MISSING = 8
    PRICE_MISSING = 9
    BELOW_FLOOR = 100
    BELOW_DEAL_FLOOR = 101
    OUTBID = 102
    LOST_TO_DEAL = 103
    SEAT_BLOCKED = 104
    CREATIVE_UNSPECIFIED = 200
    CREATIVE_PENDING = 201
    CREATIVE_DISAPPROVED = 202
    SIZE = 203
    FORMAT = 204
    ADVERTISER_BLOCKED = 205
    APP_BLOCKED = 206
    NOT_SECURE = 207
    LANGUAGE = 208
    CATEGORY_BLOCKED = 209
    ATTRIBUTE_BLOCKED = 210
    AD_TYPE_BLOCKED = 211


class DeviceType(IntEnum):
    """`device.devicetype`: AdCOM 1.0, List: Device Types."""

    MOBILE_OR_TABLET = 1
    PC = 2
    TV = 3
    PHONE = 4
    TABLET = 5
    CONNECTED_DEVICE = 6
    SET_TOP_BOX = 7
    OOH = 8


class Wire(Struct, gc=False, omit_defaults=True):
    """Base of the wire structs: not tracked by the collector (they form trees), defaults left out when encoded."""


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


class Bid(Wire, kw_only=True):
    """[4.2.3]"""

    id: str | None = None
    impid: str | None = None
    price: float | None = None
    nurl: str | None = None
    burl: str | None = None
    lurl: str | None = None
    adm: str | None = None
    adid: str | None = None
    adomain: list[str] | None = None
    bundle: str | None = None
    iurl: str | None = None
    cid: str | None = None
    crid: str | None = None
    cat: list[str] | None = None
    cattax: int | None = None
    attr: list[int] | None = None
    apis: list[int] | None = None
    api: int | None = None
    protocol: int | None = None
    language: str | None = None
    langb: str | None = None
    dealid: str | None = None
    w: int | None = None
    h: int | None = None
    exp: int | None = None
    dur: int | None = None
    mtype: int | None = None
    ext: Any = None


class SeatBid(Wire, kw_only=True):
    """[4.2.2]"""

    bid: list[Bid] | None = None
    seat: str | None = None
    group: int | None = None
    ext: Any = None


class BidResponse(Wire, kw_only=True):
    """[4.2.1]"""

    id: str | None = None
    seatbid: list[SeatBid] | None = None
    bidid: str | None = None
    cur: str | None = None
    nbr: int | None = None
    ext: Any = None


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


class _SentImp(Imp):
    """An imp whose banner is not decoded yet: most are like one seen before."""

    banner: Raw = Raw()  # type: ignore[assignment]


class _SentRequest(BidRequest):
    imp: list[_SentImp] | None = None  # type: ignore[assignment]


_request_decoder = msgspec.json.Decoder(_SentRequest)
_whole_decoder = msgspec.json.Decoder(BidRequest)
_banner_decoder = msgspec.json.Decoder(Banner | None)
_banners: dict[bytes, Banner | None] = {}
_MOST_BANNERS = 4096
_LONGEST_BANNER = 512
_response_decoder = msgspec.json.Decoder(BidResponse)
_encoder = msgspec.json.Encoder()
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")
_NESTING = f"the body: nesting is deeper than {MAX_DEPTH} levels; flatten the request"


def decode_request(body: bytes) -> BidRequest:
    """Decode and validate a bid request.

    Raises:
        BadRequest: one line that names the field, as in ``imp[0].banner.w: expected `int` >= 0``.
        TooLarge: nesting deeper than MAX_DEPTH.

    Source: OpenRTB 2.6 3.2.1 to 3.2.35 (what is "required" there, and where two fields exclude each other).
    """
    # what is nested deeper opens and closes more brackets than that
    if len(body) > 2 * MAX_DEPTH and body.count(b"{") + body.count(b"[") > MAX_DEPTH and _too_deep(body):
        raise TooLarge(_NESTING)
    try:
        if not body.isascii():
            body.decode()  # the decoder skips unknown fields unread, and they are forwarded
        request = _decoded(body)
    except msgspec.ValidationError as error:
        raise BadRequest(_field_first(error)) from None
    except RecursionError:
        raise TooLarge(_NESTING) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _too_deep(body):
            raise TooLarge(_NESTING) from None
        raise BadRequest(f"the body is not JSON: {_one_line(error)}") from None
    validate(request)
    return request


def _decoded(body: bytes) -> BidRequest:
    try:
        request = _request_decoder.decode(body)
        for imp in request.imp or ():
            sent = bytes(imp.banner)
            banner = (_banners[sent] if sent in _banners else _banner(sent)) if sent else None
            imp.banner = banner  # type: ignore[assignment]
    except msgspec.ValidationError:
        return _whole_decoder.decode(body)  # which tells the first thing wrong, and where
    return request


def _banner(sent: bytes) -> Banner | None:
    """A banner, kept if it is short: equal bytes give one object, which nobody changes."""
    banner: Banner | None = _banner_decoder.decode(sent)
    if len(sent) <= _LONGEST_BANNER:
        if len(_banners) >= _MOST_BANNERS:
            _banners.clear()
        _banners[sent] = banner
    return banner


def validate(request: BidRequest) -> None:
    """Check what the types alone do not: required fields, unique imp ids, exclusive objects.

    Raises:
        BadRequest: the first thing wrong, field first.
    """
    if not request.id:
        raise BadRequest("id: required, a non-empty string [3.2.1]")
    imps = request.imp
    if not imps:
        raise BadRequest("imp: required, at least one impression [3.2.1]")
    if (request.site is not None) + (request.app is not None) + (request.dooh is not None) > 1:
        raise BadRequest("site, app, dooh: only one of them may be present [3.2.1]")
    if len(imps) == 1:
        _validate_imp(imps[0], 0)
        return
    if len(imps) > MAX_IMPS:
        raise BadRequest(f"imp: {len(imps)} impressions, at most {MAX_IMPS} are accepted; split the request")
    seen: dict[str, int] = {}
    for i, imp in enumerate(imps):
        _validate_imp(imp, i)
        first = seen.setdefault(imp.id or "", i)
        if first != i:
            name = ascii((imp.id or "")[:64])
            raise BadRequest(f"imp[{i}].id: {name} is also imp[{first}].id; ids must be unique [3.2.4]")


def _validate_imp(imp: Imp, i: int) -> None:
    if not imp.id:
        raise BadRequest(f"imp[{i}].id: required, a non-empty string [3.2.4]")
    video, audio, native = imp.video, imp.audio, imp.native
    if imp.banner is None and video is None and audio is None and native is None:
        raise BadRequest(f"imp[{i}]: needs one of banner, video, audio, native [3.2.4]")
    if video is not None and not video.mimes:
        raise BadRequest(f"imp[{i}].video.mimes: required, at least one MIME type [3.2.7]")
    if audio is not None and not audio.mimes:
        raise BadRequest(f"imp[{i}].audio.mimes: required, at least one MIME type [3.2.8]")
    if native is not None and not native.request:
        raise BadRequest(f"imp[{i}].native.request: required, the native request as a JSON string [3.2.9]")
    if imp.pmp is not None and imp.pmp.deals:
        for j, deal in enumerate(imp.pmp.deals):
            if not deal.id:
                raise BadRequest(f"imp[{i}].pmp.deals[{j}].id: required, a non-empty string [3.2.12]")


def decode_response(body: bytes) -> BidResponse:
    """Decode a bidder's response; an empty body or ``{}`` is a no-bid [7.1].

    Raises:
        BadRequest: it is not a bid response.
    """
    if not body.strip():
        return BidResponse()
    try:
        return _response_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(_field_first(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the response is not JSON: {_one_line(error)}") from None


def encode(message: BidRequest | BidResponse) -> bytes:
    """JSON bytes, absent and default fields left out."""
    return _encoder.encode(message)


def _too_deep(body: bytes) -> bool:
    """Whether brackets outside strings nest deeper than MAX_DEPTH; linear in the length, whatever is in it."""
    if b"\\" in body:  # with the escaped characters gone, every quote begins or ends a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = 0
    for bracket in b"".join(body.split(b'"')[::2]).translate(None, _NOT_BRACKETS):
        if bracket not in _OPENING:
            depth -= 1
        elif depth == MAX_DEPTH:
            return True
        else:
            depth += 1
    return False


def _field_first(error: msgspec.ValidationError) -> str:
    what, _, where = _one_line(error).partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    what = what[:1].lower() + what[1:]
    return f"{where or 'the body'}: {what}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
