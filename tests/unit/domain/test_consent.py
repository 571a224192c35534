"""Strings of consent, against the examples of their specifications and strings packed by hand."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.consent import gpp_sections, tc_string, us_opted_out, usp_opted_out


def packed(bits: str) -> str:
    """Bits as base64url without padding, filled up with zeros to whole characters."""
    bits += "0" * (-len(bits) % 24)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def core(vendors: str, *, purposes: str = "1" * 24, special_features: str = "1" * 12, version: int = 2) -> str:
    """A core string; the fields that nobody reads are zero. `vendors` begins with MaxVendorId."""
    return packed(f"{version:06b}" + "0" * 134 + special_features + purposes + "0" * 37 + vendors)


def bitfield(ids: set[int], most: int) -> str:
    """Vendors as a bit each."""
    return f"{most:016b}0" + "".join("1" if n in ids else "0" for n in range(1, most + 1))


def ranges(*entries: tuple[int, int]) -> str:
    """Vendors as ranges, single ids among them."""
    most = max(last for _, last in entries)
    found = "".join(f"0{a:016b}" if a == b else f"1{a:016b}{b:016b}" for a, b in entries)
    return f"{most:016b}1{len(entries):012b}" + found


def test_the_example_of_the_specification() -> None:
    """Purposes 1 to 3, vendors 2, 6 and 8; what follows the first dot is other segments."""
    found = tc_string(
        "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA.IFoEUQQgAIQwgIwQABAEAAAAOIAACAIAAAAQAIAgEAACEAAAAAgAQBAAAAAAAGBA"
        "AgAAAAAAAFAAECAAAgAAQARAEQAAAAAJAAIAAgAAAYQEAAAQmAgBC3ZAYzUw"
    )
    assert found is not None
    assert [n for n in range(1, 25) if found.has_purpose(n)] == [1, 2, 3]
    assert [n for n in range(1, 100) if found.has_vendor(n)] == [2, 6, 8]


@given(ids=st.sets(st.integers(1, 300), min_size=1), as_ranges=st.booleans())
def test_vendors_are_bits_or_ranges(ids: set[int], as_ranges: bool) -> None:
    """Both say the same."""
    vendors = ranges(*((n, n) for n in sorted(ids))) if as_ranges else bitfield(ids, max(ids))
    found = tc_string(core(vendors))
    assert found is not None
    assert {n for n in range(1, 400) if found.has_vendor(n)} == ids


def test_a_range_has_its_ends() -> None:
    """3 to 5, 9, 20 to 21."""
    found = tc_string(core(ranges((3, 5), (9, 9), (20, 21))))
    assert found is not None
    assert [n for n in range(1, 40) if found.has_vendor(n)] == [3, 4, 5, 9, 20, 21]


def test_purposes_and_special_features_count_from_the_left() -> None:
    """Purpose 2 alone, special feature 2 alone."""
    found = tc_string(core(bitfield({1}, 1), purposes="01" + "0" * 22, special_features="01" + "0" * 10))
    assert found is not None
    assert (found.has_purpose(1), found.has_purpose(2), found.has_purpose(24)) == (False, True, False)
    assert (found.has_special_feature(1), found.has_special_feature(2)) == (False, True)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        "BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA",
        core(bitfield({1}, 1), version=3),
        "C" * 20_000,
        "COvFyG",
        "é" * 60,
        core(ranges((1, 400)))[:45],
    ],
)
def test_what_cannot_be_read_is_none(text: str | None) -> None:
    """No string, version 1, a later one, one that ends early, one of no end, one that is not base64."""
    assert tc_string(text) is None


@given(st.text(max_size=200) | st.text(alphabet="CBD~.-_019AZ", max_size=100))
def test_any_text_is_read_or_not(text: str) -> None:
    """It never raises."""
    tc_string(text)
    gpp_sections(text)
    for section in range(30):
        us_opted_out(section, text)


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("DBABM~a", {2: "a"}),
        ("DBACNY~a~1YNN", {2: "a", 6: "1YNN"}),
        ("DBABjw~a~b", {5: "a", 6: "b"}),
        ("DBABM", None),
        ("DBABM~a~b", None),
        ("CBABM~a", None),
        ("", None),
        (None, None),
    ],
)
def test_the_header_of_a_gpp_string_names_its_sections(text: str | None, sections: dict[int, str] | None) -> None:
    """The examples of the specification: one section, two, a range of two; then broken ones."""
    assert gpp_sections(text) == sections


def us(fields: str) -> str:
    """A US section: version 1, then fields of two bits each, written as digits."""
    return packed("000001" + "".join(f"{int(digit):02b}" for digit in fields))


@pytest.mark.parametrize(
    ("section", "text", "opted_out"),
    [
        (7, us("111111222"), False),
        (7, us("111111122"), True),  # SaleOptOut is the seventh of the national section
        (7, us("111111212"), True),  # SharingOptOut
        (7, us("111111221"), True),  # TargetedAdvertisingOptOut
        (8, us("11122"), False),
        (8, us("11112"), True),
        (9, us("11121"), True),
        (11, us("111122"), False),  # Utah has four notices before
        (11, us("111112"), True),
        (18, us("111121"), True),  # as has Iowa
        (23, us("11100"), False),  # 0 is not applicable
        (8, us("11122") + "." + packed("011"), True),  # a subsection of type 1: GPC is on
        (8, us("11122") + "." + packed("010"), False),
        (24, us("11122"), True),  # laid out otherwise: nobody can tell
        (8, "", True),
        (8, "!", True),
        (6, "1YYN", True),
        (6, "1YNN", False),
    ],
)
def test_a_us_section_opts_out(section: int, text: str, opted_out: bool) -> None:
    """Of sale, sharing or targeted advertising; where it cannot be read it may have."""
    assert us_opted_out(section, text) is opted_out


@pytest.mark.parametrize(
    ("text", "opted_out"),
    [("1YYN", True), ("1NyN", True), ("1YNY", False), ("1---", False), ("YYYY", False), (None, False)],
)
def test_the_third_character_of_a_us_privacy_string_is_the_opt_out(text: str | None, opted_out: bool) -> None:
    """1--- says that the law does not apply."""
    assert usp_opted_out(text) is opted_out
