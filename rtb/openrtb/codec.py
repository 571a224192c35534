"""Bytes to structs and back, and what the types alone do not check."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from rtb.errors import BadRequest, TooLarge
from rtb.openrtb.imp import Banner, Imp
from rtb.openrtb.lists import MAX_DEPTH, MAX_IMPS
from rtb.openrtb.request import BidRequest
from rtb.openrtb.response import BidResponse


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
