"""Connections to a server, directly or through a proxy. Every address that is known passes the address filter."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from watchdog.net.connector import TcpConnector, require_allowed_address
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.http_exchange import HttpExchangeProtocol, ReceivedMessage
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import ProxyAddress, list_literal_addresses
from watchdog.net.proxy_errors import (
    build_connect_refusal_error,
    build_proxy_unreachable_error,
    build_tunnel_error,
)
from watchdog.net.response_parser import HttpResponseParser
from watchdog.net.socks import TunnelConnection, negotiate_socks_tunnel
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl

_MAX_REPLY_PART_BYTES = 4096
_MAX_SOCKET_REPLY_BYTES = 16 * 1024
"""It is parsed byte by byte, so its time grows with the square of its length."""
_ExchangeT = TypeVar("_ExchangeT", bound=HttpExchangeProtocol)


class ServerRoute(NamedTuple):
    """How a server is reached."""

    url: ParsedHttpUrl
    allow_private_addresses: bool
    proxy: ProxyAddress | None = None
    """None: directly."""
    proxy_ca_file: str = ""
    """For a proxy that is reached over TLS: the authorities to trust instead of the system's."""

    @property
    def is_forwarded(self) -> bool:
        """Whether the proxy gets the request itself, with the whole URL, instead of a tunnel to the server."""
        return self.proxy is not None and self.proxy.speaks_http and self.url.scheme == "http"


async def open_connection_by_route(
    connector: TcpConnector, create_protocol: Callable[[], _ExchangeT], route: ServerRoute, phase_timer: PhaseTimer
) -> _ExchangeT:
    """A connection to the server, before any TLS. Times the phases `dns` and `connect`, through a proxy those of the
    proxy, and `tunnel`. Raises ProbeError, and OSError if the error is none of a network."""
    if route.proxy is None:
        return await connector.connect_protocol(
            create_protocol,
            route.url.host,
            route.url.port,
            phase_timer,
            allow_private_addresses=route.allow_private_addresses,
        )
    target_host = await _choose_target_host(connector, route, route.proxy, phase_timer)
    connection = await _connect_to_proxy(connector, create_protocol, route, route.proxy, phase_timer)
    try:
        if not route.is_forwarded:
            await _open_tunnel(connection, route, route.proxy, target_host, phase_timer)
    except BaseException:
        connection.close()
        raise
    return connection


async def open_socket_by_route(connector: TcpConnector, route: ServerRoute, phase_timer: PhaseTimer) -> socket.socket:
    """As `open_connection_by_route`, for a protocol other than HTTP: through a proxy always a tunnel."""
    proxy = route.proxy
    if proxy is None:
        return await connector.connect(route.url.host, route.url.port, phase_timer, route.allow_private_addresses)
    if proxy.scheme == "https":
        problem = "TLS to the proxy is supported for HTTP requests alone, and not for WebSockets and gRPC"
        raise ProbeError.from_reason("proxy.failed", proxy=proxy.host_and_port, problem=problem)
    target_host = await _choose_target_host(connector, route, proxy, phase_timer)
    with _connecting_to_proxy(proxy, phase_timer):
        sock = await connector.connect(proxy.host, proxy.port, phase_timer, proxy.allow_private_address)
    try:
        await _open_tunnel(_SocketConnection(sock), route, proxy, target_host, phase_timer)
    except BaseException:
        sock.close()
        raise
    return sock


async def _choose_target_host(
    connector: TcpConnector, route: ServerRoute, proxy: ProxyAddress, phase_timer: PhaseTimer
) -> str:
    """The host that is passed to the proxy: an address, unless the proxy resolves names."""
    for address in list_literal_addresses(route.url.host):
        require_allowed_address(address, route.allow_private_addresses)
    if proxy.resolves_names:
        return route.url.host
    addresses = await connector.list_allowed_addresses(
        route.url.host, route.url.port, phase_timer, route.allow_private_addresses
    )
    hosts = [str(address[0]) for _, address in addresses]
    return next((host for host in hosts if ":" not in host), hosts[0])  # few proxies reach IPv6


