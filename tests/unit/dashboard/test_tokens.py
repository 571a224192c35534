"""The token file, tokens and sessions."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from dashboard.tokens import Identity, Pass, Role, Tokens, add_token, token_file
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_state import MemoryState
from rtb.errors import ConfigError

KEY = bytes(32)
ADA = Identity("ada", Role.OPERATOR)


def whose(found: Pass | None) -> Identity | None:
    """Who is let in."""
    return None if found is None else found.identity


def tokens(**hashes: str) -> Tokens:
    """Operators by name, each with this token."""
    return Tokens({n: (Role.OPERATOR, hashlib.sha256(t.encode()).hexdigest()) for n, t in hashes.items()}, KEY)


def test_the_first_start_makes_an_operator(tmp_path: Path) -> None:
    """Its token is told once; the file has only the hash, and only its owner can read it."""
    path = tmp_path / "var" / "tokens"
    found, told = token_file(path)
    assert whose(found.identify(told)) == Identity("admin", Role.OPERATOR)
    assert path.stat().st_mode & 0o777 == 0o600
    assert told not in path.read_text()
    assert len(told) >= 43  # 256 bits in base 64
    again, nothing = token_file(path)
    assert (whose(again.identify(told)), nothing) == (Identity("admin", Role.OPERATOR), "")


def test_tokens_are_added_and_taken_back(tmp_path: Path) -> None:
    """A name has one; without its line a token, and every session that began with it, is nobody's."""
    path = tmp_path / "tokens"
    token_file(path)
    token = add_token(path, Role.VIEWER, "wall-screen")
    found, _ = token_file(path)
    wall = Identity("wall-screen", Role.VIEWER)
    assert whose(found.identify(token)) == wall
    session = found.session(wall, 1_000)
    assert whose(token_file(path)[0].resume(session, 999.9)) == wall
    with pytest.raises(ConfigError, match="there is another 'wall-screen'"):
        add_token(path, Role.VIEWER, "wall-screen")
    with pytest.raises(ConfigError, match="use up to 64 letters"):
        add_token(path, Role.VIEWER, "a b")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "wall" not in line))
    found, _ = token_file(path)
    assert (found.identify(token), found.resume(session, 0)) == (None, None)


def test_only_the_very_token_is_believed() -> None:
    """Not its hash, nor parts of it, nor nothing."""
    found = tokens(ada="secret")
    assert whose(found.identify("secret")) == ADA
    for wrong in ("", "secre", "secrets", "Secret", hashlib.sha256(b"secret").hexdigest(), "\ud800"):
        assert found.identify(wrong) is None


def test_sessions_end() -> None:
    """At their time, with another key, another token, another role; and nobody makes or changes one."""
    found = tokens(ada="secret", bob="other")
    session = found.session(ADA, 1_000)
    assert whose(found.resume(session, 999.9)) == ADA
    assert found.resume(session, 1_000) is None
    assert tokens(ada="changed").resume(session, 0) is None
    digest = hashlib.sha256(b"secret").hexdigest()
    assert Tokens({"ada": (Role.VIEWER, digest)}, KEY).resume(session, 0) is None
    assert Tokens({"ada": (Role.OPERATOR, digest)}, b"x" * 32).resume(session, 0) is None
    _, _, own, sign = session.split(":")
    for forged in (
        "",
        "ada",
        f"bob:1000:{own}:{sign}",
        f"ada:9999:{own}:{sign}",
        f"ada:1000:{own}",
        f"ada:1000:{own}:",
        f"ada:1000:{own[1:]}:{sign}",
        f"ada:-1:{own}:{sign}",
        f"ada:1000:{own}:{sign}x",
    ):
        assert found.resume(forged, 0) is None


def test_a_session_that_was_left_stays_over() -> None:
    """That one alone: another of the same person, begun in the same second, goes on. Who was let in with it may not
    stay, at once; nor beyond its end."""
    found = tokens(ada="secret")
    left, other = found.session(ADA, 1_000), found.session(ADA, 1_000)
    passed, stays = found.resume(left, 10), found.resume(other, 10)
    assert passed is not None
    assert stays is not None
    found.end(f"{left}x", 10)
    assert found.stands(passed, 10)
    found.end(left, 10)
    assert (found.resume(left, 10), found.stands(passed, 10)) == (None, False)
    assert (found.resume(other, 10), found.stands(stays, 10)) == (stays, True)
    assert (found.stands(stays, 999.9), found.stands(stays, 1_000)) == (True, False)


