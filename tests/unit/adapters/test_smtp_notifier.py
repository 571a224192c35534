"""Alerts by e-mail, to a real server on this machine."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rtb.adapters.smtp_notifier import SmtpNotifier
from rtb.ports.notifier import Notice, NotifyError
from tests.support.smtp import SmtpServer

NOTICE = Notice(
    key="k-1",
    rule_id="slow",
    name="느림",
    state="firing",
    severity="critical",
    campaign_id="c",
    metric="ctr",
    condition="less_than",
    threshold=0.1,
    value=0.05,
    at=1_767_225_600.0,
    began=1_767_225_600.0,
    instance="a",
    text="[critical] 느림 firing: ctr of campaign c\nBcc: everybody@x.test",
)


def notifier(server: SmtpServer, **options: Any) -> SmtpNotifier:
    """Of two people, without TLS unless told otherwise."""
    to = ["ops@x.test", "oncall@x.test"]
    return SmtpNotifier("mail", "localhost", server.port, "rtb@x.test", to, **{"security": "none", **options})


async def test_a_mail_says_it_all() -> None:
    """To everybody, in UTF-8, with the moment it happened as its date and an id that a repetition shares."""
    async with SmtpServer() as server:
        await notifier(server).notify(NOTICE)
        await notifier(server).notify(NOTICE)
    first, second = server.mails
    assert (first.sender, first.recipients) == ("rtb@x.test", ["ops@x.test", "oncall@x.test"])
    assert first.message["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert first.message["Message-ID"] == second.message["Message-ID"]
    assert first.message["Auto-Submitted"] == "auto-generated"
    text = first.message.get_content().replace("\r\n", "\n")
    assert "began at 2026-01-01T00:00:00+00:00" in text
    assert "metric: ctr\n" in text
    assert "Bcc" in text.splitlines()[0]
    assert "value: 0.05\n" in text


async def test_a_name_adds_no_header() -> None:
    """A line break in a campaign's name stays in the subject, as a space."""
    async with SmtpServer() as server:
        await notifier(server).notify(NOTICE)
    message = server.mails[0].message
    assert message["Subject"] == "[critical] 느림 firing: ctr of campaign c Bcc: everybody@x.test"
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    ("command", "reply", "final", "line"),
    [
        ("DATA", "451 4.3.0 try\tlater", False, "SMTP 451: 4.3.0 try later"),
        ("DATA", "554 5.7.1 spam", True, "SMTP 554: 5.7.1 spam"),
        ("MAIL", "550 no", True, "SMTP 550: no"),
        ("RCPT", "450 busy", False, "recipients refused (450)"),
        ("RCPT", "550 unknown", True, "recipients refused (550)"),
        ("EHLO", "421 full", False, "SMTP 421: full"),
    ],
)
async def test_what_may_be_tried_again(command: str, reply: str, final: bool, line: str) -> None:
    """Replies of 4xx, not those of 5xx [RFC 5321 4.2.1]."""
    async with SmtpServer() as server:
        server.replies[command] = reply
        if command == "EHLO":
            server.replies["HELO"] = reply
        with pytest.raises(NotifyError) as caught:
            await notifier(server).notify(NOTICE)
    assert (caught.value.final, str(caught.value)) == (final, line)
    assert server.mails == []


async def test_a_server_that_is_away_may_come_back() -> None:
    """Nobody listens on the port."""
    async with SmtpServer() as server:
        gone = notifier(server)
    with pytest.raises(NotifyError, match=r"^SMTP localhost:") as caught:
        await gone.notify(replace(NOTICE))
    assert not caught.value.final


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `cert` and `key`, signed by themselves, for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and it is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key", "-out", "cert"]
    subprocess.run([*command.split(), *files], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_the_password_travels_only_in_tls(certificate: Path, security: str) -> None:
    """By STARTTLS or from the start, to a server whose certificate is checked."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate / "cert", certificate / "key")
    trusting = ssl.create_default_context(cafile=str(certificate / "cert"))
    options: dict[str, Any] = {"security": security, "username": "rtb", "password": "pw"}
    async with SmtpServer(ours, implicit=security == "tls") as server:
        await notifier(server, **options, context=trusting).notify(NOTICE)
        assert (server.mails[0].secure, server.mails[0].login) == (True, "\0rtb\0pw")
        with pytest.raises(NotifyError, match=r"(?i)certificate"):
            await notifier(server, **options).notify(NOTICE)
        assert len(server.mails) == 1


async def test_a_server_without_tls_gets_no_password() -> None:
    """STARTTLS is asked for and not offered: nothing is sent. Without TLS a login is refused at once."""
    async with SmtpServer() as server:
        with pytest.raises(NotifyError, match="STARTTLS") as caught:
            await notifier(server, security="starttls", username="rtb", password="pw").notify(NOTICE)
        assert caught.value.final
        assert server.mails == []
        with pytest.raises(ValueError, match="in the clear"):
            notifier(server, username="rtb", password="pw")
