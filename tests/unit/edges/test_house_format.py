"""The house format as OpenRTB."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb import openrtb
from rtb.domain import facts
from rtb.domain.money import Rates
from rtb.edges.house_format import to_openrtb
from rtb.messages import HOUSE_REQUEST, HouseRequest, Location
from rtb.openrtb import Banner, BidRequest, Device, DeviceType, Geo, Imp, User


def house(**fields: object) -> HouseRequest:
    plain = {
        "request_id": "r",
        "user_id": "u",
        "device_type": "mobile",
        "location": Location(lat=37.5, lng=127.0),
        "interests": ["sports", "Travel"],
        "floor_price": 0.5,
    }
    return HouseRequest(**{**plain, **fields})  # type: ignore[arg-type]


def test_every_field_has_its_place() -> None:
    """As the house format's own words say, in OpenRTB's."""
    request = to_openrtb(
        house(timeout_ms=80, ad_slot_id="slot-7", user_context={"age": [30, None]}),
    )
    assert request == BidRequest(
        id="r",
        imp=[Imp(id="1", banner=Banner(), bidfloor=0.5, bidfloorcur="USD", tagid="slot-7")],
        device=Device(geo=Geo(lat=37.5, lon=127.0), devicetype=DeviceType.PHONE),
        user=User(id="u", kwarray=["sports", "Travel"], ext=msgspec.Raw(b'{"age":[30,null]}')),
        tmax=80,
    )


def test_what_is_left_out_is_absent() -> None:
    """No user, place, slot or context; the default time-out is 120 ms, and 0 sets no limit of its own."""
    bare = to_openrtb(house(user_id="", location=None, interests=[], floor_price=0.0))
    assert (bare.user, bare.tmax) == (User(kwarray=[]), 120)
    assert bare.device == Device(devicetype=DeviceType.PHONE)
    assert to_openrtb(house(timeout_ms=0)).tmax is None


def test_the_floor_is_in_the_exchange_s_currency() -> None:
    """The house format names none: 500 won are 500 won in an exchange that counts in won."""
    request = to_openrtb(house(floor_price=500.0), "KRW")
    assert request.imp is not None
    assert facts.placement(request.imp[0], Rates("KRW")).floor_micros == 500_000_000


@pytest.mark.parametrize(
    ("name", "devicetype"),
    [
        ("mobile", 4),
        ("Phone", 4),
        ("TABLET", 5),
        ("desktop", 2),
        ("ctv", 3),
        ("settop", 7),
        ("console", 6),
        ("ooh", 8),
        ("fridge", None),
        ("", None),
    ],
)
def test_device_types(name: str, devicetype: int | None) -> None:
    """AdCOM's numbers, whatever the case; an unknown one is left out rather than guessed."""
    device = to_openrtb(house(device_type=name)).device
    assert device is not None
    assert device.devicetype == devicetype


NAMES = st.text(max_size=20)


@given(
    user_id=NAMES,
    device_type=NAMES,
    interests=st.lists(NAMES, max_size=5),
    location=st.none() | st.builds(Location, lat=st.floats(-90, 90), lng=st.floats(-180, 180)),
    floor_price=st.floats(0, 1e6),
    timeout_ms=st.integers(0, 10**6),
    context=st.none() | st.dictionaries(NAMES, st.none() | st.booleans() | st.integers(-9, 9) | NAMES, max_size=3),
)
def test_every_house_request_becomes_a_valid_bid_request(
    user_id: str,
    device_type: str,
    interests: list[str],
    location: Location | None,
    floor_price: float,
    timeout_ms: int,
    context: dict[str, object] | None,
) -> None:
    """Whatever the house format allows passes the checks of OpenRTB, and survives the wire."""
    wire = msgspec.json.encode(
        house(
            user_id=user_id,
            device_type=device_type,
            interests=interests,
            location=location,
            floor_price=floor_price,
            timeout_ms=timeout_ms,
            user_context=context,
        )
    )
    request = to_openrtb(HOUSE_REQUEST.decode(wire))
    again = openrtb.decode_request(openrtb.encode(request))
    assert again.imp is not None
    assert (again.id, again.imp[0].bidfloor or 0.0) == ("r", floor_price)
    assert again.user is not None
    assert (again.user.id or "", again.user.kwarray or []) == (user_id, interests)
