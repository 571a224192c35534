"""Undo a body's content encoding, within a limit of what comes out."""

from __future__ import annotations

import zlib

GZIP = b"\x1f\x8b"
"""How gzip begins. Browsers compress without saying so in a header, for that would cost them another request."""


class NotInflated(Exception):
    """The encoding cannot be undone; one line that says why."""


def inflate(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body without its content encoding, gzip or deflate [OpenRTB 2.6 2.4].

    Raises:
        NotInflated: another encoding, not what it says, cut short, or over `limit` bytes.
    """
    if encoding not in (b"gzip", b"deflate"):
        raise NotInflated(f"content-encoding: {encoding.decode('latin-1')!r} is not supported; use gzip or none")
    inflater = zlib.decompressobj(wbits=47 if encoding == b"gzip" else zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise NotInflated("content-encoding: the body is not what the header says") from None
    if len(inflated) > limit:
        raise NotInflated(f"the body is over {limit} bytes once decompressed")
    if not inflater.eof:
        raise NotInflated("content-encoding: the compressed body ends early")
    return inflated
