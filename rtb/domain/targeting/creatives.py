"""Which creative of a campaign fits an imp."""

from __future__ import annotations

from collections.abc import Sequence

from rtb.domain.campaign import Creative, Media
from rtb.domain.facts import Offer

_NO_SIZE = ((0, 0),)


def choose(
    creatives: Sequence[Creative], offers: Sequence[Offer], secure: bool, languages: Sequence[str] | None
) -> int:
    """The index of the creative to show, -1 when none fits.

    The imp decides: its first offer, in that the first size, that some creative fits; then the campaign's order.

    Args:
        creatives: the campaign's.
        offers: the imp's media, in order of preference.
        secure: whether all assets must be loaded over HTTPS [OpenRTB 2.6 3.2.4].
        languages: what creatives may speak (`wlang`), None for any.
    """
    for offer in offers:
        for size in offer.sizes or _NO_SIZE:
            for i, creative in enumerate(creatives):
                if (
                    creative.media == offer.media
                    and fits(creative.w, creative.h, size)
                    and not objection(creative, offer, secure, languages)
                ):
                    return i
    return -1


def has_shape(creative: Creative, offer: Offer) -> bool:
    """Whether media and size are what is offered; a side of 0 fits any, and so does an offer without sizes."""
    return creative.media == offer.media and any(fits(creative.w, creative.h, size) for size in offer.sizes or _NO_SIZE)


def fits(w: int, h: int, size: tuple[int, int]) -> bool:
    """Whether w x h is of this size; 0 fits any, on either side."""
    return size == (0, 0) or (w in (0, size[0]) and h in (0, size[1]))


def objection(creative: Creative, offer: Offer, secure: bool, languages: Sequence[str] | None) -> str:
    """Why a creative of the right shape may not be shown, empty when it may. What a creative does not declare passes.

    Source: OpenRTB 2.6 3.2.1 (wlang), 3.2.4 (secure), 3.2.6 to 3.2.8 (the rest).
    """
    if secure and not creative.secure:
        return "is not secure"
    if languages is not None and creative.language and creative.language[:2].lower() not in languages:
        return f"speaks {creative.language}, allowed are {_listed(languages)}"
    for attr in creative.attr:
        if attr in offer.attr_blocked:
            return f"has the blocked attribute {attr}"
    if creative.btype and creative.btype in offer.type_blocked:
        return f"is of the blocked type {creative.btype}"
    if creative.mime and offer.mimes and creative.mime not in offer.mimes:
        return f"is {creative.mime}, allowed are {_listed(offer.mimes)}"
    if creative.protocol and offer.protocols and creative.protocol not in offer.protocols:
        return f"needs protocol {creative.protocol}, supported are {_listed(offer.protocols)}"
    if creative.api and offer.api is not None and creative.api not in offer.api:
        return f"needs api {creative.api}, supported are {_listed(offer.api)}"
    return wrong_duration(stream_seconds(creative), offer)


def stream_seconds(creative: Creative) -> int:
    """How long a video or audio creative lasts; 0 when it does not say, or does not last."""
    return creative.dur if creative.media in (Media.VIDEO, Media.AUDIO) else 0


def wrong_duration(dur: int, offer: Offer) -> str:
    """Why a creative of `dur` seconds, of the media offered, is too short or too long; empty when it is not."""
    if not dur:
        return ""
    if offer.durations:
        return "" if dur in offer.durations else f"lasts {dur} s, allowed are {_listed(offer.durations)} s"
    if dur < offer.mindur:
        return f"lasts {dur} s, at least {offer.mindur} s are required"
    if offer.maxdur and dur > offer.maxdur:
        return f"lasts {dur} s, at most {offer.maxdur} s are allowed"
    return ""


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "none"
