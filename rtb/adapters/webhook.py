"""Alerts over HTTP: to a webhook of one's own, and to Slack or whatever understands its incoming webhooks.

A webhook gets the notice as JSON, with the headers

    Idempotency-Key      the notice's key: the same when it is sent again
    X-Rtb-Timestamp      Unix seconds
    X-Rtb-Signature      with a secret: "sha256=" and the hex HMAC-SHA-256 of timestamp, ".", body
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

import msgspec

from rtb.adapters.source_http import retry_after_s
from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import HttpClient
from rtb.ports.notifier import Notice, NotifyError

TIMEOUT_S = 10.0
AGAIN = frozenset({408, 425, 429})
"""Refusals that do not stay; others of 4xx do."""
COLOURS: Mapping[str, str] = {"info": "#439fe0", "warning": "#daa038", "critical": "#a30200"}
GOOD = "#2eb886"
MAX_LINE = 3_000


class Webhook:
    """Implements ports.notifier.Notifier."""

    def __init__(self, name: str, url: str, http: HttpClient, time: Callable[[], float], *, secret: str = "") -> None:
        """Post to `url`, signed when there is a `secret`; `time` is Unix seconds."""
        self.name = name
        self._url = url
        self._http = http
        self._time = time
        self._secret = secret.encode()

    async def notify(self, notice: Notice) -> None:
        """Post it once.

        Raises:
            NotifyError: no answer, or one that is not 2xx.
        """
        body = msgspec.json.encode(notice)
        moment = f"{self._time():.0f}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice.key, "X-Rtb-Timestamp": moment}
        if self._secret:
            digest = hmac.digest(self._secret, f"{moment}.".encode() + body, "sha256").hex()
            headers["X-Rtb-Signature"] = f"sha256={digest}"
        await _post(self._http, self._url, headers, body)


class SlackWebhook:
    """Implements ports.notifier.Notifier: a line with a coloured bar."""

    def __init__(self, name: str, url: str, http: HttpClient) -> None:
        """Post to `url`, which is a secret itself: it never stands in an error."""
        self.name = name
        self._url = url
        self._http = http

    async def notify(self, notice: Notice) -> None:
        """Post it once.

        Raises:
            NotifyError: no answer, or one that is not 2xx.
        """
        text = _plain(notice.text)
        colour = GOOD if notice.state == "resolved" else COLOURS.get(notice.severity, GOOD)
        attachment = {"color": colour, "fallback": text, "text": text, "ts": round(notice.at)}
        body = msgspec.json.encode({"attachments": [attachment]})
        await _post(self._http, self._url, {"Content-Type": "application/json"}, body)


async def _post(http: HttpClient, url: str, headers: Mapping[str, str], body: bytes) -> None:
    try:
        response = await http.send("POST", url, headers=headers, body=body, timeout_s=TIMEOUT_S)
    except HttpRefused as error:
        raise NotifyError(str(error), final=True) from None
    except HttpError as error:
        raise NotifyError(str(error)) from None
    status = response.status
    if 200 <= status < 300:
        return
    final = 300 <= status < 500 and status not in AGAIN
    raise NotifyError(f"HTTP {status}", final=final, after_s=retry_after_s(response.headers) or 0.0)


def _plain(text: str) -> str:
    """Text without Slack's markup: a campaign's name mentions and links nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:MAX_LINE]
