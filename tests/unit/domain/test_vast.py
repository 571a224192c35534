"""Tracking put into VAST that others wrote."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from rtb.domain.vast import tracked

IMPRESSION, CLICK = "https://t.example/i?a=1&b=2", "https://t.example/c"


def inline(linear: str, *, system: str = "<AdSystem>x</AdSystem>", attributes: str = ' version="4.2"') -> str:
    """An InLine ad with this Linear creative."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<VAST{attributes}><Ad id="1"><InLine>{system}'
        f"<AdTitle>t</AdTitle><Impression><![CDATA[https://own.example/i]]></Impression><Creatives><Creative>{linear}"
        "</Creative></Creatives></InLine></Ad></VAST>"
    )


def texts(vast: str, name: str) -> list[str | None]:
    """What the elements of that name say, in order."""
    return [one.text for one in ET.fromstring(vast).iter() if one.tag.rpartition("}")[2] == name]


def children(vast: str, path: str) -> list[str]:
    """The names of an element's children."""
    found = ET.fromstring(vast).find(path)
    assert found is not None
    return [child.tag for child in found]


def test_an_inline_ad() -> None:
    """An Impression after the AdSystem beside the advertiser's own, and a ClickTracking first in its VideoClicks."""
    clicks = "<VideoClicks><ClickThrough>https://s.example</ClickThrough></VideoClicks>"
    vast = tracked(inline(f"<Linear><Duration>00:00:15</Duration>{clicks}</Linear>"), IMPRESSION, CLICK)
    assert texts(vast, "Impression") == [IMPRESSION, "https://own.example/i"]
    assert children(vast, "Ad/InLine") == ["AdSystem", "Impression", "AdTitle", "Impression", "Creatives"]
    assert children(vast, ".//VideoClicks") == ["ClickTracking", "ClickThrough"]
    assert texts(vast, "ClickTracking") == [CLICK]
    assert texts(vast, "ClickThrough") == ["https://s.example"]


@pytest.mark.parametrize("clicks", ["", "<VideoClicks/>", '<VideoClicks id="x" />', "<VideoClicks></VideoClicks>"])
def test_a_linear_without_clicks(clicks: str) -> None:
    """It gets VideoClicks, after the media files."""
    vast = tracked(inline(f"<Linear><MediaFiles/>{clicks}</Linear>"), IMPRESSION, CLICK)
    assert children(vast, ".//Linear") == ["MediaFiles", "VideoClicks"]
    assert texts(vast, "ClickTracking") == [CLICK]


def test_a_wrapper() -> None:
    """It is tracked as the ad it leads to; one without a Linear only by its impression."""
    vast = (
        '<VAST version="3.0"><Ad><Wrapper fallbackOnNoAd="true"><AdSystem version="1">x</AdSystem>'
        "<VASTAdTagURI>https://next.example</VASTAdTagURI><Creatives/></Wrapper></Ad></VAST>"
    )
    made = tracked(vast, IMPRESSION, CLICK)
    assert children(made, "Ad/Wrapper") == ["AdSystem", "Impression", "VASTAdTagURI", "Creatives"]
    assert texts(made, "Impression") == [IMPRESSION]
    assert texts(made, "ClickTracking") == []


def test_a_pod() -> None:
    """Every ad of several is tracked, in a namespace too."""
    ad = "<Ad><InLine><Creatives><Creative><Linear></Linear></Creative></Creatives></InLine></Ad>"
    made = tracked(f'<VAST xmlns="http://www.iab.com/VAST">{ad}{ad}</VAST>', IMPRESSION, CLICK)
    assert texts(made, "Impression") == [IMPRESSION] * 2
    assert texts(made, "ClickTracking") == [CLICK] * 2


def test_everything_else_stays() -> None:
    """Taking out what was put in gives the original, byte for byte."""
    vast = inline("<Linear>\n\t<!-- a comment -->&#x20;<VideoClicks>\r\n</VideoClicks></Linear>")
    impression = "<Impression>https://t.example/i?a=1&amp;b=2</Impression>"
    made = tracked(vast, IMPRESSION, CLICK)
    assert made.replace(impression, "").replace(f"<ClickTracking>{CLICK}</ClickTracking>", "") == vast


@pytest.mark.parametrize(
    "linear",
    ["<Linear/>", '<Linear skipoffset="00:00:05" />', "<!-- <Linear> --><Linear><![CDATA[</Linear>]]></Linear>"],
)
def test_a_linear_that_is_hard_to_see(linear: str) -> None:
    """Empty ones are filled; what stands in comments and CDATA is no tag."""
    made = tracked(inline(linear), IMPRESSION, CLICK)
    assert texts(made, "Impression") == [IMPRESSION, "https://own.example/i"]
    assert children(made, ".//Linear") == ["VideoClicks"]
    assert texts(made, "ClickTracking") == [CLICK]


@pytest.mark.parametrize(
    "vast",
    [
        "",
        "https://vast.example/tag",
        "<VAST><Ad><InLine></Ad></VAST>",
        "<DAAST><Ad><InLine></InLine></Ad></DAAST>",
        "<VAST></VAST><VAST></VAST>",
        "<VAST><Ad><!-- <InLine></InLine> --></Ad></VAST>",
        '<VAST><Ad><InLine a=">"></InLine></Ad></VAST>',
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><VAST>&b;</VAST>',
        '<v:VAST xmlns:v="x"><v:Ad><v:InLine></v:InLine></v:Ad></v:VAST>',
        "<VAST>\x00</VAST>",
    ],
)
def test_what_is_left_alone(vast: str) -> None:
    """Not well formed, no VAST, or not what it seems."""
    assert tracked(vast, IMPRESSION, CLICK) == vast


def test_a_vast_without_an_ad() -> None:
    """The answer of somebody who has none stays empty."""
    assert tracked('<VAST version="4.0"/>', IMPRESSION, CLICK) == '<VAST version="4.0"/>'
