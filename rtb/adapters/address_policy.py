"""Where this daemon may connect to when somebody else chose the URL: public addresses, and what is allowed by name.

Bidders name the servers of their notices. Without this, a notice could be aimed at the cloud's metadata service, the
broker's management API, or anything else that trusts its neighbours (server-side request forgery).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from rtb.domain.remembered import Remembered
from rtb.errors import ConfigError

MOST_VERDICTS = 4_096

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REFUSED = tuple(
    ip_network(text)
    for text in (
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "168.63.129.16/32",  # Azure's wire server: a public address that answers from inside
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "3fff::/20",  # documentation
        "64:ff9b:1::/48",  # local NAT64: whatever the network makes of it
        "fec0::/10",  # site-local, deprecated
    )
)
"""Besides what ipaddress knows as private, loopback, link-local, multicast, reserved or unspecified."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""Where an IPv6 network without IPv4 puts all of it: as public as the address within."""
_COMPATIBLE = IPv6Network("::/96")


class AddressPolicy:
    """Says which addresses are refused."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        """Let through, besides public addresses, these hosts, addresses and networks: ``localhost``, ``10.1.0.0/16``.

        Raises:
            ConfigError: an entry is none of these.
        """
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        self._verdicts = Remembered(self._judge, MOST_VERDICTS)
        for entry in allow:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                if not entry or any(mark in entry for mark in "/:@* ") or entry.replace(".", "").isdigit():
                    raise ConfigError(
                        f"{entry!r} is not a host, an IP address or a network such as 10.0.0.0/8"
                    ) from None
                self._hosts.add(entry.lower().rstrip("."))

    def refuses(self, host: str, address: str) -> bool:
        """Whether not to connect to `address`, to which `host` leads: a name, or the address itself."""
        return self._verdicts[host, address]

    def _judge(self, key: tuple[str, str]) -> bool:
        host, address = key
        if host.lower().rstrip(".") in self._hosts:
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return True
        if any(found in network for network in self._networks):
            return False
        inner = _embedded(found)
        if inner is None:
            return _internal(found)
        if any(inner in network for network in self._networks):
            return False
        return _internal(inner) or (found not in _NAT64 and _internal(found))


def _internal(address: Address) -> bool:
    return (
        not address.is_global
        or address.is_multicast
        or address.is_reserved
        or any(address in network for network in _REFUSED)
    )


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that some gateway, or this machine, may take an IPv6 address for."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
