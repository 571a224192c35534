"""Tokens: what was signed comes back, and nothing else is believed."""

from __future__ import annotations

import binascii
import hmac
import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rtb.domain.campaign import Pricing
from rtb.domain.tracking import (
    MAX_IMPID,
    MAX_TOKEN,
    BadToken,
    Flaw,
    Keys,
    Signer,
    Ticket,
    event_id,
    impid_in_ledger,
    untold_id,
)
from rtb.services.tracker import Refused

SECRET, IDENTITY = b"s" * 16, b"i" * 16
SIGNER = Signer(Keys({1: SECRET}, 1), IDENTITY)
TICKET = Ticket(
    auction_id="9f3c2a7b1d4e1a2b",
    impid="1",
    campaign_id="shoes",
    creative_id="shoes-300x250",
    day="2026-11-22",
    instance="12345-9f3c2a7b",
    pricing=Pricing.CPM,
    price_nanos=2_010_000,
    held_nanos=2_010_000,
    won_at=1_795_324_680.123,
    expires_at=1_795_324_740.123,
    user="5e6d0f1ba36f68ad",
    destination="0aa8dc6a4d2787eb",
)

NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
AMOUNT = st.integers(0, 9 * 10**15)
TIME = st.integers(0, 10**14).map(lambda ms: ms / 1_000)
TICKETS = st.builds(
    Ticket,
    auction_id=NAME,
    impid=NAME,
    campaign_id=NAME,
    creative_id=NAME,
    day=st.dates().map(str) | st.sampled_from(["", "life"]),
    instance=NAME,
    pricing=st.sampled_from(Pricing),
    price_nanos=AMOUNT,
    held_nanos=AMOUNT,
    won_at=TIME,
    expires_at=TIME,
    user=NAME,
    destination=NAME,
).filter(lambda ticket: ticket.day != "0001-01-01")


def flaw(token: str, signer: Signer = SIGNER) -> Flaw:
    """Why the token is not believed."""
    with pytest.raises(BadToken) as caught:
        signer.read(token)
    assert str(caught.value) == caught.value.flaw.value
    return caught.value.flaw


def raw(token: str) -> bytes:
    """The bytes of a token."""
    return binascii.a2b_base64(token.replace("-", "+").replace("_", "/"))


def spelled(data: bytes) -> str:
    """Bytes as a token is spelled."""
    return binascii.b2a_base64(data, newline=False).decode().replace("+", "-").replace("/", "_")


@given(TICKETS)
def test_a_ticket_comes_back(ticket: Ticket) -> None:
    """Whatever it says, to the millisecond; and the token is nothing but base64url, without padding."""
    token = SIGNER.token(ticket)
    assert SIGNER.read(token) == ticket
    assert re.fullmatch("[A-Za-z0-9_-]+", token)
    assert token == SIGNER.token(ticket)


def test_the_longest_ticket() -> None:
    """Ids of the most characters, four bytes each, still make a token within the limit."""
    longest = "\U0001f600" * 200
    impid = impid_in_ledger("\U0001f600" * (MAX_IMPID // 4))
    ticket = replace(TICKET, campaign_id=longest, creative_id=longest, impid=impid)
    token = SIGNER.token(ticket)
    assert len(token) <= MAX_TOKEN
    assert SIGNER.read(token) == ticket


def test_a_nul_in_a_name() -> None:
    """It separates names, so that it is written as U+FFFD, wherever it stands."""
    ticket = SIGNER.read(SIGNER.token(replace(TICKET, impid="a\0b", destination="\0")))
    assert (ticket.impid, ticket.destination, ticket.campaign_id) == ("a\ufffdb", "\ufffd", "shoes")


def test_every_altered_byte_is_noticed() -> None:
    """All 255 other values of every byte: the version is none, the key is unknown, or the MAC does not fit."""
    data = raw(SIGNER.token(TICKET))
    for at in range(len(data)):
        expected = {0: Flaw.MALFORMED, 1: Flaw.UNKNOWN_KEY}.get(at, Flaw.FORGED)
        for change in range(1, 256) if at in (0, 1, 2, 40, len(data) - 1) else (1, 128):
            altered = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
            assert flaw(spelled(altered)) is expected


def test_every_altered_character_is_noticed() -> None:
    """There is one spelling only: no bit of the last character is spare, and + and / are not - and _."""
    token = SIGNER.token(TICKET)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for at in range(len(token)):
        for other in alphabet if at >= len(token) - 4 else "Aa0_":
            if other != token[at]:
                flaw(token[:at] + other + token[at + 1 :])
        for other in "+/=\n .%\u00e9\0":
            assert flaw(token[:at] + other + token[at + 1 :]) is Flaw.MALFORMED


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 16, 40, 100])
def test_a_cut_or_lengthened_token(cut: int) -> None:
    """Ends that are lost or added are noticed."""
    token = SIGNER.token(TICKET)
    for altered in (token[:-cut], token[cut:], token + "A" * cut, "A" * cut + token, token + "=" * cut):
        assert flaw(altered) in (Flaw.MALFORMED, Flaw.FORGED, Flaw.UNKNOWN_KEY)


@given(st.text(max_size=300) | st.text("ABCabc012-_", max_size=300) | st.binary(max_size=300).map(spelled))
def test_noise_is_no_token(text: str) -> None:
    """Nothing but BadToken comes of anything."""
    flaw(text)


def test_what_is_too_long() -> None:
    """It is not even decoded."""
    assert flaw("A" * (MAX_TOKEN + 4)) is Flaw.MALFORMED


