"""The markup of a house creative: its own `adm`, or one made from its image and landing page."""

from __future__ import annotations

import re
from html import escape
from xml.sax.saxutils import escape as xml_escape

import msgspec

from rtb.domain.campaign import Creative, Media
from rtb.openrtb import MarkupType

MARKUP_TYPE = {
    Media.BANNER: MarkupType.BANNER,
    Media.VIDEO: MarkupType.VIDEO,
    Media.AUDIO: MarkupType.AUDIO,
    Media.NATIVE: MarkupType.NATIVE,
}

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_AUDIO = ' adType="audio"'


def markup(creative: Creative, title: str = "") -> str:
    """What `bid.adm` carries [OpenRTB 2.6 4.3.2]: HTML, VAST 4.2 in line, or a Native 1.2 response."""
    if creative.adm:
        return creative.adm
    if creative.media is Media.BANNER:
        return _banner(creative)
    if creative.media is Media.NATIVE:
        return _native(creative, title)
    return _vast(creative, title)


def _banner(creative: Creative) -> str:
    size = f' width="{creative.w}" height="{creative.h}"' if creative.w and creative.h else ""
    image = f'<img src="{escape(creative.image_url)}"{size} alt="" border="0">'
    return f'<a href="{escape(creative.landing_page)}" target="_blank" rel="noopener">{image}</a>'


def _vast(creative: Creative, title: str) -> str:
    """An Ad with what VAST 4.2 requires, in its order; the creative's own id stands for the ids it lacks."""
    hours, rest = divmod(creative.dur, 3600)
    minutes, seconds = divmod(rest, 60)
    audio = creative.media is Media.AUDIO
    mime = creative.mime or ("audio/mp4" if audio else "video/mp4")
    size = f'width="{creative.w}" height="{creative.h}"'
    return (
        f'<VAST version="4.2" xmlns="http://www.iab.com/VAST"><Ad id="{_attribute(creative.id)}"'
        f"{_AUDIO if audio else ''}><InLine><AdSystem>rtb</AdSystem><Impression></Impression>"
        f"<AdServingId>{_text(creative.id)}</AdServingId><AdTitle>{_text(title or creative.id)}</AdTitle>"
        "<Creatives><Creative><Linear>"
        f"<Duration>{hours:02}:{minutes:02}:{seconds:02}</Duration>"
        f'<MediaFiles><MediaFile delivery="progressive" type="{_attribute(mime)}" {size}>'
        f"{_cdata(creative.image_url)}</MediaFile></MediaFiles>"
        f"<VideoClicks><ClickThrough>{_cdata(creative.landing_page)}</ClickThrough></VideoClicks>"
        f'</Linear><UniversalAdId idRegistry="unknown">{_text(creative.id)}</UniversalAdId></Creative>'
        "</Creatives></InLine></Ad></VAST>"
    )


def _native(creative: Creative, title: str) -> str:
    """From version 1.1 on the native object itself is the root [Native Ads 1.2, 5.1]."""
    image: dict[str, object] = {"url": creative.image_url}
    if creative.w and creative.h:
        image |= {"w": creative.w, "h": creative.h}
    native = {
        "ver": "1.2",
        "assets": [{"id": 1, "title": {"text": title or creative.id}}, {"id": 2, "img": image}],
        "link": {"url": creative.landing_page},
    }
    return msgspec.json.encode(native).decode()


def _text(text: str) -> str:
    """Element text; what XML 1.0 has no way to write is left out."""
    return xml_escape(_NOT_XML.sub("", text))


def _attribute(text: str) -> str:
    return xml_escape(_NOT_XML.sub("", text), {'"': "&quot;"})


def _cdata(text: str) -> str:
    """A CDATA section that the text cannot end."""
    return "<![CDATA[" + _NOT_XML.sub("", text).replace("]]>", "]]]]><![CDATA[>") + "]]>"