async def _connect_to_proxy(
    connector: TcpConnector,
    create_protocol: Callable[[], _ExchangeT],
    route: ServerRoute,
    proxy: ProxyAddress,
    phase_timer: PhaseTimer,
) -> _ExchangeT:
    with _connecting_to_proxy(proxy, phase_timer):
        connection = await connector.connect_protocol(
            create_protocol, proxy.host, proxy.port, phase_timer, allow_private_addresses=proxy.allow_private_address
        )
        try:
            if proxy.scheme == "https":
                context = connector.get_ssl_context(TlsConfig(ca_file=route.proxy_ca_file))
                with phase_timer.measure("tls"):
                    await connection.start_tls(context, proxy.host.rstrip("."))
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def _connecting_to_proxy(proxy: ProxyAddress, phase_timer: PhaseTimer) -> Iterator[None]:
    """What fails or times out here is the fault of the proxy, and not of the server behind it."""
    phase_timer.facts["proxy"] = phase_timer.connecting_proxy = proxy.host_and_port
    try:
        yield
    except Exception as exception:
        phase_timer.connecting_proxy = ""
        error = build_probe_error_from_exception(exception)
        if error is None:
            raise
        raise build_proxy_unreachable_error(error, proxy) from None
    phase_timer.connecting_proxy = ""


async def _open_tunnel(
    connection: TunnelConnection, route: ServerRoute, proxy: ProxyAddress, target_host: str, phase_timer: PhaseTimer
) -> None:
    """Times the phase `tunnel`."""
    phase_timer.start_nestable_phase("tunnel")
    try:
        if proxy.speaks_http:
            await _request_http_tunnel(connection, route.url, proxy)
        else:
            await negotiate_socks_tunnel(connection, target_host, route.url.port, proxy)
    except Exception as exception:
        error = build_probe_error_from_exception(exception)
        if error is None:
            raise
        raise build_tunnel_error(error, proxy) from None
    phase_timer.end_phase("tunnel")


async def _request_http_tunnel(connection: TunnelConnection, url: ParsedHttpUrl, proxy: ProxyAddress) -> None:
    lines = [f"CONNECT {url.host_and_port} HTTP/1.1", f"Host: {url.host_and_port}", "User-Agent: watchdog-monitor"]
    if authorization := proxy.authorization_header:
        lines.append(f"Proxy-Authorization: {authorization}")
    connection.write("\r\n".join([*lines, "", ""]).encode())
    reply = HttpResponseParser(PhaseTimer(), 0, is_head_request=True)  # the tunnel begins after the head
    await connection.receive_and_pause(reply)
    if not 200 <= reply.status < 300:
        raise build_connect_refusal_error(reply.status, reply.reason_phrase, reply.headers, proxy)


class _SocketConnection:
    """A connection to a proxy whose socket is used for something else afterwards."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._unsent = sock, b""

    def write(self, data: bytes) -> None:
        self._unsent += data

    async def receive_and_pause(self, message: ReceivedMessage) -> None:
        """Takes from the socket nothing that follows the message: the server behind the proxy may be the first that
        sends."""
        loop = asyncio.get_running_loop()
        data, self._unsent = self._unsent, b""
        await loop.sock_sendall(self._sock, data)
        received_bytes = 0
        while not message.is_complete:
            if first := await loop.sock_recv(self._sock, 1):
                received_bytes += self._feed_up_to_end_of_message(message, first)
            else:
                message.feed_eof()
            if received_bytes > _MAX_SOCKET_REPLY_BYTES and not message.is_complete:
                raise ProbeError.from_reason("protocol.headers_too_large")

    def _feed_up_to_end_of_message(self, message: ReceivedMessage, first: bytes) -> int:
        """Returns how many bytes of the socket that took."""
        try:
            available = first + self._sock.recv(_MAX_REPLY_PART_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            available = first
        fed_bytes = 0
        while fed_bytes < len(available) and not message.is_complete:
            message.feed(available[fed_bytes : fed_bytes + 1])
            fed_bytes += 1
        self._sock.recv(fed_bytes - 1)
        return fed_bytes
