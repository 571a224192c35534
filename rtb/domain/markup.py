"""The markup of a house creative: its own `adm`, or one made from its image and landing page, with tracking put in.

Tracking URLs stand in it with `TOKEN` in place of the token of a win. The marker is base64url as a token is, so that
one takes the other's place in HTML, XML, JSON and URLs without any escaping.
"""

from __future__ import annotations

import re
from html import escape
from urllib.parse import quote
from xml.sax.saxutils import escape as xml_escape

import msgspec
from msgspec import Struct

from rtb.domain.campaign import Creative, Media
from rtb.domain.vast import tracked as tracked_vast
from rtb.openrtb import MarkupType

MARKUP_TYPE = {
    Media.BANNER: MarkupType.BANNER,
    Media.VIDEO: MarkupType.VIDEO,
    Media.AUDIO: MarkupType.AUDIO,
    Media.NATIVE: MarkupType.NATIVE,
}
TOKEN = "0-TOKEN-OF-THE-WIN-0"
"""Stands for the token of a win."""
CLICK_URL, CLICK_URL_ENC = "${CLICK_URL}", "${CLICK_URL_ENC}"
"""In an advertiser's own HTML: what to put before its percent-encoded landing page so that the click counts; the other
is itself encoded, for the click macro of an ad server that redirects in turn."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_AUDIO = ' adType="audio"'
_IMPRESSION, _IMAGE = 1, 1  # event and method of an event tracker [Native Ads 1.2, 7.6 and 7.7]


class Tracker(Struct, frozen=True):
    """The tracking URLs of a win, `TOKEN` in them: to be fetched when the ad is shown, and when it is clicked."""

    impression: str
    click: str

    def through(self, landing_page: str) -> str:
        """The landing page behind the click redirect; one that is no web page, or none, stays as it is."""
        if not landing_page.lower().startswith(("https://", "http://")):
            return landing_page
        return f"{self.click}?u={quote(landing_page, safe='', errors='replace')}"


def markup(creative: Creative, title: str = "", tracker: Tracker | None = None) -> str:
    """What `bid.adm` carries [OpenRTB 2.6 4.3.2]: HTML, VAST 4.2 in line, or a Native 1.2 response.

    With a tracker, showing and clicking it is counted; an advertiser's own VAST or native markup that cannot be read is
    left alone.
    """
    adm, media = creative.adm, creative.media
    if media is Media.BANNER:
        return _own_html(adm, tracker) if adm else _banner(creative, tracker)
    if media is Media.NATIVE:
        return _own_native(adm, tracker) if adm else _native(creative, title, tracker)
    if adm:
        return adm if tracker is None else tracked_vast(adm, tracker.impression, tracker.click)
    return _vast(creative, title, tracker)


def _banner(creative: Creative, tracker: Tracker | None) -> str:
    size = f' width="{creative.w}" height="{creative.h}"' if creative.w and creative.h else ""
    image = f'<img src="{escape(creative.image_url)}"{size} alt="" border="0">'
    page = _landing_page(creative, tracker)
    return f'<a href="{escape(page)}" target="_blank" rel="noopener">{image}</a>{_pixel(tracker)}'


def _own_html(adm: str, tracker: Tracker | None) -> str:
    if tracker is None:
        return adm
    prefix = f"{tracker.click}?u="
    adm = adm.replace(CLICK_URL, prefix).replace(CLICK_URL_ENC, quote(prefix, safe=""))
    return adm + _pixel(tracker)


def _pixel(tracker: Tracker | None) -> str:
    if tracker is None:
        return ""
    hidden = 'width="1" height="1" alt="" style="position:absolute;left:-9999px"'
    return f'<img src="{escape(tracker.impression)}" {hidden}>'


def _vast(creative: Creative, title: str, tracker: Tracker | None) -> str:
    """An Ad with what VAST 4.2 requires, in its order; the creative's own id stands for the ids it lacks."""
    hours, rest = divmod(creative.dur, 3600)
    minutes, seconds = divmod(rest, 60)
    audio = creative.media is Media.AUDIO
    mime = creative.mime or ("audio/mp4" if audio else "video/mp4")
    size = f'width="{creative.w}" height="{creative.h}"'
    return (
        f'<VAST version="4.2" xmlns="http://www.iab.com/VAST"><Ad id="{_attribute(creative.id)}"'
        f"{_AUDIO if audio else ''}><InLine><AdSystem>rtb</AdSystem>"
        f"<Impression>{_cdata(tracker.impression) if tracker else ''}</Impression>"
        f"<AdServingId>{_text(creative.id)}</AdServingId><AdTitle>{_text(title or creative.id)}</AdTitle>"
        "<Creatives><Creative><Linear>"
        f"<Duration>{hours:02}:{minutes:02}:{seconds:02}</Duration>"
        f'<MediaFiles><MediaFile delivery="progressive" type="{_attribute(mime)}" {size}>'
        f"{_cdata(creative.image_url)}</MediaFile></MediaFiles>"
        f"<VideoClicks><ClickThrough>{_cdata(_landing_page(creative, tracker))}</ClickThrough></VideoClicks>"
        f'</Linear><UniversalAdId idRegistry="unknown">{_text(creative.id)}</UniversalAdId></Creative>'
        "</Creatives></InLine></Ad></VAST>"
    )


