"""The addresses of clients: which of them count as one client."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def get_subscriber_network(address: str) -> str:
    """An IPv4 address itself; for IPv6 the /64 network, which belongs to one subscriber; any other text itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
