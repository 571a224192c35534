"""How the metric sources speak HTTP: one request at a time through the source's gate, every failure in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import HttpClient, HttpResponse
from rtb.ports.metric_source import RequestGate, SourceError

HOLD_OFF_S = 60.0
"""After a refusal for the rate that does not say how long."""
MAX_BODY = 16 << 20
_MAX_REASON = 300
_THROTTLED = (429, 503)
_T = TypeVar("_T")


class NoAnswer(SourceError):
    """The request was sent, and what came back, if anything did, says nothing: it may have been carried out."""


class SourceHttp:
    """What one source sends; its reasons never hold the `secrets`."""

    def __init__(
        self, http: HttpClient, gate: RequestGate, *, timeout_s: float = 10.0, secrets: Iterable[str] = ()
    ) -> None:
        """Send through `http`, each request when `gate` lets it pass and for at most `timeout_s`."""
        self._http = http
        self._gate = gate
        self._timeout_s = timeout_s
        self._secrets = [secret for secret in secrets if secret]

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Send a POST; a whole response whatever its status. With 429 and 503 the gate closes for Retry-After.

        Raises:
            SourceError: it was not sent. NoAnswer: there is no whole response.
        """
        async with self._gate.passage():
            try:
                response = await self._http.send(
                    "POST", url, headers=headers, body=body, timeout_s=self._timeout_s, max_body=MAX_BODY
                )
            except HttpRefused as error:
                raise SourceError(self.line(str(error))) from None
            except HttpError as error:
                raise NoAnswer(self.line(str(error))) from None
        after_s = retry_after_s(response.headers)
        if response.status in _THROTTLED and after_s is not None:
            self.hold_off(after_s, f"HTTP {response.status}")
        if not response.whole:
            raise NoAnswer(f"the answer is longer than {MAX_BODY} bytes")
        return response

    def hold_off(self, seconds: float, reason: str) -> None:
        """Let no request of this source pass for so long."""
        self._gate.hold_off(seconds, self.line(reason))

    def line(self, text: str) -> str:
        """What a source said, as a reason: one line, not long, without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_MAX_REASON]


def decoded(decoder: msgspec.json.Decoder[_T], body: bytes | str) -> _T:
    """What a body says.

    Raises:
        NoAnswer: it is not JSON, or not of the published shape; the line says where.
    """
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NoAnswer(f"malformed answer: {str(error)[:200]}") from None


def refusal(status: int, reason: str) -> SourceError:
    """The error for an answer with this status: one of the server's own (5xx) leaves open what was done."""
    return NoAnswer(reason) if status >= 500 else SourceError(reason)


def unsure(error: SourceError) -> str:
    """Why a change failed, and whether it may have been made all the same."""
    return f"{error}; it may have been applied" if isinstance(error, NoAnswer) else str(error)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After, None without one. A date counts from the response's own Date.

    Source: RFC 9110 10.2.3.
    """
    after = headers.get("retry-after", "").strip()
    if after.isdecimal():
        return float(after)
    try:
        until, sent = parsedate_to_datetime(after), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - sent).total_seconds())
    except (ValueError, TypeError):  # no date, or one of them without a time zone
        return HOLD_OFF_S if after else None


def is_number(text: str) -> bool:
    """Whether it is an id of decimal digits, and so may stand in a path or a query as it is."""
    return text.isascii() and text.isdecimal()
