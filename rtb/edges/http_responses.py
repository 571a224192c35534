"""HTTP responses as bytes: whole ones, refusals that say why, the answer to a mistake of ours."""

from __future__ import annotations

import structlog

from rtb import openrtb

_VERSION = b"x-openrtb-version: " + openrtb.VERSION.encode() + b"\r\n"

_log = structlog.get_logger(__name__)


def response(status: bytes, body: bytes, extra: bytes = b"", content_type: bytes = b"application/json") -> bytes:
    """The bytes of a whole response; `extra` is header lines, each ended by CRLF."""
    kind = b"content-type: " + content_type + b"\r\n" if body else b""
    length = b"" if status.startswith(b"204") else b"content-length: %d\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + kind + extra + length + b"\r\n" + body


def error(status: bytes, reason: str, extra: bytes = b"") -> bytes:
    """A response that says why in its body and in ``x-rtb-error``, on one line."""
    line = " ".join(reason.split())[:500]
    header = line.encode("ascii", "backslashreplace")
    header = bytes(byte if 32 <= byte < 127 else 63 for byte in header)
    extra += _VERSION + b"x-rtb-error: " + header + b"\r\n"
    return response(status, line.encode("utf-8", "backslashreplace") + b"\n", extra, b"text/plain; charset=utf-8")


def broken(path: bytes, mistake: Exception) -> bytes:
    """The answer to a request that uncovered a mistake of ours, which the log tells about."""
    _log.error("request_failed", path=path.decode("latin-1"), exc_info=mistake)
    return error(b"500 Internal Server Error", "the exchange failed; its log says why")


def without_body(response: bytes) -> bytes:
    """What answers HEAD: everything but the body."""
    return response[: response.index(b"\r\n\r\n") + 4]
