"""A connection to a target that speaks another protocol than plain HTTP: TCP, and TLS if it is configured."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from watchdog.net.connector import TcpConnector, format_socket_address
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.foreign_protocol import USE_HTTPS_TLS_REMEDY
from watchdog.net.handshake import EarliestCertificateExpiry, TlsHandshaker
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import ProxyAddress, RequestRouting
from watchdog.net.proxy_tunnel import ServerRoute, open_socket_by_route
from watchdog.net.tls import HTTP_ALPN_PROTOCOLS, TlsConfig
from watchdog.net.url import ParsedHttpUrl

TARGET_READ_CHUNK_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class TargetEndpoint:
    """Where a target is, and how it is connected to."""

    url: ParsedHttpUrl
    """Host and port; its scheme is `https` if the connection uses TLS."""
    tls: TlsConfig
    allow_private_addresses: bool
    alpn_protocols: tuple[str, ...] = HTTP_ALPN_PROTOCOLS
    tls_remedy: str = USE_HTTPS_TLS_REMEDY
    """What to configure if the port speaks TLS although the configuration states that it does not."""
    proxy: ProxyAddress | None = None
    """None: the target is connected to directly."""
    proxy_ca_file: str = ""

    def route_by(self, routing: RequestRouting) -> Self:
        """The same target through the proxy of the routing, and with its authorities."""
        return replace(
            self,
            tls=routing.add_ca_file(self.tls),
            proxy=routing.find_proxy_for_host(self.url.host),
            proxy_ca_file=routing.ca_file,
        )

    @property
    def uses_tls(self) -> bool:
        return self.url.scheme == "https"


class TargetConnection:
    """Bytes from and to a target. `close` ends it at once; nothing is left of it then."""

    def __init__(self, sock: socket.socket, handshaker: TlsHandshaker) -> None:
        """`sock`: connected. The connection owns it from `open` on."""
        self._sock, self._handshaker = sock, handshaker
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.received_bytes = 0
        self.certificate_expiry: EarliestCertificateExpiry | None = None
        """Of the certificate that expires first; None without TLS, or if no certificate can be read."""

    async def open(self) -> None:
        """Without TLS. Raises OSError."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=TARGET_READ_CHUNK_BYTES)

    async def open_with_tls(self, phase_timer: PhaseTimer) -> None:
        """Performs the handshake, and times the phase `tls`. Raises ProbeError and OSError."""
        self.certificate_expiry = await self._handshaker.perform_and_find_certificate_expiry(
            self._perform_tls_handshake, phase_timer
        )

    async def _perform_tls_handshake(self, context: ssl.SSLContext, server_name: str) -> Any:
        """From the first byte on: what a server without TLS sends before the handshake must not be lost."""
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._sock, ssl=context, server_hostname=server_name, limit=TARGET_READ_CHUNK_BYTES
        )
        return self._writer.get_extra_info("ssl_object")

    @property
    def selected_alpn_protocol(self) -> str:
        """The protocol that the server selected during the TLS handshake; empty: none."""
        ssl_object = self._writer.get_extra_info("ssl_object")
        return (ssl_object.selected_alpn_protocol() or "") if ssl_object else ""

    async def read(self) -> bytes:
        """What has arrived, at most TARGET_READ_CHUNK_BYTES; empty: the server has closed the connection. Raises
        OSError."""
        data = await self._reader.read(TARGET_READ_CHUNK_BYTES)
        self.received_bytes += len(data)
        return data

    def write(self, data: bytes) -> None:
        """Sends a few bytes. Does not wait until they are sent: a server may respond before it has read them."""
        self._writer.write(data)

    def close(self) -> None:
        self._writer.transport.abort()

    async def explain_end(self, exception: Exception | None = None) -> ProbeError:
        """Why the connection has ended. `exception`: what `read` raised; None: the server has closed the connection. If
        nothing was received before, a second TLS handshake may show the cause."""
        exception = exception or BrokenPipeError(errno.EPIPE, "closed by the server")
        error = build_probe_error_from_exception(exception)
        if error is None:
            raise exception
        return error if self.received_bytes else await self._handshaker.inspect_and_explain_unanswered_request(error)


async def open_target_connection(
    connector: TcpConnector, endpoint: TargetEndpoint, phase_timer: PhaseTimer, now: int
) -> TargetConnection:
    """Connects to an allowed address, directly or through the proxy of the endpoint, and performs the TLS handshake if
    the endpoint uses TLS. Times the phases `dns`, `connect`, through a proxy `tunnel`, and `tls`. `now`: in ms since
    the epoch; certificates are judged against it. Raises ProbeError."""
    url, private = endpoint.url, endpoint.allow_private_addresses
    handshaker = TlsHandshaker(
        connector,
        url,
        endpoint.tls,
        private,
        now=now,
        alpn_protocols=endpoint.alpn_protocols,
        tls_remedy=endpoint.tls_remedy,
        proxy=endpoint.proxy,
        proxy_ca_file=endpoint.proxy_ca_file,
    )
    if endpoint.uses_tls:
        connector.get_ssl_context(endpoint.tls, endpoint.alpn_protocols)  # fails first if a file is unusable
    route = ServerRoute(url, private, endpoint.proxy, endpoint.proxy_ca_file)
    sock = await open_socket_by_route(connector, route, phase_timer)
    with suppress(OSError):  # the connection is lost already, as the next step shows
        phase_timer.facts["address"] = format_socket_address(sock.getpeername())
    connection = TargetConnection(sock, handshaker)
    try:
        await (connection.open_with_tls(phase_timer) if endpoint.uses_tls else connection.open())
    except OSError as os_error:
        raise build_probe_error_from_exception(os_error) or os_error from None
    return connection
