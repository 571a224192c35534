"""URLs that others chose, checked before anything is sent to them."""

from __future__ import annotations

import re

from yarl import URL

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.outgoing_names import NOT_PUBLIC, is_literal
from rtb.errors import HttpRefused

MAX_URL = 8_192
"""Characters."""

_PRINTABLE = re.compile(r"[!-~]+")


def outgoing_target(url: str, policy: AddressPolicy) -> URL:
    """The URL as it will be sent: as it is where that is possible, for somebody may have signed it.

    An address in it is checked here, a name when it is resolved.

    Raises:
        HttpRefused: it is no http or https URL with a host, too long, or its address is refused.
    """
    if len(url) > MAX_URL:
        raise HttpRefused(f"a URL is longer than {MAX_URL} characters")
    try:
        plain = _PRINTABLE.fullmatch(url) is not None
        target = URL(url, encoded=True) if plain else URL(url.strip())
        host, scheme = target.raw_host, target.scheme
        _ = target.port
    except ValueError as error:
        raise HttpRefused(f"no URL: {line(error)}") from None
    if scheme not in ("http", "https") or not host or not (plain or _PRINTABLE.fullmatch(str(target))):
        raise HttpRefused("a URL must be http or https, with a host")
    if is_literal(host) and policy.refuses(host, host):
        raise HttpRefused(f"{host} is {NOT_PUBLIC}")
    return target


def where(target: URL) -> str:
    """The server, without what may be secret: user, path and query."""
    return f"{target.scheme}://{target.raw_authority.rpartition('@')[2]}"


def line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
