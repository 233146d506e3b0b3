"""Decides which addresses may be connected to. Judges the address itself, however a name or a URL spells it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_ALWAYS_BLOCKED_NETWORKS = {
    "metadata": (
        "169.254.169.254",  # AWS, Google, Azure and most others
        "169.254.170.2",  # AWS, container credentials
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::23",  # AWS, container credentials
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
    ),
    "link_local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "255.255.255.255", "ff00::/8"),
}
_NON_PUBLIC_NETWORKS = {
    "loopback": ("127.0.0.0/8", "0.0.0.0/8", "::1", "::"),
    "private": (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("fc00::/7", "fec0::/10", "64:ff9b:1::/48"),
    ),
    "reserved": (
        *("192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
        *("100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16"),
    ),
}
_BLOCKED_NETWORKS_BY_ALLOW_PRIVATE_ADDRESSES = {
    allow_private: [(kind, ip_network(network)) for kind, networks in kinds.items() for network in networks]
    for allow_private, kinds in (
        (True, _ALWAYS_BLOCKED_NETWORKS),
        (False, _ALWAYS_BLOCKED_NETWORKS | _NON_PUBLIC_NETWORKS),
    )
}
_IPV4_EMBEDDING_NETWORKS = [  # IPv6 networks that embed an IPv4 address, and the number of bits after it
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (IPv6Network("::/96"), 0),  # compatible
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64, local use
    (IPv6Network("2002::/16"), 80),  # 6to4
]
_ISATAP_INTERFACE_IDS = (0x0000_5EFE, 0x0200_5EFE)


@lru_cache(4096)
def find_blocked_address_category(address: str, allow_private_addresses: bool) -> str | None:
    """Why the address is blocked: metadata, link_local, multicast, loopback, private or reserved. None: it is allowed.

    An IPv4 address embedded in an IPv6 address (mapped, NAT64, 6to4, Teredo, ISATAP) counts as well.
    """
    ip = ip_address(address.partition("%")[0])
    forms = (ip, *_extract_embedded_ipv4_addresses(ip))
    return next(
        (
            kind
            for kind, network in _BLOCKED_NETWORKS_BY_ALLOW_PRIVATE_ADDRESSES[allow_private_addresses]
            if any(form in network for form in forms)
        ),
        None,
    )


def _extract_embedded_ipv4_addresses(ip: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address embeds."""
    if isinstance(ip, IPv4Address) or int(ip) <= 1:
        return ()
    if ip in IPv6Network("2001::/32"):  # Teredo: server, and client inverted
        return (IPv4Address(int(ip) >> 64 & 0xFFFF_FFFF), IPv4Address(~int(ip) & 0xFFFF_FFFF))
    if int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP_INTERFACE_IDS:
        return (IPv4Address(int(ip) & 0xFFFF_FFFF),)
    return tuple(
        IPv4Address(int(ip) >> shift & 0xFFFF_FFFF) for network, shift in _IPV4_EMBEDDING_NETWORKS if ip in network
    )
