"""What people said about their data, as it is encoded: TC strings (TCF v2), GPP strings, US privacy strings.

Only what the privacy gate asks for is read. A string that cannot be read is None: what that means is the gate's choice.

Sources: IAB Tech Lab, Consent string and vendor list formats v2 (core string); Global Privacy Platform, Consent String
Specification and the sections of the US; CCPA US Privacy String 1.0.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

MAX_STRING = 16_384
"""Characters; what is longer is not read."""

TCF_EU, USP = 2, 6
"""Sections of a GPP string: the TC string of the EU, and the US privacy string."""

_SPECIAL_FEATURES, _PURPOSES, _MAX_VENDOR, _IS_RANGE, _VENDORS = 140, 152, 213, 229, 230
"""Where they begin in a core string, in bits."""

_US_LAYOUT = {section: (3, 4) for section in range(8, 24)} | {7: (6, 7, 8), 11: (4, 5), 18: (4, 5)}  # noqa: C420
"""Of the US sections: which of the two-bit fields after the version say that sale, sharing or targeted advertising is
opted out of. Later sections are laid out otherwise."""
_VERSION_BITS = 6
_OPTED_OUT = 1


class Bits:
    """A string of bits, read from anywhere."""

    def __init__(self, text: str) -> None:
        """Decode base64url without padding. Raises ValueError: it is not."""
        if len(text) > MAX_STRING:
            raise ValueError("too long")
        missing = -len(text) % 4
        try:
            data = base64.b64decode(text.encode("ascii") + b"A" * missing, altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError(str(error)) from None
        self.length = len(text) * 6
        self._value = int.from_bytes(data, "big") >> (len(data) * 8 - self.length)

    def read(self, at: int, count: int) -> int:
        """The number in `count` bits. Raises ValueError: the string ends before."""
        end = at + count
        if end > self.length:
            raise ValueError("it ends early")
        return self._value >> (self.length - end) & ((1 << count) - 1)


class TcString(Struct, frozen=True):
    """The core of a TC string: the bits of purposes and special features, 1 first, and the vendors with consent.

    Vendors are bits, 1 first, of which there are `most_vendor`, or else ranges of ids, ends included.
    """

    purposes: int
    special_features: int
    most_vendor: int
    vendors: int = 0
    vendor_ranges: Sequence[tuple[int, int]] | None = None

    def has_purpose(self, number: int) -> bool:
        """Whether there is consent to a purpose, 1 to 24."""
        return bool(self.purposes >> (24 - number) & 1)

    def has_special_feature(self, number: int) -> bool:
        """Whether a special feature was opted in to, 1 to 12: 1 is precise geolocation."""
        return bool(self.special_features >> (12 - number) & 1)

    def has_vendor(self, gvlid: int) -> bool:
        """Whether there is consent for a vendor of the Global Vendor List."""
        if self.vendor_ranges is not None:
            return any(first <= gvlid <= last for first, last in self.vendor_ranges)
        return gvlid <= self.most_vendor and bool(self.vendors >> (self.most_vendor - gvlid) & 1)


@lru_cache(1_024)
def tc_string(text: str | None) -> TcString | None:
    """Read a TC string; None when there is none, or it is not of version 2."""
    if not text:
        return None
    try:
        bits = Bits(text.partition(".")[0])
        if bits.read(0, 6) != 2:
            return None
        purposes, special_features = bits.read(_PURPOSES, 24), bits.read(_SPECIAL_FEATURES, 12)
        most = bits.read(_MAX_VENDOR, 16)
        if bits.read(_IS_RANGE, 1):
            return TcString(purposes, special_features, most, vendor_ranges=_ranges(bits))
        return TcString(purposes, special_features, most, bits.read(_VENDORS, most))
    except ValueError:
        return None


def _ranges(bits: Bits) -> Sequence[tuple[int, int]]:
    found = []
    at = _VENDORS + 12
    for _ in range(bits.read(_VENDORS, 12)):
        many = bits.read(at, 1)
        first = bits.read(at + 1, 16)
        found.append((first, bits.read(at + 17, 16) if many else first))
        at += 33 if many else 17
    return found


def gpp_sections(text: str | None) -> dict[int, str] | None:
    """The sections of a GPP string by their ids; None when there is no string, or it cannot be read."""
    if not text or len(text) > MAX_STRING:
        return None
    header, *sections = text.split("~")
    try:
        ids = _gpp_ids(Bits(header))
    except ValueError:
        return None
    return dict(zip(ids, sections, strict=True)) if len(ids) == len(sections) else None


def _gpp_ids(bits: Bits) -> list[int]:
    """The header: type 3, a version, and a range of ids as Fibonacci-coded offsets, each from the last id before."""
    if bits.read(0, 6) != 3:
        raise ValueError("not a GPP header")
    found: list[int] = []
    at, last = 24, 0
    for _ in range(bits.read(12, 12)):
        many = bits.read(at, 1)
        offset, at = _fibonacci(bits, at + 1)
        first = last = last + offset
        if many:
            offset, at = _fibonacci(bits, at)
            last += offset
        if last > 10_000:
            raise ValueError("no such section")
        found.extend(range(first, last + 1))
    return found


def _fibonacci(bits: Bits, at: int) -> tuple[int, int]:
    """A number in Fibonacci coding, which ends with two ones, and where it ends."""
    value, worth, following, before = 0, 1, 2, 0
    while True:
        bit = bits.read(at, 1)
        at += 1
        if bit and before:
            return value, at
        value += worth * bit
        worth, following, before = following, worth + following, bit


def us_opted_out(section: int, text: str) -> bool:
    """Whether a US section of a GPP string opts out of sale, sharing or targeted advertising; True if it is unreadable.

    A section that nobody here can read may say so, too.
    """
    if section == USP:
        return usp_opted_out(text)
    fields = _US_LAYOUT.get(section)
    if fields is None:
        return True
    core, *others = text.split(".")
    try:
        bits = Bits(core)
        opted_out = any(bits.read(_VERSION_BITS + 2 * field, 2) == _OPTED_OUT for field in fields)
        return opted_out or any(_says_gpc(Bits(other)) for other in others)
    except ValueError:
        return True


def _says_gpc(bits: Bits) -> bool:
    """Whether a subsection is that of the Global Privacy Control (type 1), and it is on."""
    return bits.read(0, 2) == 1 and bits.read(2, 1) == 1


def usp_opted_out(text: str | None) -> bool:
    """Whether a US privacy string, as 1YYN, opts out of sale: its third character."""
    return text is not None and len(text) == 4 and text[0] == "1" and text[2] in "Yy"
