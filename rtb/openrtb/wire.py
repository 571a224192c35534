"""What the structs of OpenRTB have in common: their base, and the kinds of their fields.

``null`` means absent. Sizes are DIPS, prices CPM floats, times milliseconds unless told otherwise.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from rtb.openrtb.lists import MAX_PRICE_CPM

NonNegative = Annotated[int, Meta(ge=0)]
Price = Annotated[float, Meta(ge=0, le=MAX_PRICE_CPM)]
Seconds = Annotated[int, Meta(ge=-1)]


class Wire(Struct, gc=False, omit_defaults=True):
    """Base of the wire structs: not tracked by the collector (they form trees), defaults left out when encoded."""
