"""The page's files, read once and kept compressed, so that a browser has them all in a few milliseconds.

They are served twice: as ``/web/NAME``, which a browser asks for again each time (the answer is then 304), and as
``/web/VERSION/NAME`` with the version of all files together in the path, which it keeps for ever. The page names the
latter; its modules name each other relative to themselves, so that they stay in one version.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from aiohttp import web
from msgspec import Struct

KEEP = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_FOLDER = "/web/"
_JOINED = re.compile(rb'"/web/([^"]+[+][^"]+)"')
_SMALL = 256
"""Bytes below which compressing gains nothing."""
_GZIP = 31
"""Of zlib: the largest window, with the header and trailer of gzip."""


class File(Struct, frozen=True):
    """As it is, compressed (empty where that gains nothing), and the tag that changes with it."""

    body: bytes
    gzipped: bytes
    content_type: str
    etag: str


class Files:
    """Every file below a folder but those whose names begin with a dot, and declarations of types."""

    def __init__(self, folder: Path) -> None:
        """Read them."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        paths = [path for path in paths if not path.name.endswith(".d.ts")]
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.version = _digest(*(part for name, body in found.items() for part in (name.encode(), body)))
        """Of all of them together."""
        for name, body in list(found.items()):
            if name.endswith(".html"):
                for joined in _JOINED.findall(body):
                    found[joined.decode()] = b"".join(found.get(part, b"") for part in joined.decode().split("+"))
                found[name] = self._pointed(body)
        self._files: Mapping[str, File] = {name: _file(name, body) for name, body in found.items()}

    def add_routes(self, app: web.Application) -> None:
        """``GET /web/...``."""
        app.router.add_get(_FOLDER + "{name:.*}", self._serve)

    def answer(self, request: web.Request, name: str, keep: str = ASK_AGAIN) -> web.Response:
        """The file, as the browser wants it. Raises HTTPNotFound."""
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": keep, "ETag": file.etag, "Vary": "Accept-Encoding"}
        if file.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        body = file.body
        if file.gzipped and "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], body = "gzip", file.gzipped
        return web.Response(body=body, headers=headers, content_type=file.content_type, charset=_charset(file))

    async def _serve(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        version, _, rest = name.partition("/")
        if version == self.version:
            return self.answer(request, rest, KEEP)
        # A page that was opened before an update asks for its own version: the present file is better than none.
        return self.answer(request, name if name in self._files else rest)

    def _pointed(self, body: bytes) -> bytes:
        """The page, with the version in the addresses of its files."""
        return body.replace(f'"{_FOLDER}'.encode(), f'"{_FOLDER}{self.version}/'.encode())


def _file(name: str, body: bytes) -> File:
    kind = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return File(body, _gzip(body) if len(body) > _SMALL else b"", kind, f'"{_digest(body)}"')


@lru_cache(maxsize=256)
def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _charset(file: File) -> str | None:
    return "utf-8" if file.content_type.startswith("text/") else None
