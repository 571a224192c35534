"""How long after a win its impression may come, by format."""

from __future__ import annotations

from msgspec import Struct

from rtb.domain.campaign import Media
from rtb.openrtb import BidRequest

_BANNER, _NATIVE = Media.BANNER, Media.NATIVE  # a look-up in an enum costs ten times that of a name


class Windows(Struct, frozen=True, kw_only=True):
    """Seconds between a win and its impression; `imp.exp` shortens them.

    An in-app banner and native ads are fetched ahead; an interstitial waits for its moment, and a video or audio spot
    for the break of the programme.

    Source: OpenRTB 2.6 3.2.4 (`imp.exp`) and its implementation notes on expiration.
    """

    web_s: float = 60.0
    app_s: float = 300.0
    native_s: float = 600.0
    interstitial_s: float = 1_800.0

    def window_ms(self, request: BidRequest, impid: str, media: Media) -> int:
        """For a win of this imp with an ad of this media, in milliseconds."""
        found = None
        for imp in request.imp or ():
            if imp.id == impid:
                found = imp
                break
        if media is _BANNER:
            seconds = self.web_s if request.app is None else self.app_s
            if found is not None and found.instl == 1:
                seconds = self.interstitial_s
        elif media is _NATIVE:
            seconds = self.native_s
        else:
            seconds = self.interstitial_s
        if found is not None and found.exp and found.exp < seconds:
            seconds = found.exp
        return int(seconds * 1_000)
