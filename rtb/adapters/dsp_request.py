"""What is sent to bidders: the request's own bytes with a few members changed, so that unknown fields survive.

Bidders that are to get the same bytes share them: they are put together once an auction.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from rtb import openrtb
from rtb.ports import OpenAuction

MOVED: dict[str, tuple[str, ...]] = {
    "source": ("schain",),
    "regs": ("gdpr", "us_privacy", "gpp", "gpp_sid"),
    "user": ("consent", "eids"),
}
"""Members that 2.6 has in the object and 2.5, by its extensions, in the object's ``ext``."""

_members = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode
_GZIP_LEVEL = 1

_Key = tuple[str, tuple[int, ...] | None, tuple[str, ...]]


class Bodies:
    """The outgoing bodies of one auction at a time: whoever asks first for a variant has it put together."""

    def __init__(self) -> None:
        """Of no auction yet."""
        self._auction_id = ""
        self._stems: dict[_Key, bytes] = {}
        self._bodies: dict[tuple[_Key, int, bool], bytes] = {}

    def body(
        self,
        auction: OpenAuction,
        *,
        version: str,
        tmax: int,
        imps: tuple[int, ...] | None = None,
        currencies: tuple[str, ...] = (),
        compressed: bool = False,
    ) -> bytes:
        """The bytes to post.

        Args:
            auction: what is sold.
            version: "2.5" or "2.6": where moved members stand.
            tmax: milliseconds to be sent as ``tmax``.
            imps: the places of those to offer; None for all.
            currencies: to be sent as ``cur``; () for what the request says.
            compressed: by gzip.
        """
        if auction.id != self._auction_id:
            self._auction_id = auction.id
            self._stems.clear()
            self._bodies.clear()
        key: _Key = (version, imps, currencies)
        body = self._bodies.get((key, tmax, compressed))
        if body is None:
            stem = self._stems.get(key)
            if stem is None:
                stem = self._stems[key] = _stem(auction, version, imps, currencies)
            body = b'%b,"tmax":%d}' % (stem, tmax)
            if compressed:
                body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            self._bodies[key, tmax, compressed] = body
        return body


def _stem(auction: OpenAuction, version: str, imps: tuple[int, ...] | None, currencies: tuple[str, ...]) -> bytes:
    """The request but for ``tmax`` and its last brace."""
    members = _members.decode(request_bytes(auction))
    members.pop("tmax", None)
    members["at"] = Raw(b"%d" % auction.terms[0].at) if auction.terms else Raw(b"2")
    if auction.rehearsal:
        members["test"] = Raw(b"1")
    if imps is not None:
        members["imp"] = Raw(_encode(_chosen(_list.decode(members["imp"]), imps)))
    if currencies:
        members["cur"] = Raw(_encode(currencies))
    for name, moved in MOVED.items():
        if name in members:
            members[name] = (_lowered if version == "2.5" else _raised)(members[name], moved)
    return _encode(members)[:-1]


def request_bytes(auction: OpenAuction) -> bytes:
    """The request as it came in; where it did not come as bytes, or they were not kept, as it was understood."""
    return auction.body or openrtb.encode(auction.request)


def _chosen(imps: Sequence[Raw], places: Sequence[int]) -> list[Raw]:
    return [imps[i] for i in places]


def _lowered(raw: Raw, moved: Sequence[str]) -> Raw:
    """The object as 2.5 has it: these members in its ``ext``."""
    members = _object(raw)
    here = [name for name in moved if name in members]
    if not here:
        return raw
    ext = _object(members.get("ext", Raw()))
    for name in here:
        ext.setdefault(name, members.pop(name))
    members["ext"] = Raw(_encode(ext))
    return Raw(_encode(members))


def _raised(raw: Raw, moved: Sequence[str]) -> Raw:
    """The object as 2.6 has it: these members beside its ``ext``."""
    if b'"ext"' not in bytes(raw):
        return raw
    members = _object(raw)
    ext = _object(members.get("ext", Raw()))
    there = [name for name in moved if name in ext]
    if not there:
        return raw
    for name in there:
        members.setdefault(name, ext.pop(name))
    members["ext"] = Raw(_encode(ext))
    return Raw(_encode(members))


def _object(raw: Raw) -> dict[str, Raw]:
    """The members of an object; none of what is no object."""
    try:
        return _members.decode(raw) if raw else {}
    except msgspec.DecodeError:
        return {}
