"""User profiles: what is known of a user beside what the request says."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from rtb.errors import Malformed


class Profile(Struct, frozen=True, gc=False, omit_defaults=True):
    """A user's interests and segments, as in the targeting keys of a campaign, and what an impression is worth with
    this user beside the average one: 0.5 is half as much again, -1 nothing."""

    user_id: str
    interests: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    value: Annotated[float, Meta(ge=-1, le=1)] = 0.0


_decoder = msgspec.json.Decoder(Profile)
_encoder = msgspec.json.Encoder()


def decode(data: bytes) -> Profile:
    """A profile from its JSON.

    Raises:
        Malformed: it is not one; the message says where.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Malformed(f"profile: {error}") from None


def encode(profile: Profile) -> bytes:
    """The JSON of a profile."""
    return _encoder.encode(profile)