def test_parts_of_two_tokens_do_not_fit() -> None:
    """The price of a cheap win cannot be put into the ticket of a dear one: the MAC covers both."""
    cheap, dear = (raw(SIGNER.token(replace(TICKET, price_nanos=nanos))) for nanos in (1, 10**9))
    assert len(cheap) == len(dear)
    for first in range(1, len(dear), 3):
        mixed = dear[:first] + cheap[first:]
        if mixed not in (cheap, dear):
            assert flaw(spelled(mixed)) is Flaw.FORGED


def test_keys_rotate() -> None:
    """A new key signs, the old one is still believed until it is dropped; a key of the same id is not enough."""
    old = SIGNER.token(TICKET)
    both = Signer(Keys({1: SECRET, 2: b"t" * 16}, 2), IDENTITY)
    new = both.token(TICKET)
    assert both.read(old) == both.read(new) == TICKET
    assert flaw(new) is Flaw.UNKNOWN_KEY
    assert flaw(old, Signer(Keys({2: b"t" * 16}, 2), IDENTITY)) is Flaw.UNKNOWN_KEY
    assert flaw(old, Signer(Keys({1: b"u" * 16}, 1), IDENTITY)) is Flaw.FORGED


@pytest.mark.parametrize(
    ("secrets", "current", "wrong"),
    [
        ({1: b"short"}, 1, "the secret of key 1 is shorter than 16 bytes"),
        ({0: SECRET}, 0, "key id 0 is not between 1 and 255"),
        ({256: SECRET}, 256, "key id 256 is not between 1 and 255"),
        ({1: SECRET}, 2, "there is no secret of the current key 2"),
        ({}, 1, "there is no secret of the current key 1"),
    ],
)
def test_keys_that_cannot_be(secrets: dict[int, bytes], current: int, wrong: str) -> None:
    """A ValueError says what is wrong with them."""
    with pytest.raises(ValueError, match=wrong):
        Keys(secrets, current)
    with pytest.raises(ValueError, match="digests is shorter than 16 bytes"):
        Signer(Keys({1: SECRET}, 1), b"short")


def test_the_mac_is_hmac_sha256() -> None:
    """By the standard library's own HMAC over all that precedes it, cut to 16 bytes, under a derived key."""
    data = raw(SIGNER.token(TICKET))
    key = hmac.digest(SECRET, b"rtb token mac", "sha256")
    assert data[-16:] == hmac.new(key, data[:-16], sha256).digest()[:16]


def test_prices_cannot_be_read_or_compared() -> None:
    """Equal prices of two wins look different, and the pads of two wins differ, so that no difference shows."""
    one, two = (raw(SIGNER.token(replace(TICKET, impid=impid)))[23:39] for impid in "12")
    dearer = raw(SIGNER.token(replace(TICKET, impid="2", price_nanos=2_010_001)))[23:39]
    assert len({one, two, dearer}) == 3
    clear = (2_010_000).to_bytes(8, "big")
    assert clear not in one
    assert one[:8] != one[8:]
    assert bytes(a ^ b for a, b in zip(one, two, strict=True)) != bytes(16)


def test_digests_of_users_and_pages() -> None:
    """16 hex digits under the one secret, whatever keys sign; different for a user and a page of the same name."""
    rotated = Signer(Keys({9: b"z" * 16}, 9), IDENTITY)
    foreign = Signer(Keys({1: SECRET}, 1), b"j" * 16)
    for text in ("u", "https://shop.test/", "\u00e9\ud800"):
        user, page = SIGNER.user_digest(text), SIGNER.destination(text)
        assert re.fullmatch("[0-9a-f]{16}", user)
        assert re.fullmatch("[0-9a-f]{16}", page)
        assert user != page
        assert (rotated.user_digest(text), rotated.destination(text)) == (user, page)
        assert foreign.user_digest(text) != user
        assert foreign.destination(text) != page
    assert SIGNER.user_digest("") == SIGNER.destination("") == ""


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_impids_in_the_ledger(impid: str) -> None:
    """No NUL, at most 128 bytes, and as they are where they can be."""
    name = impid_in_ledger(impid)
    assert "\0" not in name
    assert len(name.encode()) <= MAX_IMPID
    if "\0" not in impid and len(impid.encode()) <= MAX_IMPID:
        assert name == impid


@given(TICKETS, st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_message_ids_fit_into_amqp(ticket: Ticket, order_id: str) -> None:
    """255 bytes are the most of a short string, for every kind and order."""
    ticket = replace(ticket, auction_id=ticket.auction_id[:10], impid=impid_in_ledger(ticket.impid * 9))
    assert len(event_id(ticket, "conversion", order_id).encode()) <= 255
    assert len(untold_id("c" * 200, "u" * 512, order_id).encode()) <= 255


def test_message_ids_tell_apart() -> None:
    """Imp, kind and order make another event; user and campaign of an untold conversion too."""
    other = replace(TICKET, impid="2")
    ids = [event_id(TICKET, "click"), event_id(other, "click"), event_id(TICKET, "conversion")]
    ids += [event_id(TICKET, "conversion", order) for order in "78"]
    ids += [untold_id(*names) for names in (("c", "u", "7"), ("c", "v", "7"), ("d", "u", "7"), ("c", "u", "8"))]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "9f3c2a7b1d4e1a2b:1:click"


def test_every_flaw_is_a_refusal() -> None:
    """The tracker names them alike."""
    assert {flaw.value for flaw in Flaw} <= {reason.value for reason in Refused}
