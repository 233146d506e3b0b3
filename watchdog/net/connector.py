"""Opens connections: resolves the host name, filters the addresses, connects, and provides the TLS context."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.net.address_filter import find_blocked_address_category
from watchdog.net.errors import ProbeError, build_probe_error_from_dns_error, build_probe_error_from_exception
from watchdog.net.name_lookup import SharedDnsResolver, SocketAddress
from watchdog.net.own_network import (
    DefaultRouteReader,
    read_default_route_families,
    translate_network_error_of_missing_ip_default_route,
)
from watchdog.net.phases import PhaseTimer
from watchdog.net.tls import (
    HTTP_ALPN_PROTOCOLS,
    TlsConfig,
    TlsFileVersions,
    create_ssl_context,
    read_tls_file_versions,
)

HAPPY_EYEBALLS_DELAY_S = 0.25
"""Head start of an address before the next one is tried in parallel (RFC 8305)."""


class _SupportsClose(Protocol):
    def close(self) -> object: ...


_Closable = TypeVar("_Closable", bound=_SupportsClose)


class TcpConnector:
    """Opens TCP connections to allowed addresses and caches TLS contexts.

    Host names are resolved by `SharedDnsResolver`.
    """

    def __init__(self) -> None:
        self.read_default_routes: DefaultRouteReader = read_default_route_families
        self._name_lookups = SharedDnsResolver()
        self._ssl_contexts: dict[tuple[TlsConfig, tuple[str, ...]], tuple[TlsFileVersions, ssl.SSLContext]] = {}

    def get_ssl_context(self, tls: TlsConfig, alpn_protocols: tuple[str, ...] = HTTP_ALPN_PROTOCOLS) -> ssl.SSLContext:
        """The shared context for these options; another one once a file of theirs has been replaced. Raises ProbeError
        (internal) if one of their files is unusable."""
        tls = tls.model_copy(update={"server_name": ""})  # belongs to the connection, not to the context
        key = tls, alpn_protocols
        versions, cached = read_tls_file_versions(*tls.files), self._ssl_contexts.get(key)
        if cached is None or cached[0] != versions:
            cached = self._ssl_contexts[key] = versions, create_ssl_context(tls, alpn_protocols)
        return cached[1]

    async def connect(
        self, host: str, port: int, phase_timer: PhaseTimer, allow_private_addresses: bool
    ) -> socket.socket:
        """Connects to the first allowed address of `host` that accepts. Returns a non-blocking socket.

        Times the phases `dns` and `connect`. Raises ProbeError.
        """
        addresses = await self.list_allowed_addresses(host, port, phase_timer, allow_private_addresses)
        return await self.connect_to_any_address(addresses, phase_timer)

    async def connect_to_any_address(
        self, addresses: Sequence[SocketAddress], phase_timer: PhaseTimer
    ) -> socket.socket:
        """As `connect`, to addresses that the caller has filtered."""
        return await self._connect_to_any(addresses, phase_timer, connect_socket_to_resolved_address)

    async def connect_protocol(
        self,
        create_protocol: Callable[[], _Closable],
        host: str,
        port: int,
        phase_timer: PhaseTimer,
        *,
        allow_private_addresses: bool,
    ) -> _Closable:
        """As `connect`, but returns the protocol of the connection, which takes a third less CPU. `create_protocol` is
        called for each attempted address."""
        addresses = await self.list_allowed_addresses(host, port, phase_timer, allow_private_addresses)
        return await self._connect_to_any(
            addresses, phase_timer, partial(connect_protocol_to_resolved_address, create_protocol)
        )

    async def list_allowed_addresses(
        self, host: str, port: int, phase_timer: PhaseTimer, allow_private_addresses: bool
    ) -> Sequence[SocketAddress]:
        """The addresses of `host` that the filter permits, at least one. Times the phase `dns`. Raises ProbeError."""
        addresses = _build_ip_literal_socket_addresses(host, port) or await self.resolve(host, port, phase_timer)
        allowed = [
            (family, address)
            for family, address in addresses
            if not find_blocked_address_category(address[0], allow_private_addresses)
        ]
        if not allowed:
            raise _build_address_blocked_error(str(addresses[0][1][0]), allow_private_addresses)
        phase_timer.facts["address"] = ", ".join(format_socket_address(address) for _, address in allowed)
        return allowed

    async def _connect_to_any(
        self,
        addresses: Sequence[SocketAddress],
        phase_timer: PhaseTimer,
        connect_to_address: Callable[[SocketAddress], Coroutine[Any, Any, _Closable]],
    ) -> _Closable:
        phase_timer.start_nestable_phase("connect")
        try:
            connected = await _connect_happy_eyeballs(addresses, connect_to_address)
        except _NoAddressConnectedError as failed:
            error = self._select_connect_error(failed.failures)
            error.facts |= {name: value for name, value in phase_timer.facts.items() if name == "address"}
            raise error from None
        phase_timer.end_phase("connect")
        return connected

    async def resolve(self, host: str, port: int, phase_timer: PhaseTimer) -> Sequence[SocketAddress]:
        """The addresses of a host name. Times the phase `dns`. Raises ProbeError."""
        try:
            return await self._name_lookups.resolve(host, port, phase_timer)
        except socket.gaierror as dns_error:
            own_error = translate_network_error_of_missing_ip_default_route(dns_error, None, self.read_default_routes)
            raise own_error or build_probe_error_from_dns_error(dns_error, host) from None

    def _select_connect_error(self, failures: Sequence[tuple[SocketAddress, OSError]]) -> ProbeError:
        """The error of the first address that the network of this machine does not explain, else of the first. Raises
        an OSError that is none of a network."""
        errors = [self.translate_connect_error(family, os_error) for (family, _), os_error in failures]
        return next((error for error in errors if error.reason != WATCHDOG_NETWORK_FAULT_REASON), errors[0])

    def translate_connect_error(self, family: socket.AddressFamily, os_error: OSError) -> ProbeError:
        """Translates the error of a socket to an address of this family. Raises an OSError that is no network error."""
        own_error = translate_network_error_of_missing_ip_default_route(os_error, family, self.read_default_routes)
        if error := own_error or build_probe_error_from_exception(os_error):
            return error
        raise os_error

    def close(self) -> None:
        self._name_lookups.close()


def format_socket_address(address: tuple[Any, ...]) -> str:
    """ "192.0.2.1:443", "[2001:db8::1]:443"."""
    host, port, *_ = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(4096)
def _build_ip_literal_socket_addresses(host: str, port: int) -> Sequence[SocketAddress]:
    try:
        version = ip_address(host).version
    except ValueError:
        return ()
    return ((socket.AF_INET, (host, port)),) if version == 4 else ((socket.AF_INET6, (host, port, 0, 0)),)


_DESCRIPTION_BY_BLOCKED_ADDRESS_CATEGORY = {
    "metadata": "a cloud metadata address",
    "link_local": "a link-local address",
    "multicast": "a multicast address",
    "loopback": "a loopback address",
    "private": "a private address",
    "reserved": "a reserved address",
}


def require_allowed_address(address: str, allow_private_addresses: bool) -> None:
    """Raises ProbeError if the address must not be connected to."""
    if find_blocked_address_category(address, allow_private_addresses):
        raise _build_address_blocked_error(address, allow_private_addresses)


def _build_address_blocked_error(address: str, allow_private_addresses: bool) -> ProbeError:
    always_blocked = find_blocked_address_category(address, True)
    category = always_blocked or find_blocked_address_category(address, allow_private_addresses) or ""
    rule = "always refused" if always_blocked else "refused by `allow_private_addresses: false`"
    return ProbeError(
        "connection.address_blocked",
        f"{address} is {_DESCRIPTION_BY_BLOCKED_ADDRESS_CATEGORY[category]}, which is {rule}",
    )


class _NoAddressConnectedError(Exception):
    """`failures`: each address, with its error."""

    def __init__(self, failures: Sequence[tuple[SocketAddress, OSError]]) -> None:
        super().__init__()
        self.failures = failures


async def _connect_happy_eyeballs(
    addresses: Sequence[SocketAddress], connect_to_address: Callable[[SocketAddress], Coroutine[Any, Any, _Closable]]
) -> _Closable:
    """Returns the first connection that succeeds; each address has a head start on the next.

    If none connects, raises _NoAddressConnectedError.
    """
    if len(addresses) == 1:
        try:
            return await connect_to_address(addresses[0])
        except OSError as os_error:
            raise _NoAddressConnectedError([(addresses[0], os_error)]) from None
    untried = list(addresses)
    attempts: list[asyncio.Task[_Closable]] = []
    winner: asyncio.Task[_Closable] | None = None
    try:
        while winner is None and (untried or not all(attempt.done() for attempt in attempts)):
            if untried:
                attempts.append(asyncio.create_task(connect_to_address(untried.pop(0))))
            await asyncio.wait(
                [attempt for attempt in attempts if not attempt.done()],
                timeout=HAPPY_EYEBALLS_DELAY_S if untried else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winner = next((attempt for attempt in attempts if attempt.done() and not attempt.exception()), None)
        failures = [
            (address, error)
            for address, attempt in zip(addresses, attempts, strict=False)
            if attempt.done() and isinstance(error := attempt.exception(), OSError)
        ]
        if winner is None and failures:
            raise _NoAddressConnectedError(failures)
        return (winner or attempts[0]).result()
    finally:
        for attempt in attempts:
            if attempt is not winner:
                attempt.cancel()
                attempt.add_done_callback(_close_unused_connection)


def _close_unused_connection(attempt: asyncio.Task[_Closable]) -> None:
    if not attempt.cancelled() and not attempt.exception():
        attempt.result().close()


async def connect_socket_to_resolved_address(address: SocketAddress) -> socket.socket:
    """Raises OSError."""
    family, socket_address = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, socket_address)
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_protocol_to_resolved_address(
    create_protocol: Callable[[], _Closable], address: SocketAddress
) -> _Closable:
    """Raises OSError."""
    family, (host, port, *_) = address
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(create_protocol, host, port, family=family)  # type: ignore[type-var] # which are asyncio protocols
    return protocol
