"""Which hosts mean this machine itself. Pure; it imports nothing at load, because `watchdog exec` has to start fast."""

from __future__ import annotations

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""As they stand in URLs and Host headers."""
_LOOPBACK_ADDRESS_BY_WILDCARD_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def is_loopback_host(host: str) -> bool:
    """Whether a host is localhost or a loopback address, including one mapped into IPv6."""
    from ipaddress import IPv6Address, ip_address

    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def is_wildcard_host(host: str) -> bool:
    """Whether a service that listens there accepts connections on all addresses."""
    return host in _LOOPBACK_ADDRESS_BY_WILDCARD_ADDRESS


def get_local_connect_host(host: str) -> str:
    """The host to connect to from this machine, for a service that listens on `host`."""
    return _LOOPBACK_ADDRESS_BY_WILDCARD_ADDRESS.get(host, host)