def test_a_session_that_was_left_is_over_for_all_daemons(tmp_path: Path) -> None:
    """They know as soon as they look, and after a restart, too; other sessions go on, and what would have ended is
    forgotten. Nobody else can read which they are."""
    path = tmp_path / "tokens"
    one, told = token_file(path)
    admin = one.identify(told)
    assert admin is not None
    another, _ = token_file(path)
    left, later, goes_on = (one.session(admin.identity, expires) for expires in (1_000, 2_000, 3_000))
    passed = another.resume(left, 10)
    assert passed is not None
    one.end(left, 10)
    another.refresh()
    assert (another.stands(passed, 10), another.resume(left, 10)) == (False, None)
    restarted, _ = token_file(path)
    assert restarted.resume(left, 10) is None
    another.end(later, 1_500)
    one.refresh()
    assert (one.resume(later, 1_500), whose(one.resume(goes_on, 1_500))) == (None, admin.identity)
    ended = tmp_path / "tokens.ended"
    assert (len(ended.read_text().splitlines()), ended.stat().st_mode & 0o777) == (1, 0o600)


async def test_copies_of_the_file_share_who_left_through_the_store(tmp_path: Path) -> None:
    """As soon as both have met it. A store that was emptied is told again of what is not over by itself: also by a
    daemon that knew it from the store alone, and by one that was restarted."""
    made, told = token_file(tmp_path / "tokens")
    admin = made.identify(told)
    assert admin is not None
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "tokens", tmp_path / "elsewhere" / "tokens")
    copy, _ = token_file(tmp_path / "elsewhere" / "tokens")
    left, goes_on = made.session(admin.identity, 1_000), made.session(admin.identity, 1_000)
    store = MemoryState(ManualClock())
    made.end(left, 10)
    await copy.meet(store, 10)
    assert copy.resume(left, 10) is not None
    await made.meet(store, 10)
    await copy.meet(store, 10)
    assert (copy.resume(left, 10), whose(copy.resume(goes_on, 10))) == (None, admin.identity)
    restarted, _ = token_file(tmp_path / "tokens")
    for daemon in (copy, restarted):
        emptied, later = MemoryState(ManualClock()), MemoryState(ManualClock())
        await daemon.meet(emptied, 999)
        assert (daemon.resume(left, 10), len(await emptied.ended_sessions())) == (None, 1)
        await daemon.meet(later, 1_000)
        assert await later.ended_sessions() == {}


def test_a_session_ends_where_nothing_can_be_written(tmp_path: Path) -> None:
    """For the daemon that was told, at least; lines that are none are passed over."""
    path = tmp_path / "tokens"
    found, told = token_file(path)
    admin = found.identify(told)
    assert admin is not None
    session = found.session(admin.identity, 1_000)
    (tmp_path / "tokens.ended.lock").mkdir()
    (tmp_path / "tokens.ended").write_text("what?\n\n")
    found.refresh()
    found.end(session, 10)
    assert found.resume(session, 10) is None


def test_a_changed_file_is_known_without_a_restart(tmp_path: Path) -> None:
    """A new token opens, one taken back stands no longer, nor do its sessions; a line that makes no sense changes
    nothing; another session key ends all sessions and no token."""
    path = tmp_path / "tokens"
    found, told = token_file(path)
    admin = found.identify(told)
    assert admin is not None
    session = found.resume(found.session(admin.identity, 1_000), 0)
    assert session is not None
    wall = add_token(path, Role.VIEWER, "wall-screen")
    assert found.identify(wall) is None
    found.refresh()
    passed = found.identify(wall)
    assert passed is not None
    lines = path.read_text().splitlines(True)
    path.write_text("".join(lines) + "admin ada\n")
    found.refresh()
    assert (found.stands(passed, 0), found.stands(session, 0)) == (True, True)
    path.write_text("".join(line for line in lines if "wall" not in line))
    found.refresh()
    assert (found.stands(passed, 0), found.identify(wall), found.stands(session, 0)) == (False, None, True)
    path.write_text(f"session {'ab' * 32}\n" + "".join(line for line in lines if "admin" in line))
    found.refresh()
    assert (found.stands(session, 0), found.stands(admin, 0)) == (False, True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 'a line "session" with 64 hex digits is missing'),
        ("operator ada", 'line 1: write "viewer NAME SHA256"'),
        (f"admin ada {'0' * 64}", "line 1: write"),
        (f"viewer ada {'0' * 64}\n# second\nviewer ada {'1' * 64}", "line 3: there is another 'ada'"),
        ("session beef", "line 1: write"),
        ("sessión", "not a text of ASCII characters"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str, line: str) -> None:
    """With the line and what to write instead."""
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^dashboard\.token_file: ") as caught:
        token_file(path)
    assert line in str(caught.value)


def test_a_file_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    """One line, with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^dashboard\.token_file: cannot use .*file/tokens: File exists$"):
        token_file(tmp_path / "file" / "tokens")
