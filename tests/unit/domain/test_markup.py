"""Markup made from a creative: well formed, whatever its texts contain."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.campaign import Creative, Media
from rtb.domain.markup import MARKUP_TYPE, markup
from rtb.openrtb import MarkupType

VAST = "{http://www.iab.com/VAST}"
HOSTILE = "\"'><script>alert(1)</script>&amp;]]>--><!-- \x00\x1b"


def creative(media: Media, **fields: Any) -> Creative:
    """A creative with an image and a landing page."""
    urls = {"image_url": "https://cdn.example/ad?a=1&b=2", "landing_page": "https://shop.example/?q=x&y"}
    return Creative(**{"id": "c1", "media": media, **urls, **fields})


class Tags(HTMLParser):
    """The start tags of a document, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """The start tags of the HTML."""
    parser = Tags()
    parser.feed(html)
    parser.close()
    return parser.found


@pytest.mark.parametrize("media", list(Media))
def test_own_markup_goes_out_as_it_is(media: Media) -> None:
    """A creative's adm is its author's business."""
    assert markup(creative(media, adm="<b>${AUCTION_PRICE}</b>")) == "<b>${AUCTION_PRICE}</b>"


def test_a_banner_is_a_linked_image() -> None:
    """An image of the creative's size inside a link to the landing page."""
    assert tags(markup(creative(Media.BANNER, w=300, h=250))) == [
        ("a", {"href": "https://shop.example/?q=x&y", "target": "_blank", "rel": "noopener"}),
        ("img", {"src": "https://cdn.example/ad?a=1&b=2", "width": "300", "height": "250", "alt": "", "border": "0"}),
    ]


def test_a_banner_of_any_size_names_none() -> None:
    """0 fits any slot, so that no width and height go into the HTML."""
    (_, link), (_, image) = tags(markup(creative(Media.BANNER)))
    assert link
    assert "width" not in image
    assert "height" not in image


def test_a_banner_cannot_be_broken_out_of() -> None:
    """Quotes and tags in a URL stay in the URL."""
    found = tags(markup(creative(Media.BANNER, image_url=HOSTILE, landing_page=HOSTILE)))
    assert [tag for tag, _ in found] == ["a", "img"]


def test_a_video_has_what_vast_requires() -> None:
    """VAST 4.2 in the order of its schema: Impression, AdServingId, AdTitle, Duration, MediaFiles, UniversalAdId."""
    made = creative(Media.VIDEO, w=640, h=360, dur=3725, mime="video/webm")
    root = ET.fromstring(markup(made, "Spring <sale> & more"))
    inline = root.find(f"{VAST}Ad/{VAST}InLine")
    assert (root.tag, root.get("version")) == (f"{VAST}VAST", "4.2")
    assert inline is not None
    assert [child.tag.removeprefix(VAST) for child in inline] == [
        "AdSystem",
        "Impression",
        "AdServingId",
        "AdTitle",
        "Creatives",
    ]
    assert inline.findtext(f"{VAST}AdTitle") == "Spring <sale> & more"
    linear = inline.find(f"{VAST}Creatives/{VAST}Creative/{VAST}Linear")
    assert linear is not None
    assert [child.tag.removeprefix(VAST) for child in linear] == ["Duration", "MediaFiles", "VideoClicks"]
    assert linear.findtext(f"{VAST}Duration") == "01:02:05"
    media = linear.find(f"{VAST}MediaFiles/{VAST}MediaFile")
    assert media is not None
    assert media.attrib == {"delivery": "progressive", "type": "video/webm", "width": "640", "height": "360"}
    assert media.text == made.image_url
    assert linear.findtext(f"{VAST}VideoClicks/{VAST}ClickThrough") == made.landing_page
    assert inline.find(f"{VAST}Creatives/{VAST}Creative/{VAST}UniversalAdId") is not None


def test_audio_says_so() -> None:
    """adType is audio, and the MIME type an audio one where none is given; a video has neither."""
    audio, video = (ET.fromstring(markup(creative(media))) for media in (Media.AUDIO, Media.VIDEO))
    assert [root.find(f"{VAST}Ad").get("adType") for root in (audio, video)] == ["audio", None]
    files = [root.find(f".//{VAST}MediaFile") for root in (audio, video)]
    assert [file.get("type") for file in files if file is not None] == ["audio/mp4", "video/mp4"]


def test_native_is_the_native_object_itself() -> None:
    """Native Ads 1.2, 5.1: from 1.1 on there is no root called native; assets title and image, and a link."""
    assert json.loads(markup(creative(Media.NATIVE, w=1200, h=627), "Title")) == {
        "ver": "1.2",
        "assets": [
            {"id": 1, "title": {"text": "Title"}},
            {"id": 2, "img": {"url": "https://cdn.example/ad?a=1&b=2", "w": 1200, "h": 627}},
        ],
        "link": {"url": "https://shop.example/?q=x&y"},
    }


@pytest.mark.parametrize("media", [Media.VIDEO, Media.AUDIO, Media.NATIVE])
def test_without_a_title_the_id_stands_for_it(media: Media) -> None:
    """A campaign need not have a name."""
    assert "c1" in markup(creative(media))


@given(st.text(max_size=30), st.sampled_from([Media.VIDEO, Media.AUDIO]))
def test_vast_stays_well_formed(text: str, media: Media) -> None:
    """Any text as id, title, URL or MIME type leaves XML that parses, with the text in it where XML can say it."""
    for said in (text, text + HOSTILE, "]]>" + text):
        made = creative(media, id=said or "c", image_url=said, landing_page=said, mime=said)
        root = ET.fromstring(markup(made, said).encode("utf-8", "surrogatepass"))
        sayable = "".join(char for char in said if char in "\t\n" or (char >= " " and char not in "\ufffe\uffff"))
        if "\r" not in said:
            assert root.findtext(f".//{VAST}ClickThrough") == sayable


@given(st.text(max_size=30))
def test_native_stays_json(text: str) -> None:
    """Any text survives as itself."""
    assert json.loads(markup(creative(Media.NATIVE, landing_page=text), "t"))["link"]["url"] == text


def test_every_media_has_its_markup_type() -> None:
    """4.2.3 mtype: banner 1, video 2, audio 3, native 4."""
    assert {media: int(kind) for media, kind in MARKUP_TYPE.items()} == {
        Media.BANNER: 1,
        Media.VIDEO: 2,
        Media.AUDIO: 3,
        Media.NATIVE: 4,
    }
    assert set(MARKUP_TYPE.values()) == set(MarkupType)
