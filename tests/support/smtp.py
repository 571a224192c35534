"""A mail server that keeps what it gets, speaks TLS when asked to, and refuses as it is told.

async with SmtpServer() as server:
    server.replies["DATA"] = "451 try later"       the answer to a command, instead of the usual
    ...
    server.mails[0].subject, .recipients
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType

from msgspec import Struct


class Mail(Struct, frozen=True):
    """A message as it came."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    secure: bool
    login: str


class SmtpServer:
    """Listens on a free port of 127.0.0.1; with `tls` it offers STARTTLS, or, `implicit`, speaks TLS from the start."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, implicit: bool = False) -> None:
        self.tls = tls
        self.implicit = implicit
        self.replies: dict[str, str] = {}
        self.mails: list[Mail] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> SmtpServer:
        context = self.tls if self.implicit else None
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, recipients, login, secure = "", list[str](), "", self.implicit
        writer.write(b"220 mail.test ESMTP\r\n")
        while line := await reader.readline():
            command, _, rest = line.decode().strip().partition(" ")
            command = command.upper()
            reply = self.replies.get(command, "250 ok")
            fine = reply.startswith(("2", "3"))
            if command == "EHLO" and fine:
                extensions = "\r\n250-STARTTLS" if self.tls and not secure else ""
                reply = f"250-mail.test{extensions}\r\n250 AUTH PLAIN"
            elif command == "STARTTLS" and fine:
                writer.write(b"220 go on\r\n")
                await writer.start_tls(self.tls)  # type: ignore[arg-type]
                secure = True
                continue
            elif command == "AUTH" and fine:
                login, reply = base64.b64decode(rest.split()[1]).decode(), "235 welcome"
            elif command == "MAIL" and fine:
                sender = rest.partition(":")[2].split()[0].strip("<>")
            elif command == "RCPT" and fine:
                recipients.append(rest.partition(":")[2].split()[0].strip("<>"))
            elif command == "DATA" and fine:
                writer.write(b"354 go on\r\n")
                raw = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                message = message_from_bytes(raw, policy=policy.default)
                assert isinstance(message, EmailMessage)
                self.mails.append(Mail(sender, recipients, message, secure, login))
            elif command == "QUIT":
                reply = "221 bye"
            writer.write(f"{reply}\r\n".encode())
            await writer.drain()
