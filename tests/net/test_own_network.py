"""What only the network of this machine can be at fault for is no failure of the target."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError, build_probe_error_from_exception, connector, name_lookup
from watchdog.net.name_lookup import SocketAddress
from watchdog.net.own_network import read_default_route_families

IPV4, IPV6 = socket.AF_INET, socket.AF_INET6
BOTH, NONE = frozenset({IPV4, IPV6}), frozenset[socket.AddressFamily]()
HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT_V4 = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
SUBNET_V4 = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
REJECTED_V4 = "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n"
DOWN_V4 = "eth0\t00000000\t010200C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
VPN_V4 = "tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
ZERO = "0" * 32
DEFAULT_V6 = f"{ZERO} 00 {ZERO} 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0\n"
SUBNET_V6 = f"fd000000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0\n"
REJECTED_V6 = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo\n"
VPN_V6 = f"80000000000000000000000000000000 01 {ZERO} 00 {ZERO} 00000400 00000003 00000000 00000001     tun0\n"


@pytest.mark.parametrize(
    ("route", "ipv6_route", "families"),
    [
        (DEFAULT_V4 + SUBNET_V4, SUBNET_V6 + DEFAULT_V6 + REJECTED_V6, BOTH),
        (SUBNET_V4, DEFAULT_V6, {IPV6}),
        (DEFAULT_V4, SUBNET_V6 + REJECTED_V6, {IPV4}),
        (DEFAULT_V4, None, {IPV4}),
        (VPN_V4, VPN_V6, BOTH),
        (SUBNET_V4 + REJECTED_V4, REJECTED_V6, NONE),
        (DOWN_V4, "", NONE),
        ("", "", NONE),
    ],
)
def test_the_default_routes_are_read(
    tmp_path: Path, route: str, ipv6_route: str | None, families: frozenset[socket.AddressFamily]
) -> None:
    (tmp_path / "route").write_text(HEADER + route)
    if ipv6_route is not None:
        (tmp_path / "ipv6_route").write_text(ipv6_route)
    assert read_default_route_families(tmp_path) == families


def test_where_the_kernel_shows_no_routes_they_are_unknown(tmp_path: Path) -> None:
    assert read_default_route_families(tmp_path) is None


V4, V6 = "192.0.2.1", "2001:db8::1"


async def connect_and_fail(
    monkeypatch: pytest.MonkeyPatch, errors: dict[str, int], routes: frozenset[socket.AddressFamily] | None
) -> ProbeError:
    """`errors`: address -> the error of connecting to it."""

    async def connect(address: SocketAddress) -> socket.socket:
        number = errors[address[1][0]]
        raise OSError(number, os.strerror(number))

    def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(IPV6 if ":" in address else IPV4, (address, port)) for address in errors]

    monkeypatch.setattr(connector, "connect_socket_to_resolved_address", connect)
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", resolve)
    async with NetworkAccess() as network:
        network.connector.read_default_routes = lambda: routes
        host = next(iter(errors)) if len(errors) == 1 else "both.example"
        with pytest.raises(ProbeError) as caught:
            await network.connector.connect(host, 80, PhaseTimer(), allow_private_addresses=True)
        return caught.value


@pytest.mark.parametrize(
    ("errors", "routes", "reason"),
    [
        ({V4: errno.ENETUNREACH}, NONE, WATCHDOG_NETWORK_FAULT_REASON),
        ({V4: errno.ENETUNREACH}, {IPV6}, WATCHDOG_NETWORK_FAULT_REASON),
        ({V4: errno.ENETUNREACH}, {IPV4}, "connection.unreachable"),
        ({V4: errno.ENETUNREACH}, None, "connection.unreachable"),
        ({V6: errno.ENETUNREACH}, {IPV4}, WATCHDOG_NETWORK_FAULT_REASON),
        ({V6: errno.ENETUNREACH}, BOTH, "connection.unreachable"),
        ({V6: errno.EADDRNOTAVAIL}, BOTH, WATCHDOG_NETWORK_FAULT_REASON),
        ({V6: errno.EAFNOSUPPORT}, BOTH, WATCHDOG_NETWORK_FAULT_REASON),
        ({V4: errno.EADDRNOTAVAIL}, None, WATCHDOG_NETWORK_FAULT_REASON),
        ({V4: errno.EHOSTUNREACH}, NONE, "connection.unreachable"),
        ({V4: errno.ECONNREFUSED}, NONE, "connection.refused"),
        # of both families: the target fails only if it fails over the family that this machine has
        ({V6: errno.ENETUNREACH, V4: errno.ECONNREFUSED}, {IPV4}, "connection.refused"),
        ({V4: errno.ECONNREFUSED, V6: errno.EADDRNOTAVAIL}, {IPV4}, "connection.refused"),
        ({V6: errno.EAFNOSUPPORT, V4: errno.EHOSTUNREACH}, {IPV4}, "connection.unreachable"),
        ({V6: errno.ENETUNREACH, V4: errno.ENETUNREACH}, NONE, WATCHDOG_NETWORK_FAULT_REASON),
        ({V6: errno.EADDRNOTAVAIL, V4: errno.ENETUNREACH}, NONE, WATCHDOG_NETWORK_FAULT_REASON),
    ],
)
async def test_whose_fault_a_failed_connection_is(
    monkeypatch: pytest.MonkeyPatch,
    errors: dict[str, int],
    routes: frozenset[socket.AddressFamily] | None,
    reason: str,
) -> None:
    error = await connect_and_fail(monkeypatch, errors, routes)
    assert (error.reason, error.is_internal) == (reason, reason == WATCHDOG_NETWORK_FAULT_REASON)
    assert error.facts["address"], "the evidence lists the addresses"


async def test_a_family_without_route_does_not_excuse_a_network_that_is_unreachable_over_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """IPv6 has no route here, and a router on the way answers that the IPv4 network is unreachable."""
    error = await connect_and_fail(monkeypatch, {V6: errno.ENETUNREACH, V4: errno.ENETUNREACH}, frozenset({IPV4}))
    assert (error.reason, error.is_internal) == ("connection.unreachable", False)


@pytest.mark.parametrize(
    ("number", "routes", "reason"),
    [
        (socket.EAI_AGAIN, NONE, WATCHDOG_NETWORK_FAULT_REASON),
        (socket.EAI_AGAIN, {IPV6}, "dns.no_response"),
        (socket.EAI_AGAIN, None, "dns.no_response"),
        (socket.EAI_NONAME, NONE, "dns.not_found"),
    ],
)
async def test_whose_fault_a_failed_lookup_is(
    monkeypatch: pytest.MonkeyPatch, number: int, routes: frozenset[socket.AddressFamily] | None, reason: str
) -> None:
    def resolve(host: str, port: int) -> list[SocketAddress]:
        raise socket.gaierror(number, "?")

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", resolve)
    async with NetworkAccess() as network:
        network.connector.read_default_routes = lambda: routes
        with pytest.raises(ProbeError) as caught:
            await network.connector.connect("api.example", 80, PhaseTimer(), allow_private_addresses=True)
    assert (caught.value.reason, caught.value.is_internal) == (reason, reason == WATCHDOG_NETWORK_FAULT_REASON)


def test_the_clients_of_libraries_are_covered_as_well() -> None:
    """They open connections themselves, and do not state the family."""
    error = build_probe_error_from_exception(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"))
    assert error is not None
    assert (error.reason, error.is_internal) == (WATCHDOG_NETWORK_FAULT_REASON, True)


async def test_a_bug_while_connecting_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: SocketAddress) -> socket.socket:
        await asyncio.sleep(0)
        raise KeyError("a bug")

    monkeypatch.setattr(connector, "connect_socket_to_resolved_address", connect)
    monkeypatch.setattr(
        name_lookup, "resolve_host_blocking", lambda host, port: [(IPV4, (V4, port)), (IPV6, (V6, port))]
    )
    async with NetworkAccess() as network:
        with pytest.raises(KeyError):
            await network.connector.connect("both.example", 80, PhaseTimer(), allow_private_addresses=True)
