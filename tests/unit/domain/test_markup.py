"""Markup made from a creative: well formed, whatever its texts contain."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.campaign import Creative, Media
from rtb.domain.markup import MARKUP_TYPE, TOKEN, Tracker, markup
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


TRACKER = Tracker(f"https://t.example/t/i/{TOKEN}", f"https://t.example/t/c/{TOKEN}")
REDIRECT = f"https://t.example/t/c/{TOKEN}?u=https%3A%2F%2Fshop.example%2F%3Fq%3Dx%26y"


def test_the_marker_needs_no_escaping() -> None:
    """It is spelled as a token is, so that a token can take its place anywhere."""
    assert re.fullmatch("[A-Za-z0-9_-]+", TOKEN)


def test_a_tracked_banner() -> None:
    """The link leads through the redirect, and a pixel follows."""
    html = markup(creative(Media.BANNER, w=300, h=250), tracker=TRACKER)
    (_, link), (_, image), (_, pixel) = tags(html)
    assert link["href"] == REDIRECT
    assert image["src"] == "https://cdn.example/ad?a=1&b=2"
    assert (pixel["src"], pixel["width"], pixel["height"]) == (TRACKER.impression, "1", "1")


@pytest.mark.parametrize("page", ["market://details?id=x", "mailto:a@b.example", "", "//shop.example"])
def test_what_is_no_web_page_is_linked_directly(page: str) -> None:
    """The redirect goes to http and https alone."""
    (_, link), *_ = tags(markup(creative(Media.BANNER, landing_page=page), tracker=TRACKER))
    assert link["href"] == page


def test_own_html_gets_the_pixel_and_its_click_macros() -> None:
    """${CLICK_URL} is what the advertiser puts before its landing page, ${CLICK_URL_ENC} the same encoded once more."""
    adm = "<a href='${CLICK_URL}https%3A%2F%2Fs.example'><a href='//ads.example?click=${CLICK_URL_ENC}'>${AUCTION_ID}"
    html = markup(creative(Media.BANNER, adm=adm), tracker=TRACKER)
    (_, own), (_, through), (_, pixel) = tags(html)
    assert own["href"] == f"{TRACKER.click}?u=https%3A%2F%2Fs.example"
    assert through["href"] == f"//ads.example?click=https%3A%2F%2Ft.example%2Ft%2Fc%2F{TOKEN}%3Fu%3D"
    assert pixel["src"] == TRACKER.impression
    assert "${AUCTION_ID}" in html


@pytest.mark.parametrize("media", [Media.VIDEO, Media.AUDIO])
def test_a_tracked_spot(media: Media) -> None:
    """VAST: the Impression is ours, and ClickThrough leads through the redirect."""
    root = ET.fromstring(markup(creative(media, dur=15), tracker=TRACKER))
    assert [one.text for one in root.iter(f"{VAST}Impression")] == [TRACKER.impression]
    assert root.findtext(f".//{VAST}ClickThrough") == REDIRECT


def test_a_tracked_native_ad() -> None:
    """Native 1.2: event 1 (impression) by method 1 (image), and the link through the redirect."""
    native = json.loads(markup(creative(Media.NATIVE), "Title", TRACKER))
    assert native["eventtrackers"] == [{"event": 1, "method": 1, "url": TRACKER.impression}]
    assert native["link"] == {"url": REDIRECT}


def test_own_native_markup_keeps_its_trackers() -> None:
    """Ours are added to the advertiser's own; its link stays, and the click is told by a click tracker."""
    own = {
        "ver": "1.2",
        "assets": [],
        "link": {"url": "https://s.example", "clicktrackers": ["https://a.example"]},
        "eventtrackers": [{"event": 2, "method": 1, "url": "https://v.example"}],
    }
    native = json.loads(markup(creative(Media.NATIVE, adm=json.dumps(own)), tracker=TRACKER))
    assert native == {
        **own,
        "link": {"url": "https://s.example", "clicktrackers": ["https://a.example", TRACKER.click]},
        "eventtrackers": [*own["eventtrackers"], {"event": 1, "method": 1, "url": TRACKER.impression}],
    }


def test_own_native_markup_of_older_versions() -> None:
    """Before 1.2 impressions are told by imptrackers, and in 1.0 the object is called native."""
    own = {"native": {"ver": 1.1, "link": {"url": "https://s.example"}}}
    assert json.loads(markup(creative(Media.NATIVE, adm=json.dumps(own)), tracker=TRACKER)) == {
        "native": {
            "ver": 1.1,
            "link": {"url": "https://s.example", "clicktrackers": [TRACKER.click]},
            "imptrackers": [TRACKER.impression],
        }
    }


@pytest.mark.parametrize("adm", ["{", "7", '"x"', "[]", '{"native":7}', '{"eventtrackers":7}', "[" * 5000, "<VAST"])
@pytest.mark.parametrize("media", [Media.NATIVE, Media.VIDEO, Media.AUDIO])
def test_own_markup_that_cannot_be_read_is_left_alone(media: Media, adm: str) -> None:
    """It is its author's mistake, not ours to make worse."""
    assert markup(creative(media, adm=adm), tracker=TRACKER) == adm


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(Media))
def test_the_landing_page_survives_the_redirect(text: str, media: Media) -> None:
    """Whatever it contains, decoding `u` gives it back."""
    page = "https://s.example/" + text
    adm = markup(creative(media, landing_page=page), "t", TRACKER)
    encoded = re.search(rf"{TOKEN}\?u=([A-Za-z0-9%_.~-]+)", adm)
    assert encoded is not None
    assert unquote(encoded[1]) == page
