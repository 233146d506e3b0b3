"""The name servers that this machine uses."""

from __future__ import annotations

import socket
from pathlib import Path

from watchdog.net.name_lookup import SocketAddress

RESOLVER_CONFIGURATION_FILE = Path("/etc/resolv.conf")
SYSTEM_DNS_PORT = 53
MAX_SYSTEM_NAME_SERVERS = 3
"""The C library uses no more."""


def read_system_name_servers() -> list[SocketAddress]:
    """Those of resolv.conf, else the local address, as in the C library."""
    try:
        lines = RESOLVER_CONFIGURATION_FILE.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    addresses: list[SocketAddress] = []
    for host in [row[1] for row in words if len(row) > 1 and row[0] == "nameserver"]:
        try:
            entries = socket.getaddrinfo(host, SYSTEM_DNS_PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        except OSError:  # not an address: the C library ignores it, too
            continue
        addresses += [(family, address) for family, _, _, _, address in entries]
    return addresses[:MAX_SYSTEM_NAME_SERVERS] or [(socket.AF_INET, ("127.0.0.1", SYSTEM_DNS_PORT))]
