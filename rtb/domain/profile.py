"""User profiles: what is known of a user beside what the request says."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from rtb.errors import Malformed


class Profile(Struct, frozen=True, gc=False, omit_defaults=True):
    """A user's interests and segments, as in the targeting keys of a campaign."""

    user_id: str
    interests: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()


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
