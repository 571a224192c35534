"""OpenRTB 2.6 on the wire: structs with the spec's names, decode, validate, encode.

    lists      its enumerations, and our limits
    wire       what its objects have in common
    imp        what is offered
    context    where, to whom, by whom
    request    both together
    response   the bids
    codec      bytes to structs and back

Two views of a request exist (see docs/architecture.md): the typed `BidRequest` that the auction reads, and the bytes it
came from, which are what is forwarded; a field this package does not know, and every ``ext``, survives there untouched.

Source: OpenRTB 2.6-202606.
"""

from rtb.openrtb.codec import decode_request, decode_response, encode, validate
from rtb.openrtb.context import (
    App,
    Content,
    Data,
    Device,
    Dooh,
    Eid,
    Geo,
    Publisher,
    Regs,
    Segment,
    Site,
    Source,
    SupplyChain,
    SupplyChainNode,
    Uid,
    User,
)
from rtb.openrtb.imp import Audio, Banner, Deal, DurFloors, Format, Imp, Metric, Native, Pmp, Qty, Video
from rtb.openrtb.lists import (
    MAX_DEPTH,
    MAX_IMPS,
    MAX_PRICE_CPM,
    VERSION,
    AuctionType,
    DeviceType,
    Loss,
    MarkupType,
    NoBid,
)
from rtb.openrtb.request import BidRequest
from rtb.openrtb.response import Bid, BidResponse, SeatBid
from rtb.openrtb.wire import NonNegative, Price, Seconds, Wire

__all__ = [
    "MAX_DEPTH",
    "MAX_IMPS",
    "MAX_PRICE_CPM",
    "VERSION",
    "App",
    "AuctionType",
    "Audio",
    "Banner",
    "Bid",
    "BidRequest",
    "BidResponse",
    "Content",
    "Data",
    "Deal",
    "Device",
    "DeviceType",
    "Dooh",
    "DurFloors",
    "Eid",
    "Format",
    "Geo",
    "Imp",
    "Loss",
    "MarkupType",
    "Metric",
    "Native",
    "NoBid",
    "NonNegative",
    "Pmp",
    "Price",
    "Publisher",
    "Qty",
    "Regs",
    "SeatBid",
    "Seconds",
    "Segment",
    "Site",
    "Source",
    "SupplyChain",
    "SupplyChainNode",
    "Uid",
    "User",
    "Video",
    "Wire",
    "decode_request",
    "decode_response",
    "encode",
    "validate",
]
