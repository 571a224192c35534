"""The page's files over a real server: compressed, kept for ever under their version, asked for again without."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from dashboard.files import ASK_AGAIN, KEEP, Files

BODY = "export const words = 'the same again, ';\n" * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "words.js").write_text(BODY)
    (tmp_path / "lib" / "words.d.ts").write_text("// of words")
    (tmp_path / ".lock").write_text("secret")
    (tmp_path / "lib" / "more.js").write_text("// more\n")
    (tmp_path / "index.html").write_text('<script type="module" src="/web/lib/words.js"></script>')
    (tmp_path / "both.html").write_text('<script src="/web/lib/words.js+lib/more.js"></script>')
    return tmp_path


@pytest.fixture
async def session(folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application()
    files = Files(folder)
    files.add_routes(app)

    async def index(request: web.Request) -> web.Response:
        return files.answer(request, "index.html")

    app.router.add_get("/", index)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(base, auto_decompress=False) as session:
        yield session
    await runner.cleanup()


async def get(session: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    async with session.get(
        path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ) as response:
        return response.status, response.headers, await response.read()


async def test_the_page_names_its_files_with_their_version(folder: Path, session: aiohttp.ClientSession) -> None:
    """Under which a browser keeps them for ever; another content has another version."""
    version = Files(folder).version
    _, headers, body = await get(session, "/", Accept_Encoding="identity")
    assert body.decode() == f'<script type="module" src="/web/{version}/lib/words.js"></script>'
    assert headers["Cache-Control"] == ASK_AGAIN
    status, headers, body = await get(session, f"/web/{version}/lib/words.js", Accept_Encoding="identity")
    assert (status, body.decode(), headers["Cache-Control"]) == (200, BODY, KEEP)
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    (folder / "lib" / "words.js").write_text(BODY + " ")
    assert Files(folder).version != version


async def test_an_old_page_gets_the_present_files(session: aiohttp.ClientSession) -> None:
    """Which it does not keep under the old version."""
    status, headers, body = await get(session, "/web/0123456789abcdef/lib/words.js", Accept_Encoding="identity")
    assert (status, body.decode(), headers["Cache-Control"]) == (200, BODY, ASK_AGAIN)


async def test_files_that_a_page_names_in_one_are_one(folder: Path, session: aiohttp.ClientSession) -> None:
    """One after the other; others, whoever asks, are not put together."""
    version = Files(folder).version
    status, headers, body = await get(session, f"/web/{version}/lib/words.js+lib/more.js", Accept_Encoding="identity")
    assert (status, body.decode(), headers["Cache-Control"]) == (200, BODY + "// more\n", KEEP)
    assert (await get(session, f"/web/{version}/lib/more.js+lib/words.js"))[0] == 404


async def test_who_takes_gzip_gets_it(session: aiohttp.ClientSession) -> None:
    """And it is the same; a cache is told that there are two."""
    _, headers, body = await get(session, "/web/lib/words.js", Accept_Encoding="gzip, br")
    assert (headers["Content-Encoding"], headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(body).decode() == BODY
    assert len(body) < len(BODY) / 5


async def test_what_has_not_changed_is_not_sent_again(session: aiohttp.ClientSession) -> None:
    """A browser that has it is told so."""
    _, headers, _ = await get(session, "/web/lib/words.js")
    status, again, body = await get(session, "/web/lib/words.js", If_None_Match=headers["ETag"])
    assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
    assert (await get(session, "/web/lib/words.js", If_None_Match='"another"'))[0] == 200


@pytest.mark.parametrize("path", ["/web/.lock", "/web/lib/words.d.ts", "/web/lib", "/web/", "/web/x/.lock"])
async def test_other_files_are_not_there(session: aiohttp.ClientSession, path: str) -> None:
    """What begins with a dot, what only checks need, folders."""
    assert (await get(session, path))[0] == 404
