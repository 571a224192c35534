"""OpenRTB's lists as enums, and the limits of this exchange.

Enumerated fields of the structs are plain integers, because an unknown value is carried, not refused; these name the
known ones.

Source: OpenRTB 2.6-202606, sections in brackets; AdCOM 1.0; the OpenRTB 3.0 lists for no-bid and loss reasons.
"""

from __future__ import annotations

from enum import IntEnum

VERSION = "2.6"
MAX_IMPS = 64
MAX_DEPTH = 512
MAX_PRICE_CPM = 1_000_000.0


class AuctionType(IntEnum):
    """`at` of a request or deal [3.2.1, 3.2.12]; 500 and above are an exchange's own."""

    FIRST_PRICE = 1
    SECOND_PRICE_PLUS = 2
    DEAL_PRICE = 3


class MarkupType(IntEnum):
    """`bid.mtype` [4.2.3]: which sub-object of the imp the markup is for."""

    BANNER = 1
    VIDEO = 2
    AUDIO = 3
    NATIVE = 4


class NoBid(IntEnum):
    """Why a request got no bid (`nbr`): the OpenRTB 3.0 list, and from 500 on our own."""

    UNKNOWN = 0
    TECHNICAL_ERROR = 1
    INVALID_REQUEST = 2
    KNOWN_CRAWLER = 3
    NON_HUMAN_TRAFFIC = 4
    DATA_CENTRE_IP = 5
    UNSUPPORTED_DEVICE = 6
    BLOCKED_PUBLISHER = 7
    UNMATCHED_USER = 8
    DAILY_USER_CAP = 9
    DAILY_DOMAIN_CAP = 10
    ADS_TXT_UNAVAILABLE = 11
    ADS_TXT_VIOLATION = 12
    ADS_CERT_UNAVAILABLE = 13
    ADS_CERT_VIOLATION = 14
    INSUFFICIENT_TIME = 15
    INCOMPLETE_SCHAIN = 16
    BLOCKED_SCHAIN_NODE = 17
    NO_ELIGIBLE_DEMAND = 500
    ALL_BELOW_FLOOR = 501
    SHED = 502
    ALL_LATE = 503
    NO_RATE = 504
    """The floor of every imp, or every currency in `cur`, is in a currency without a rate."""


class Loss(IntEnum):
    """Why a bid lost (`${AUCTION_LOSS}`): the OpenRTB 3.0 list."""

    WON = 0
    INTERNAL_ERROR = 1
    EXPIRED = 2
    INVALID_RESPONSE = 3
    INVALID_DEAL = 4
    INVALID_AUCTION_ID = 5
    ADOMAIN_MISSING = 6
    MARKUP_MISSING = 7
    CRID_MISSING = 8
    PRICE_MISSING = 9
    BELOW_FLOOR = 100
    BELOW_DEAL_FLOOR = 101
    OUTBID = 102
    LOST_TO_DEAL = 103
    SEAT_BLOCKED = 104
    CREATIVE_UNSPECIFIED = 200
    CREATIVE_PENDING = 201
    CREATIVE_DISAPPROVED = 202
    SIZE = 203
    FORMAT = 204
    ADVERTISER_BLOCKED = 205
    APP_BLOCKED = 206
    NOT_SECURE = 207
    LANGUAGE = 208
    CATEGORY_BLOCKED = 209
    ATTRIBUTE_BLOCKED = 210
    AD_TYPE_BLOCKED = 211


class DeviceType(IntEnum):
    """`device.devicetype`: AdCOM 1.0, List: Device Types."""

    MOBILE_OR_TABLET = 1
    PC = 2
    TV = 3
    PHONE = 4
    TABLET = 5
    CONNECTED_DEVICE = 6
    SET_TOP_BOX = 7
    OOH = 8
