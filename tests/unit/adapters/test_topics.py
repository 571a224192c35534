"""rtb.adapters.topics against the definition of topic matching, spelled out recursively."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.adapters.topics import CACHED_KEYS, Bindings, matches
from rtb.ports import ExchangeType


def naive(pattern: list[str], words: list[str]) -> bool:
    """AMQP 0-9-1 3.1.3.3: ``*`` is exactly one word, ``#`` zero or more, anything else itself."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return naive(pattern[1:], words) or (bool(words) and naive(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and naive(pattern[1:], words[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6),
    st.lists(st.sampled_from(["a", "b", ""]), max_size=6),
)
def test_matching_agrees_with_the_definition(pattern: list[str], words: list[str]) -> None:
    """For every pattern and key, empty words included."""
    expected = naive(pattern if pattern != [""] else [], words if words != [""] else [])
    assert matches(".".join(pattern), ".".join(words)) is expected


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("#", "", True),
        ("*", "", False),
        ("", "", True),
        ("event.*", "event.click", True),
        ("event.*", "event", False),
        ("event.*", "event.click.late", False),
        ("event.#", "event", True),
        ("#.late", "event.click.late", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("a.#.b", "a.x.y.c", False),
        ("stock.*", "stock.*", True),
        ("event.click", "event.clicks", False),
    ],
)
def test_patterns(pattern: str, key: str, fits: bool) -> None:
    """The cases one meets."""
    assert matches(pattern, key) is fits


def test_many_hashes_are_no_trap() -> None:
    """Matching does not backtrack: a hostile pattern costs words x words, not an exponential."""
    assert not matches(".".join(["#", "a"] * 60), ".".join(["a"] * 59 + ["b"] * 60))


def test_a_key_is_routed_anew_after_a_change() -> None:
    """The cache of routes does not outlive a binding added or a queue removed."""
    bindings: Bindings[str] = Bindings(ExchangeType.TOPIC)
    bindings.add("a.*", "q1")
    assert list(bindings.route("a.b")) == ["q1"]
    bindings.add("#", "q2")
    assert list(bindings.route("a.b")) == ["q1", "q2"]
    bindings.remove("q1")
    assert list(bindings.route("a.b")) == ["q2"]


def test_the_cache_of_routes_is_bounded() -> None:
    """Keys made of ids do not fill the memory."""
    bindings: Bindings[str] = Bindings(ExchangeType.TOPIC)
    bindings.add("#", "q")
    for n in range(2 * CACHED_KEYS + 5):
        assert list(bindings.route(f"user.{n}")) == ["q"]
    assert len(bindings._cache) <= CACHED_KEYS