def _native(creative: Creative, title: str, tracker: Tracker | None) -> str:
    """From version 1.1 on the native object itself is the root [Native Ads 1.2, 5.1]."""
    image: dict[str, object] = {"url": creative.image_url}
    if creative.w and creative.h:
        image |= {"w": creative.w, "h": creative.h}
    native: dict[str, object] = {
        "ver": "1.2",
        "assets": [{"id": 1, "title": {"text": title or creative.id}}, {"id": 2, "img": image}],
        "link": {"url": _landing_page(creative, tracker)},
    }
    if tracker is not None:
        native["eventtrackers"] = [_event_tracker(tracker)]
    return msgspec.json.encode(native).decode()


def _own_native(adm: str, tracker: Tracker | None) -> str:
    """The advertiser's native object with our trackers added to its own [Native Ads 1.2, 5.1, 5.7, 5.8]."""
    if tracker is None:
        return adm
    try:
        root = msgspec.json.decode(adm)
    except (msgspec.DecodeError, RecursionError):
        return adm
    native = root.get("native", root) if isinstance(root, dict) else None
    if not isinstance(native, dict):
        return adm
    if str(native.get("ver", "1.2")) < "1.2" and "eventtrackers" not in native:
        if not _append(native, "imptrackers", tracker.impression):
            return adm
    elif not _append(native, "eventtrackers", _event_tracker(tracker)):
        return adm
    link = native.get("link")
    if isinstance(link, dict):
        _append(link, "clicktrackers", tracker.click)
    return msgspec.json.encode(root).decode()


def _append(parent: dict[str, object], name: str, value: object) -> bool:
    """Add to a list that may not be there yet; False when there is something else."""
    values = parent.get(name)
    if values is None:
        parent[name] = [value]
        return True
    if isinstance(values, list):
        values.append(value)
        return True
    return False


def _event_tracker(tracker: Tracker) -> dict[str, object]:
    return {"event": _IMPRESSION, "method": _IMAGE, "url": tracker.impression}


def _landing_page(creative: Creative, tracker: Tracker | None) -> str:
    return creative.landing_page if tracker is None else tracker.through(creative.landing_page)


def _text(text: str) -> str:
    """Element text; what XML 1.0 has no way to write is left out."""
    return xml_escape(_NOT_XML.sub("", text))


def _attribute(text: str) -> str:
    return xml_escape(_NOT_XML.sub("", text), {'"': "&quot;"})


def _cdata(text: str) -> str:
    """A CDATA section that the text cannot end."""
    return "<![CDATA[" + _NOT_XML.sub("", text).replace("]]>", "]]]]><![CDATA[>") + "]]>"
