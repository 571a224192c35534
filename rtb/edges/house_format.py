"""The house format of a bid request, translated to OpenRTB at the edge: one auction, not two."""

from __future__ import annotations

import msgspec

from rtb.messages import HouseRequest
from rtb.openrtb import Banner, BidRequest, Device, DeviceType, Geo, Imp, User

IMP_ID = "1"

DEVICE_TYPES = {
    "mobile": DeviceType.PHONE,
    "phone": DeviceType.PHONE,
    "smartphone": DeviceType.PHONE,
    "tablet": DeviceType.TABLET,
    "desktop": DeviceType.PC,
    "pc": DeviceType.PC,
    "laptop": DeviceType.PC,
    "tv": DeviceType.TV,
    "ctv": DeviceType.TV,
    "settop": DeviceType.SET_TOP_BOX,
    "console": DeviceType.CONNECTED_DEVICE,
    "ooh": DeviceType.OOH,
}


def to_openrtb(house: HouseRequest, currency: str = "USD") -> BidRequest:
    """The same request in OpenRTB: one imp with a banner of any size; an unknown device type is left out.

    interests become user.kwarray, ad_slot_id imp.tagid, user_context user.ext. The house format names no currency:
    its floor is in `currency`, the exchange's own, as are the prices of the answer.
    """
    geo = Geo(lat=house.location.lat, lon=house.location.lng) if house.location is not None else None
    device_type = DEVICE_TYPES.get(house.device_type.lower())
    user = User(id=house.user_id or None, kwarray=house.interests)
    if house.user_context is not None:
        user.ext = msgspec.Raw(msgspec.json.encode(house.user_context))
    return BidRequest(
        id=house.request_id,
        imp=[
            Imp(
                id=IMP_ID,
                banner=Banner(),
                bidfloor=house.floor_price,
                bidfloorcur=currency,
                tagid=house.ad_slot_id,
            )
        ],
        device=Device(geo=geo, devicetype=None if device_type is None else int(device_type)),
        user=user,
        tmax=house.timeout_ms or None,
    )
