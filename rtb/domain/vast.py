"""Tracking put into an advertiser's own VAST, of any version from 2 to 4."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_TAG = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<(/?)(InLine|Wrapper|AdSystem|Linear|VideoClicks)(?=[\s/>])([^<>]*)>", re.DOTALL
)


def tracked(vast: str, impression: str, click: str) -> str:
    """The VAST with an Impression in each InLine or Wrapper, after its AdSystem, and a ClickTracking in each Linear.

    It is changed as text, so that all else stays byte for byte. What is not well formed or no VAST is returned as it
    was, and so is what does not come out with every URL in its place.
    """
    root = _parsed(vast)
    if root is None:
        return vast
    made = _Editor(
        vast, f"<Impression>{escape(impression)}</Impression>", f"<ClickTracking>{escape(click)}</ClickTracking>"
    )
    after = _parsed(made.text)
    ads = _count(root, "InLine") + _count(root, "Wrapper")
    if _count(after, "Impression", impression) != ads or _count(after, "ClickTracking", click) != _count(
        root, "Linear"
    ):
        return vast
    return made.text


class _Editor:
    """Goes through the tags once and puts in the elements where they belong."""

    def __init__(self, vast: str, impression: str, click: str) -> None:
        self._impression = impression
        self._click = click
        self._edits: list[tuple[int, int, str]] = []
        self._impression_at = -1  # in the open ad
        self._wants_click = False  # the open Linear
        for tag in _TAG.finditer(vast):
            closes, name, rest = tag.groups()
            if name is not None:
                self._see(name, tag, closes=bool(closes), is_empty=rest.endswith("/"))
        parts, last = [], 0
        for start, end, text in sorted(self._edits):
            parts += [vast[last:start], text]
            last = end
        self.text = "".join([*parts, vast[last:]])

    def _see(self, name: str, tag: re.Match[str], *, closes: bool, is_empty: bool) -> None:
        clicks = f"<VideoClicks>{self._click}</VideoClicks>"
        if name in ("InLine", "Wrapper"):
            if not closes:
                self._impression_at = tag.end()
            elif self._impression_at >= 0:
                self._put(self._impression_at, self._impression)
                self._impression_at = -1
        elif name == "AdSystem":
            if (closes or is_empty) and self._impression_at >= 0:
                self._impression_at = tag.end()
        elif name == "Linear":
            if is_empty:
                self._fill(tag, clicks)
            elif closes and self._wants_click:
                self._put(tag.start(), clicks)
            self._wants_click = not closes and not is_empty
        elif self._wants_click and not closes:
            if is_empty:
                self._fill(tag, self._click)
            else:
                self._put(tag.end(), self._click)
            self._wants_click = False

    def _put(self, at: int, text: str) -> None:
        self._edits.append((at, at, text))

    def _fill(self, tag: re.Match[str], text: str) -> None:
        """Give an empty element content."""
        opened = tag[0].removesuffix("/>").rstrip()
        self._edits.append((tag.start(), tag.end(), f"{opened}>{text}</{tag[2]}>"))


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
