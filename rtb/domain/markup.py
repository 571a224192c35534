"""The markup of a house creative: its own `adm`, or one made from its image and landing page."""

from __future__ import annotations

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
    hours, rest = divmod(creative.dur, 3600)
    minutes, seconds = divmod(rest, 60)
    mime = creative.mime or ("audio/mp4" if creative.media is Media.AUDIO else "video/mp4")
    return (
        '<VAST version="4.2"><Ad id="'
        f'{xml_escape(creative.id, {chr(34): "&quot;"})}"><InLine><AdSystem>rtb</AdSystem>'
        f"<AdTitle>{xml_escape(title or creative.id)}</AdTitle><Creatives><Creative><Linear>"
        f"<Duration>{hours:02}:{minutes:02}:{seconds:02}</Duration>"
        f"<VideoClicks><ClickThrough><![CDATA[{_cdata(creative.landing_page)}]]></ClickThrough></VideoClicks>"
        f'<MediaFiles><MediaFile delivery="progressive" type="{xml_escape(mime, {chr(34): "&quot;"})}" '
        f'width="{creative.w}" height="{creative.h}"><![CDATA[{_cdata(creative.image_url)}]]></MediaFile></MediaFiles>'
        "</Linear></Creative></Creatives></InLine></Ad></VAST>"
    )


def _native(creative: Creative, title: str) -> str:
    image: dict[str, object] = {"url": creative.image_url}
    if creative.w and creative.h:
        image |= {"w": creative.w, "h": creative.h}
    native = {
        "ver": "1.2",
        "assets": [{"id": 1, "title": {"text": title or creative.id}}, {"id": 2, "img": image}],
        "link": {"url": creative.landing_page},
    }
    return msgspec.json.encode({"native": native}).decode()


def _cdata(text: str) -> str:
    """Text that cannot end the CDATA section it stands in."""
    return text.replace("]]>", "]]]]><![CDATA[>")
