"""Which addresses a daemon connects to when somebody else chose the URL."""

from __future__ import annotations

import pytest

from rtb.adapters.address_policy import AddressPolicy
from rtb.errors import ConfigError


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",  # RFC 6598, carrier-grade NAT
        "100.100.100.200",  # Alibaba's metadata
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",  # Azure's wire server
        "169.254.169.254",  # metadata of AWS, GCP, Azure
        "172.16.0.1",
        "192.0.0.192",  # Oracle's metadata
        "192.168.1.1",
        "198.18.0.1",  # RFC 2544, benchmarks
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",  # 127.0.0.1 through NAT64
        "64:ff9b:1::1",
        "2002:7f00:1::",  # 127.0.0.1 through 6to4
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # 127.0.0.1 through Teredo
        "fc00::1",
        "fd00:ec2::254",  # AWS's metadata
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "not an address",
        "127.1",
        "2130706433",
        "",
    ],
)
def test_what_is_not_public_is_refused(address: str) -> None:
    """Private, loopback, link-local, multicast, CGNAT, reserved, metadata, and what only dresses them up."""
    policy = AddressPolicy()
    assert policy.refuses(address, address)
    assert policy.refuses("dsp.test", address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "169.253.1.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_what_is_public_is_not(address: str) -> None:
    """Neighbours of the refused networks among them, and 8.8.8.8 as a network without IPv4 sees it."""
    assert not AddressPolicy().refuses("dsp.test", address)


def test_the_allow_list_names_networks_addresses_and_hosts() -> None:
    """Each lets through what it names and nothing beside it; IPv4 in IPv6 clothes counts as itself."""
    policy = AddressPolicy(["127.0.0.0/8", "10.1.2.3", "fd12::/16", "bidder.internal"])
    assert not policy.refuses("127.0.0.1", "127.0.0.1")
    assert not policy.refuses("x.test", "::ffff:127.0.0.1")
    assert not policy.refuses("x.test", "10.1.2.3")
    assert not policy.refuses("x.test", "fd12::5")
    assert not policy.refuses("Bidder.Internal.", "192.168.0.9")
    assert policy.refuses("x.test", "10.1.2.4")
    assert policy.refuses("x.test", "fd13::5")
    assert policy.refuses("other.internal", "192.168.0.9")
    assert policy.refuses("evil.bidder.internal", "192.168.0.9")


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "http://x", "host:80", "*.test", "10.0.0", "a b"])
def test_a_malformed_entry_names_itself(entry: str) -> None:
    """A typing error in the allow list is found at the start."""
    with pytest.raises(ConfigError, match="is not a host, an IP address or a network"):
        AddressPolicy([entry])
