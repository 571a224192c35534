"""Requests to servers outside, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from msgspec import Struct

from rtb.errors import HttpError

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
NOTHING_MORE: Mapping[str, str] = {}
MAX_BODY = 64 << 10
"""Bytes of a response that are read unless more are asked for."""


class HttpResponse(Struct, frozen=True):
    """What a server answered, whatever its status. Header names are lower case; of a repeated header the last counts.

    `body` is as it was before compression, and cut at the limit of the request: then it is not `whole`.
    """

    status: int
    headers: Mapping[str, str] = NOTHING_MORE
    body: bytes = b""
    whole: bool = True


class HttpClient(Protocol):
    """Sends requests to public servers only: no URL, and no name in one, leads into the house."""

    async def send(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] = NOTHING_MORE,
        body: bytes = b"",
        timeout_s: float = 5.0,
        max_body: int = MAX_BODY,
    ) -> HttpResponse:
        """Send one request and read its response; a redirect is a response like any other.

        Args:
            method: as it is sent.
            url: http or https, absolute.
            headers: besides those of the client.
            body: b"" for none.
            timeout_s: for all of it, from the wait for a free connection to the end of the body.
            max_body: bytes of the body that are read; with more the connection is closed.

        Raises:
            HttpError: there is no response; one line that says why. HttpRefused: because nothing was sent at all, for
                the URL is not one this client may go to; trying again is no use.
        """
        ...

    async def close(self) -> None:
        """End what is under way and close the connections."""
        ...


Answered = Callable[[int, HttpError | None], None]
"""Takes the status of a response; or 0, and why there is none."""


class CallingHttp(Protocol):
    """An HttpClient for those who send many small requests and look at nothing but the status."""

    def get(
        self,
        url: str,
        answered: Answered,
        *,
        headers: Mapping[str, str] = NOTHING_MORE,
        timeout_s: float = 5.0,
        max_body: int = MAX_BODY,
    ) -> None:
        """GET a URL, and call `answered` once, perhaps before this returns. The arguments and errors are those of
        `HttpClient.send`; nothing is raised."""
        ...
