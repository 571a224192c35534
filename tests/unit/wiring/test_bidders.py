"""Remote bidders are changed as a whole, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from rtb.adapters.clock import ManualClock
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.money import Rates
from rtb.errors import ConfigError
from rtb.wiring.bidders import RemoteBidders


def settings(name: str, **fields: Any) -> BidderSettings:
    """A bidder."""
    return BidderSettings(**{"name": name, "url": f"https://{name}.test/bid", **fields})


def remotes() -> RemoteBidders:
    """None yet; the environment has one variable."""
    return RemoteBidders(ManualClock(), Rates(), {"KEY": "secret"})


async def test_what_is_not_changed_stays_as_it_is() -> None:
    """Its connections and its health; what is new comes, what is gone or disabled goes, in the order of settings."""
    bidders = remotes()
    a, b = bidders.apply([settings("a"), settings("b")])
    assert [bidder.name for bidder in bidders.bidders] == ["a", "b"]
    changed = bidders.apply([settings("c"), settings("b", qps=10.0), settings("a")])
    assert [bidder.name for bidder in changed] == ["c", "b", "a"]
    assert changed[2] is a
    assert changed[1] is not b
    assert (a.endpoint.pool.is_over, b.endpoint.pool.is_over) == (False, True)
    assert [bidder.name for bidder in bidders.apply([settings("a", enabled=False), settings("b", qps=10.0)])] == ["b"]
    assert bidders.bidders[0] is changed[1]
    await bidders.close()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([settings("x", url="ftp://x.test")], "bidder x: .*http or https"),
        ([settings("x", url="https://10.0.0.1/")], "bidder x: .*not a public address"),
        (
            [settings("x", headers={"auth": "env:NONE"})],
            "bidder x: headers.auth: the environment has no variable NONE; export it",
        ),
        ([settings("x", headers={"a b": "c"})], "bidder x: header 'a b' cannot be sent"),
        ([settings("x"), settings("x")], "bidder x: this name is taken"),
        ([settings("house")], "bidder house: this name is taken"),
    ],
)
async def test_a_bad_change_is_refused_and_the_old_bidders_stay(wrong: list[BidderSettings], why: str) -> None:
    """All of them, whatever else the change had; the line names bidder and setting."""
    bidders = remotes()
    before = bidders.apply([settings("a")])
    with pytest.raises(ConfigError, match=why):
        bidders.apply([settings("b"), *wrong])
    assert bidders.bidders == before
    assert not before[0].endpoint.pool.is_over
    await bidders.close()


async def test_headers_come_from_settings_and_environment() -> None:
    """With those that the protocol asks for; a configured one has the last word."""
    bidders = remotes()
    (bidder,) = bidders.apply(
        [
            settings(
                "a", version="2.5", gzip=True, accept_gzip=False, headers={"X-Key": "env:KEY", "Content-Type": "x/y"}
            )
        ]
    )
    assert bidder.endpoint.head == (
        b"POST /bid HTTP/1.1\r\nhost: a.test\r\nx-openrtb-version: 2.5\r\naccept-encoding: identity\r\n"
        b"content-encoding: gzip\r\nx-key: secret\r\ncontent-type: x/y\r\ncontent-length: "
    )
    await bidders.close()
