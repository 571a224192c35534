"""OAuth 2.0 access tokens from a refresh token, as Google's APIs want them.

Source: RFC 6749 6; developers.google.com/identity/protocols/oauth2/web-server (offline access, ``expires_in`` seconds).
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from rtb.adapters.source_http import SourceHttp, decoded
from rtb.ports import Clock
from rtb.ports.http import HttpClient
from rtb.ports.metric_source import RequestGate, SourceError

EARLY_S = 60.0
"""A token is replaced so long before it ends."""
_FORM = {"content-type": "application/x-www-form-urlencoded"}


class _Token(Struct, frozen=True):
    access_token: str
    expires_in: float


class _Refusal(Struct, frozen=True):
    error: str
    error_description: str = ""


_token = msgspec.json.Decoder(_Token)
_refusal = msgspec.json.Decoder(_Refusal)


class GoogleToken:
    """Access tokens: one is asked for once, however many wait for it, and kept until it ends."""

    def __init__(
        self,
        http: HttpClient,
        gate: RequestGate,
        clock: Clock,
        *,
        client_id: str,
        client_secret: str,
        refresh_token: str,
        url: str = "https://oauth2.googleapis.com/token",
    ) -> None:
        """Ask the token endpoint at `url`."""
        self._http = SourceHttp(http, gate, secrets=(client_secret, refresh_token))
        self._clock = clock
        self._url = url
        form = {"client_id": client_id, "client_secret": client_secret, "refresh_token": refresh_token}
        self._body = urlencode({**form, "grant_type": "refresh_token"}).encode()
        self._asking = asyncio.Lock()
        self._token = ""
        self._until_ns = 0

    async def get(self) -> str:
        """A token that is valid for another minute at least.

        Raises:
            SourceError: there is none.
        """
        async with self._asking:
            if self._clock.monotonic_ns() >= self._until_ns:
                await self._renew()
            return self._token

    def forget(self, token: str) -> None:
        """It was refused: ask for another one next time."""
        if token == self._token:
            self._until_ns = 0

    async def _renew(self) -> None:
        asked_ns = self._clock.monotonic_ns()
        response = await self._http.post(self._url, _FORM, self._body)
        if response.status != 200:
            raise SourceError(f"no access token: {self._why(response.status, response.body)}")
        told = decoded(_token, response.body)
        self._token = told.access_token
        self._until_ns = asked_ns + round(max(told.expires_in - EARLY_S, 0.0) * 1e9)

    def _why(self, status: int, body: bytes) -> str:
        try:
            refusal = _refusal.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return f"HTTP {status}"
        return self._http.line(f"{refusal.error} {refusal.error_description}".strip())
