"""Tracking put into an advertiser's own VAST, of any version from 2 to 4."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_AD = re.compile(r"<(?:InLine|Wrapper)(?:\s[^<>]*)?>(?:\s*<AdSystem(?:\s[^<>]*)?>[^<>]*</AdSystem\s*>)?")
_LINEAR = re.compile(r"(<Linear(?:\s[^<>]*)?>)(.*?)(</Linear\s*>)", re.DOTALL)
_CLICKS = re.compile(r"<VideoClicks(?:\s[^<>]*)?(?<!/)>")
_EMPTY_CLICKS = re.compile(r"<VideoClicks(?:\s[^<>]*)?/>")


def tracked(vast: str, impression: str, click: str) -> str:
    """The VAST with an Impression in each InLine or Wrapper, after its AdSystem, and a ClickTracking in each Linear.

    It is changed as text, so that all else stays byte for byte. What is not well formed or no VAST is returned as it
    was, and so is what does not come out with every URL in its place (a Linear in a comment, say).
    """
    root = _parsed(vast)
    if root is None:
        return vast
    made = _AD.sub(lambda found: found[0] + _element("Impression", impression), vast)
    if _count(_parsed(made), "Impression", impression) != _count(root, "InLine") + _count(root, "Wrapper"):
        return vast
    clicked = _LINEAR.sub(lambda found: found[1] + _with_click(found[2], click) + found[3], made)
    return clicked if _count(_parsed(clicked), "ClickTracking", click) == _count(root, "Linear") else made


def _with_click(linear: str, click: str) -> str:
    """What a Linear contains, with the ClickTracking first in its VideoClicks, which come last."""
    tracking = _element("ClickTracking", click)
    linear = _EMPTY_CLICKS.sub("<VideoClicks></VideoClicks>", linear, count=1)
    if _CLICKS.search(linear):
        return _CLICKS.sub(lambda found: found[0] + tracking, linear, count=1)
    return f"{linear}<VideoClicks>{tracking}</VideoClicks>"


def _element(name: str, url: str) -> str:
    return f"<{name}>{escape(url)}</{name}>"


def _parsed(vast: str) -> ElementTree.Element | None:
    """The root of well-formed VAST; expat itself bounds what entities expand to."""
    try:
        root = ElementTree.fromstring(vast)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    return root if _name(root) == "VAST" else None


def _count(root: ElementTree.Element | None, name: str, text: str | None = None) -> int:
    if root is None:
        return -1
    return sum(_name(one) == name and (text is None or one.text == text) for one in root.iter())


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
