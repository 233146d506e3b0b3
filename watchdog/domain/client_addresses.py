"""The addresses of clients: which of them count as one client, and which client a proxy forwards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_BRACKETED_ADDRESS_PATTERN = re.compile(r"\[([^\]]*)\](:[0-9]+)?")
_FORWARDED_IPV4_ADDRESS_WITH_PORT_PATTERN = re.compile(r"([0-9.]+):[0-9]+")


def get_address_or_ipv6_subscriber_network(address: str) -> str:
    """An IPv4 address itself; for IPv6 the /64 network, which belongs to one subscriber; any other text itself."""
    parsed = _parse_ip_address(address)
    if parsed is None:
        return address
    return str(parsed if isinstance(parsed, IPv4Address) else IPv6Address(int(parsed) >> 64 << 64))


class TrustedProxies:
    """The proxies whose statements about their clients count. `networks`: addresses or networks, as configured."""

    def __init__(self, networks: Iterable[str] = ()):
        self._networks = [ip_network(network) for network in networks]

    def is_trusted_proxy(self, address: str) -> bool:
        parsed = _parse_ip_address(address) if self._networks else None
        return parsed is not None and any(parsed in network for network in self._networks)

    def find_client_address(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The client behind a peer: the nearest address that is no trusted proxy.

        `forwarded_for`: the addresses of X-Forwarded-For, the nearest last. Only a proxy that is trusted itself is
        believed about the address before its own, so what a client adds has no effect.
        """
        client = peer
        for entry in reversed(list(forwarded_for)):
            if (
                not self.is_trusted_proxy(client)
                or (parsed := _parse_ip_address(_strip_port_from_address(entry.strip()))) is None
            ):
                break
            client = str(parsed)
        return client


def _strip_port_from_address(address: str) -> str:
    match = _BRACKETED_ADDRESS_PATTERN.fullmatch(address) or _FORWARDED_IPV4_ADDRESS_WITH_PORT_PATTERN.fullmatch(
        address
    )
    return match[1] if match else address


def _parse_ip_address(address: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address that is mapped into IPv6 is returned as such."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
