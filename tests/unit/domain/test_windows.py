"""How long a win may take to be shown, by format."""

from __future__ import annotations

import pytest

from rtb.domain.campaign import Media
from rtb.domain.windows import Windows
from rtb.openrtb import App, Imp, Site
from tests.unit.parts import bid_request

MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("media", "fields", "where", "minutes"),
    [
        (Media.BANNER, {}, {}, 1),
        (Media.BANNER, {}, {"site": Site()}, 1),
        (Media.BANNER, {}, {"app": App()}, 5),
        (Media.BANNER, {"instl": 1}, {"app": App()}, 30),
        (Media.BANNER, {"instl": 1}, {}, 30),
        (Media.NATIVE, {}, {}, 10),
        (Media.NATIVE, {"instl": 1}, {"app": App()}, 10),
        (Media.VIDEO, {}, {}, 30),
        (Media.AUDIO, {}, {}, 30),
        (Media.VIDEO, {"exp": 120}, {}, 2),
        (Media.BANNER, {"exp": 120}, {}, 1),
        (Media.BANNER, {"exp": 0}, {}, 1),
    ],
)
def test_windows(media: Media, fields: dict[str, int], where: dict[str, object], minutes: int) -> None:
    """Web banner 1 min, in-app 5, native 10, interstitial and spots 30; imp.exp can only shorten it."""
    request = bid_request(Imp(id="0", exp=1), Imp(id="1", **fields), **where)
    assert Windows().window_ms(request, "1", media) == minutes * MINUTE_MS


def test_windows_can_be_set() -> None:
    """In seconds, and fractions of them."""
    assert Windows(web_s=1.5).window_ms(bid_request(), "1", Media.BANNER) == 1_500
