"""What a tracking URL knows: the ticket of a win, and the signed token that carries it.

A token is base64url without padding, so that it stands unescaped in URLs, HTML, XML and JSON. Its bytes:

    version (1), key id (1), pricing (1), day (4), won_at and expires_at in ms (8 each), prices (16), names, MAC (16)

The names are UTF-8, separated by NUL, and NULs fill them up so that base64 has no bits to spare: every ticket has one
spelling. The MAC is HMAC-SHA256 over all that stands before it, cut to 16 bytes. `price_nanos` and `held_nanos` are
XORed with a pad: the keyed BLAKE2b of everything else, under a key of its own. A win is made once, so that its auction
id and impid, which are in there, make its pad a new one; nobody learns the difference of two prices.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from hashlib import blake2b, sha256
from struct import Struct as Layout

from msgspec import Struct

from rtb.domain.budget import LIFE
from rtb.domain.campaign import Pricing
from rtb.domain.remembered import Remembered
from rtb.errors import RtbError

MAX_IMPID = 128
"""Bytes of an impid that are written as they are."""
MAX_TOKEN = 4_096
MIN_SECRET = 16
"""Bytes."""

_VERSION = 1
_HEAD = Layout(">BBBIQQ")
_MAC = 16
_PRICES = 16
_NAMES = _HEAD.size + _PRICES
_COUNT = 7
_FILL = (b"", b"\0\0", b"\0")
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=\n", b"+/!!!!")
_PRICINGS = tuple(Pricing)
_CPM, _CPC = Pricing.CPM, Pricing.CPC


class Ticket(Struct, frozen=True, gc=False):
    """A win of a house campaign, as its tracking URLs carry it.

    `day` is the budget day that pays ("" without a budget), `instance` the daemon that holds the money. `price_nanos`
    is what the billing event costs: the clearing price of the impression (CPM), the bid per click (CPC) or conversion
    (CPA); `held_nanos` was set aside at the win. `won_at` and `expires_at`, until when an impression is in time, are
    Unix seconds. `user` is a keyed digest of the user's id ("" without one), `destination` one of the landing page.

    A token keeps times to the millisecond. A win of a remote bidder has no `campaign_id`: its notices carry a ticket.
    """

    auction_id: str
    impid: str
    campaign_id: str
    creative_id: str
    day: str
    instance: str
    pricing: Pricing
    price_nanos: int
    held_nanos: int
    won_at: float
    expires_at: float
    user: str = ""
    destination: str = ""


class Flaw(StrEnum):
    """Why a token is not believed."""

    MALFORMED = "malformed token"
    UNKNOWN_KEY = "unknown key"
    FORGED = "forged token"


class BadToken(RtbError):
    """A token that is none of ours, or was altered; `flaw` tells which."""

    def __init__(self, flaw: Flaw) -> None:
        """With the flaw as its message."""
        super().__init__(flaw.value)
        self.flaw = flaw


class Keys(Struct, frozen=True):
    """The secrets that tokens are signed with, by key id (1 to 255); new tokens use `current`.

    To rotate, add a key, make it current, and drop the old one once its last token has expired.
    """

    secrets: Mapping[int, bytes]
    current: int

    def __post_init__(self) -> None:
        """Raises ValueError for an id, a secret or a current key that cannot be."""
        for key_id, secret in self.secrets.items():
            if not 1 <= key_id <= 255:
                raise ValueError(f"key id {key_id} is not between 1 and 255")
            if len(secret) < MIN_SECRET:
                raise ValueError(f"the secret of key {key_id} is shorter than {MIN_SECRET} bytes")
        if self.current not in self.secrets:
            raise ValueError(f"there is no secret of the current key {self.current}")


class Signer:
    """Makes tokens and reads them, and makes the digests of users and landing pages that stand in tickets."""

    def __init__(self, keys: Keys, identity: bytes) -> None:
        """`identity` is the secret of the digests, at least 16 bytes; it must stay when `keys` rotate.

        Raises:
            ValueError: it is too short.
        """
        if len(identity) < MIN_SECRET:
            raise ValueError(f"the secret of the digests is shorter than {MIN_SECRET} bytes")
        self._keys = {key_id: _Key(secret) for key_id, secret in keys.secrets.items()}
        self._current = keys.current
        self._key = self._keys[keys.current]
        key = sha256(identity).digest()
        self._user = blake2b(key=key, digest_size=8, person=b"user").copy
        self._page = blake2b(key=key, digest_size=8, person=b"landing page").copy

    def token(self, ticket: Ticket) -> str:
        """The ticket, signed; a NUL in a name becomes U+FFFD, as in the ledger."""
        names = (
            f"{ticket.auction_id}\0{ticket.impid}\0{ticket.campaign_id}\0{ticket.creative_id}\0{ticket.instance}\0"
            f"{ticket.user}\0{ticket.destination}"
        )
        if names.count("\0") >= _COUNT:
            names = _without_nul(ticket)
        pricing = ticket.pricing
        head = _HEAD.pack(
            _VERSION,
            self._current,
            0 if pricing is _CPM else 1 if pricing is _CPC else 2,
            _day_numbers[ticket.day],
            round(ticket.won_at * 1_000),
            round(ticket.expires_at * 1_000),
        )
        tail = names.encode()
        tail += _FILL[(len(tail) + _NAMES + _MAC) % 3]
        prices = ticket.price_nanos << 64 | ticket.held_nanos
        key = self._key
        signed = head + (prices ^ key.pad(head + tail)).to_bytes(_PRICES, "big") + tail
        token = binascii.b2a_base64(signed + key.mac(signed), newline=False)
        return token.translate(_TO_URL).decode()

    def read(self, token: str) -> Ticket:
        """The ticket in a token, which was signed here and is unaltered.

        Raises:
            BadToken: it is not, or its key is not known (any more).
        """
        data = _bytes(token)
        key = self._keys.get(data[1])
        if key is None:
            raise BadToken(Flaw.UNKNOWN_KEY)
        signed = data[:-_MAC]
        if not hmac.compare_digest(key.mac(signed), data[-_MAC:]):
            raise BadToken(Flaw.FORGED)
        head, tail = signed[: _HEAD.size], signed[_NAMES:]
        _, _, pricing, day, won_ms, expires_ms = _HEAD.unpack(head)
        prices = int.from_bytes(signed[_HEAD.size : _NAMES], "big") ^ key.pad(head + tail)
        auction_id, impid, campaign_id, creative_id, instance, user, destination, *_ = tail.decode().split("\0")
        return Ticket(
            auction_id,
            impid,
            campaign_id,
            creative_id,
            _days[day],
            instance,
            _PRICINGS[pricing],
            prices >> 64,
            prices & 0xFFFF_FFFF_FFFF_FFFF,
            won_ms / 1_000,
            expires_ms / 1_000,
            user,
            destination,
        )

    def user_digest(self, user_id: str) -> str:
        """What stands for a user's id in a ticket: the same in every daemon; "" for nobody."""
        if not user_id:
            return ""
        digest = self._user()
        digest.update(user_id.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def destination(self, landing_page: str) -> str:
        """What stands for a landing page in a ticket; "" for none."""
        if not landing_page:
            return ""
        digest = self._page()
        digest.update(landing_page.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


class _Key:
    """One secret, with its two uses: hashes that have taken their keys in, so that a token only copies them."""

    __slots__ = ("_inner", "_outer", "_pad")

    def __init__(self, secret: bytes) -> None:
        block = hmac.digest(secret, b"rtb token mac", "sha256").ljust(64, b"\0")
        self._inner, self._outer = sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))
        self._pad = blake2b(key=hmac.digest(secret, b"rtb token pad", "sha256"), digest_size=_PRICES)

    def mac(self, data: bytes) -> bytes:
        """HMAC-SHA256 [RFC 2104], cut."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()[:_MAC]

    def pad(self, data: bytes) -> int:
        """What the prices of a token with this rest are XORed with."""
        pad = self._pad.copy()
        pad.update(data)
        return int.from_bytes(pad.digest(), "big")


def impid_in_ledger(impid: str) -> str:
    """An impid as wins, tickets and the ledger name it: no database takes a NUL, and no URL what is endless."""
    if "\0" in impid:
        impid = impid.replace("\0", "\ufffd")
    if len(impid) * 4 > MAX_IMPID and len(impid.encode()) > MAX_IMPID:
        return blake2b(impid.encode(), digest_size=16).hexdigest()
    return impid


def event_id(ticket: Ticket, kind: str, order_id: str = "") -> str:
    """The message id of what happened to a win: the same however often and by whatever way it is told.

    Of one kind there is one event a win, or one for each order.
    """
    name = f"{ticket.auction_id}:{ticket.impid}:{kind}"
    return f"{name}:{blake2b(order_id.encode(), digest_size=8).hexdigest()}" if order_id else name


def untold_id(campaign_id: str, user_id: str, order_id: str) -> str:
    """The message id of a conversion that is told without a ticket."""
    names = "\0".join((campaign_id, user_id, order_id)).encode()
    return f"{blake2b(names, digest_size=16).hexdigest()}:conversion"


def _bytes(token: str) -> bytes:
    if len(token) > MAX_TOKEN or len(token) % 4:
        raise BadToken(Flaw.MALFORMED)
    try:
        data = binascii.a2b_base64(token.encode("ascii").translate(_FROM_URL), strict_mode=True)
    except ValueError:
        raise BadToken(Flaw.MALFORMED) from None
    if len(data) < _NAMES + _MAC or data[0] != _VERSION:
        raise BadToken(Flaw.MALFORMED)
    return data


def _without_nul(ticket: Ticket) -> str:
    names = (
        ticket.auction_id,
        ticket.impid,
        ticket.campaign_id,
        ticket.creative_id,
        ticket.instance,
        ticket.user,
        ticket.destination,
    )
    return "\0".join(name.replace("\0", "\ufffd") for name in names)


def _day_number(day: str) -> int:
    """0 for no day, 1 for a lifetime budget's, else the proleptic Gregorian ordinal; raises ValueError."""
    return (0 if not day else 1) if day in ("", LIFE) else date.fromisoformat(day).toordinal()


def _day(number: int) -> str:
    return ("", LIFE)[number] if number < 2 else date.fromordinal(number).isoformat()


_day_numbers: Remembered[str, int] = Remembered(_day_number, 64)
_days: Remembered[int, str] = Remembered(_day, 64)
