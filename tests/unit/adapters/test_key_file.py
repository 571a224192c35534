"""The secrets of tracking URLs on disk."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rtb.adapters.key_file import key_file
from rtb.errors import ConfigError


def test_a_missing_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The second start reads what the first one made; several at once agree."""
    path = tmp_path / "var" / "tracking.keys"
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: key_file(path), range(8)))
    assert all(one == found[0] for one in found)
    keys, identity = found[0]
    assert (keys.current, len(keys.secrets[1]), len(identity)) == (1, 32, 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["tracking.keys"]


def test_the_first_key_signs_and_the_others_are_believed(tmp_path: Path) -> None:
    """Comments and empty lines are left out."""
    path = tmp_path / "keys"
    path.write_text(f"# ours\nidentity {'ab' * 16}\n\n7 {'01' * 16}\n2 {'02' * 16}\n")
    keys, identity = key_file(path)
    assert keys.current == 7
    assert keys.secrets == {7: b"\x01" * 16, 2: b"\x02" * 16}
    assert identity == b"\xab" * 16


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it needs an identity and a key"),
        (f"identity {'ab' * 16}\n", "it needs an identity and a key"),
        (f"identity {'ab' * 16}\none {'01' * 16}\n", "line 2"),
        (f"identity {'ab' * 16}\n1 xyz\n", "line 2"),
        (f"identity {'ab' * 16}\n1 0102\n", "the secret of key 1 is shorter than 16 bytes"),
        (f"identity {'ab' * 16}\n300 {'01' * 16}\n", "key id 300 is not between 1 and 255"),
        ("identity ümlaut", "not a text of ASCII characters"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    """The error names the setting, the file and what is wrong."""
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        key_file(path)
    assert str(refused.value).startswith("tracking.key_file: ")
    assert str(path) in str(refused.value)
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "var").write_text("")
    with pytest.raises(ConfigError, match=r"tracking\.key_file: cannot use"):
        key_file(tmp_path / "var" / "keys")
