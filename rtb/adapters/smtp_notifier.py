"""Alerts by e-mail, over the standard library's SMTP client in a thread: there are few of them."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Literal

import msgspec

from rtb.ports.notifier import Notice, NotifyError

TIMEOUT_S = 10.0
"""For each step of the conversation."""
MAX_SUBJECT = 200
Security = Literal["starttls", "tls", "none"]
_END = {"firing": "began", "resolved": "ended"}


class SmtpNotifier:
    """Implements ports.notifier.Notifier. The server is the operator's own: any address may be configured."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        sender: str,
        recipients: Sequence[str],
        *,
        security: Security = "starttls",
        username: str = "",
        password: str = "",
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Send from `sender` to `recipients`; log in when there is a `username`. `context` trusts other certificates
        than the system's.

        Raises:
            ValueError: a password would travel in the clear.
        """
        if security == "none" and username:
            raise ValueError("a login needs security starttls or tls, or the password would travel in the clear")
        self.name = name
        self._host = host
        self._port = port
        self._sender = sender
        self._recipients = list(recipients)
        self._security = security
        self._username = username
        self._password = password
        self._context = context
        self._timeout_s = timeout_s

    async def notify(self, notice: Notice) -> None:
        """Send it once. Of a message that some of the recipients got nothing is repeated.

        Raises:
            NotifyError: nobody got it.
        """
        mail = self._mail(notice)
        try:
            await asyncio.to_thread(self._send, mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise NotifyError(f"recipients refused ({_codes(codes)})", final=min(codes) >= 500) from None
        except smtplib.SMTPResponseException as error:
            raise NotifyError(f"SMTP {error.smtp_code}: {_said(error)}", final=error.smtp_code >= 500) from None
        except smtplib.SMTPNotSupportedError as error:
            raise NotifyError(f"SMTP: {error}", final=True) from None
        except (smtplib.SMTPException, OSError) as error:
            raise NotifyError(f"SMTP {self._host}:{self._port}: {' '.join(str(error).split())[:200]}") from None

    def _mail(self, notice: Notice) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._recipients)
        text = " ".join(notice.text.split())
        mail["Subject"] = text[:MAX_SUBJECT]
        mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
        # The same for the same notice, so that a mail program shows one that was sent twice once.
        mail["Message-ID"] = f"<{notice.key}@rtb.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        when = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="seconds")
        fields = msgspec.to_builtins(notice)
        lines = [f"{name}: {value}" for name, value in fields.items() if value not in ("", None) and name != "text"]
        mail.set_content("\n".join([text, f"{_END.get(notice.state, notice.state)} at {when}", "", *lines, ""]))
        return mail

    def _send(self, mail: EmailMessage) -> None:
        if self._security == "tls":
            context = self._context or ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout_s, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)
        with server:
            if self._security == "starttls":
                server.starttls(context=self._context or ssl.create_default_context())
            if self._username:
                server.login(self._username, self._password)
            server.send_message(mail)


def _said(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return " ".join((text.decode(errors="replace") if isinstance(text, bytes) else text).split())[:200]


def _codes(codes: Sequence[int]) -> str:
    return ", ".join(str(code) for code in sorted(set(codes)))
