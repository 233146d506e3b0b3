"""Whether this machine has a network, as far as its routing tables show."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from watchdog.net.errors import ProbeError, build_own_network_error

PROC_NET, HOSTS_FILE = Path("/proc/net"), Path("/etc/hosts")
ADDRESS_FAMILY_NAMES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
_ROUTE_IS_UP, _ROUTE_REJECTS = 0x1, 0x200
MAX_DEFAULT_ROUTE_PREFIX_BITS = 1
"""VPN clients replace the default route by two routes to half of all addresses each."""

DefaultRouteReader: TypeAlias = Callable[[], frozenset[socket.AddressFamily] | None]
"""The address families for which this machine has a default route; None: unknown."""


def read_default_route_families(folder: Path = PROC_NET) -> frozenset[socket.AddressFamily] | None:
    """The address families that have a default route; None on systems other than Linux. `folder`: that of the tables
    `route` and `ipv6_route`."""
    try:
        families = (
            {socket.AF_INET}
            if any(map(_is_ipv4_default_route, _read_ip_route_table_rows(folder / "route")[1:]))
            else set()
        )
    except OSError:
        return None
    try:
        if any(map(_is_ipv6_default_route, _read_ip_route_table_rows(folder / "ipv6_route"))):
            families.add(socket.AF_INET6)
    except OSError:  # the kernel has no IPv6
        pass
    return frozenset(families)


def _read_ip_route_table_rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text("ascii").splitlines()]


def _is_ipv4_default_route(row: list[str]) -> bool:
    """`row`: interface, destination, gateway, flags, references, use, metric, mask, ..."""
    return int(row[7], 16).bit_count() <= MAX_DEFAULT_ROUTE_PREFIX_BITS and _is_usable_ip_route(row[3])


def _is_ipv6_default_route(row: list[str]) -> bool:
    """`row`: destination, prefix bits, source, prefix bits, gateway, metric, references, use, flags, interface."""
    return int(row[1], 16) <= MAX_DEFAULT_ROUTE_PREFIX_BITS and _is_usable_ip_route(row[8])


def _is_usable_ip_route(flags: str) -> bool:
    return int(flags, 16) & (_ROUTE_IS_UP | _ROUTE_REJECTS) == _ROUTE_IS_UP


def read_static_host_names(path: Path = HOSTS_FILE) -> frozenset[str]:
    """The names that this machine resolves without a name server, in lower case."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(name.lower() for line in lines for name in line.partition("#")[0].split()[1:])


def translate_network_error_of_missing_ip_default_route(
    error: OSError, family: socket.AddressFamily | None, read_default_routes: DefaultRouteReader
) -> ProbeError | None:
    """The error of a connection or name lookup that fails because this machine has no default route; None: another one.

    `family`: of the address; None for a name lookup.
    """
    if error.errno != (socket.EAI_AGAIN if family is None else errno.ENETUNREACH):
        return None
    routes = read_default_routes()
    if routes is None or (routes if family is None else family in routes):
        return None
    if family is None:
        return build_own_network_error("no name server responds, and this machine has no default route")
    return build_own_network_error(f"this machine has no default route for {ADDRESS_FAMILY_NAMES[family]}")
