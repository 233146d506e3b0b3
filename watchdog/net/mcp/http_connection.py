"""The connections of the SDK's HTTP client: through the shared connector, limited, timed, and checked."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2

from watchdog.net.connector import format_socket_address
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.foreign_protocol import find_foreign_protocol_error
from watchdog.net.handshake import TlsHandshaker
from watchdog.net.mcp.http_transport import MCP_HTTP_READ_CHUNK_BYTES, McpHttpTransport
from watchdog.net.phases import PhaseTimer
from watchdog.net.url import parse_http_url


class McpHttpNetworkBackend(httpcore2.AsyncNetworkBackend):
    """Connects through the shared connector: names resolved in threads, addresses filtered, phases timed."""

    def __init__(self, transport: McpHttpTransport) -> None:
        self._transport = transport

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        transport = self._transport
        is_first = "address" not in transport.facts
        phase_timer = transport.phase_timer if is_first else PhaseTimer()  # only the first connection is timed
        async with asyncio.timeout_at(transport.io_deadline):
            sock = await transport.connector.connect(
                host, port, phase_timer, transport.endpoint.allow_private_addresses
            )
            try:
                transport.facts["address"] = format_socket_address(sock.getpeername())
                reader, writer = await asyncio.open_connection(sock=sock, limit=MCP_HTTP_READ_CHUNK_BYTES)
            except BaseException:
                sock.close()
                raise
        return McpHttpNetworkStream(reader, writer, transport, phase_timer)


class McpHttpNetworkStream(httpcore2.AsyncNetworkStream):
    """A connection whose bytes are counted and whose TLS handshake is timed."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        transport: McpHttpTransport,
        phase_timer: PhaseTimer,
    ) -> None:
        self._reader, self._writer, self._transport, self._phase_timer = reader, writer, transport, phase_timer
        self._has_received = False
        self._handshake: TlsHandshaker | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's interface
        try:
            async with asyncio.timeout_at(self._transport.io_deadline):
                data = await self._reader.read(min(max_bytes, MCP_HTTP_READ_CHUNK_BYTES))
                if not data and self._handshake and not self._has_received:
                    raise BrokenPipeError(errno.EPIPE, "closed before the first byte")
        except ConnectionError as lost:
            error = build_probe_error_from_exception(lost)
            if self._has_received or self._handshake is None or error is None:
                raise
            raise await self._handshake.inspect_and_explain_unanswered_request(error) from None
        if data and not self._has_received and (foreign := find_foreign_protocol_error(data)):
            raise foreign
        self._has_received = True
        self._transport.count_bytes_within_limit(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's interface
        try:
            async with asyncio.timeout_at(self._transport.io_deadline):
                self._writer.write(buffer)
                await self._writer.drain()
        except OSError as error:  # the response may arrive before everything is sent
            raise httpcore2.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's interface
    ) -> httpcore2.AsyncNetworkStream:
        transport, endpoint = self._transport, self._transport.endpoint
        self._handshake = handshake = TlsHandshaker(
            transport.connector,
            parse_http_url(endpoint.url),
            endpoint.tls,
            endpoint.allow_private_addresses,
            transport.now,
        )
        try:
            async with asyncio.timeout_at(transport.io_deadline):
                expiry = await handshake.perform_and_find_certificate_expiry(self._upgrade_to_tls, self._phase_timer)
        except Exception:
            await self.aclose()
            raise
        if expiry is not None:
            transport.facts["cert_days"] = expiry.days
        return self

    async def _upgrade_to_tls(self, ssl_context: ssl.SSLContext, server_name: str) -> Any:
        if self._reader._buffer:  # type: ignore[attr-defined] # would be taken for the beginning of the response
            raise ProbeError.from_reason("tls.not_tls", "tls")
        await self._writer.start_tls(ssl_context, server_hostname=server_name)
        return self._writer.get_extra_info("ssl_object")

    async def aclose(self) -> None:
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection that is readable was closed by the server
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info(info)
