"""How long the parts of a stopping daemon may take."""

from __future__ import annotations

from rtb.daemon import Patience


def test_the_parts_share_one_limit_and_each_has_a_fifth() -> None:
    """Of 10 s, counted from the first part on, 3 s are gone, so 7 s are left; after 9 s and after 60 s it is 2 s."""
    now = 1_000.0
    patience = Patience(10.0, lambda: now)
    now = 2_000.0  # the daemon has run for a while
    left = [patience.left_s]
    for passed in (3.0, 9.0, 60.0):
        now = 2_000.0 + passed
        left.append(patience.left_s)
    assert left == [10.0, 7.0, 2.0, 2.0]
