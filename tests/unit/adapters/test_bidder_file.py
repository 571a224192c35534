"""The file of remote bidders: what it says, what is wrong with it, and who is switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtb.adapters.bidder_file import BidderFile
from rtb.errors import ConfigError, NotFound

TWO = """
[[bidder]]
name = "acme"
url = "https://rtb.acme.example/bid"
media = ["banner"]

[[bidder]]
name = "best"
url = "https://best.example/bid"
enabled = false
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two bidders, the second not enabled."""
    path = tmp_path / "bidders.toml"
    path.write_text(TWO)
    return path


def test_the_bidders_in_the_order_of_the_file(path: Path) -> None:
    """With what they leave out at its default."""
    acme, best = BidderFile(path).read()
    assert (acme.name, acme.media, acme.enabled, acme.version) == ("acme", ("banner",), True, "2.6")
    assert (best.name, best.enabled) == ("best", False)


def test_the_example_is_right() -> None:
    """What people copy works."""
    [acme] = BidderFile(Path("config/bidders.example.toml")).read()
    assert (acme.name, acme.adjustment) == ("acme", 0.9)


def test_a_change_is_seen(path: Path) -> None:
    """Of the file, and of who is switched off; reading is what makes it known."""
    file = BidderFile(path)
    assert file.changed()
    file.read()
    assert not file.changed()
    path.write_text(TWO + "\n")
    assert file.changed()
    file.read()
    file.switch("acme", enabled=False)
    assert file.changed()


def test_who_is_switched_off_stays_so_for_every_daemon(path: Path) -> None:
    """Until it is switched on; the file itself is not touched."""
    BidderFile(path).switch("acme", enabled=False)
    assert [one.enabled for one in BidderFile(path).read()] == [False, False]
    assert path.read_text() == TWO
    BidderFile(path).switch("acme", enabled=True)
    assert [one.enabled for one in BidderFile(path).read()] == [True, False]


def test_nobody_is_switched_who_is_not_there(path: Path) -> None:
    """The error says who is."""
    with pytest.raises(NotFound, match=r"bidder 'acne': unknown; .*bidders\.toml has acme, best"):
        BidderFile(path).switch("acne", enabled=False)


def test_the_file_has_the_last_word_on_who_is_not_enabled(path: Path) -> None:
    """Switching on would change nothing: the error says why."""
    with pytest.raises(ConfigError, match=r"bidder best: .* says enabled = false; take that out"):
        BidderFile(path).switch("best", enabled=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[bidder]", "not TOML"),
        ("[bidder]\nname = 'a'", "bidder: write each bidder as a table"),
        ("[[bidders]]\nname = 'a'", "bidders: write each bidder as a table"),
        ("[[bidder]]\nname = 'a'", "bidder a: object missing required field `url`"),
        ("[[bidder]]\nname = 'A!'\nurl = 'http://x'", "bidder A!: name: expected `str` matching regex"),
        ("[[bidder]]\nname = 'a'\nurl = 'http://x'\nqps = -1", "bidder a: qps: expected `float` >= 0.0"),
        ("[[bidder]]\nname = 'a'\nurl = 'http://x'\nspeed = 1", "bidder a: object contains unknown field `speed`"),
        ("[[bidder]]\nurl = 'http://x'", "bidder number 1: object missing required field `name`"),
    ],
)
def test_what_is_wrong_is_named(path: Path, text: str, says: str) -> None:
    """File, bidder and key on one line."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        BidderFile(path).read()
    assert says in str(caught.value)
    assert "bidders.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """It is a setting that points nowhere."""
    with pytest.raises(ConfigError, match=r"bidders\.file: .*nowhere\.toml: no such file"):
        BidderFile(tmp_path / "nowhere.toml").read()
