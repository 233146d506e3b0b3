"""One request and its response on a connection of their own."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from watchdog.net.connector import format_socket_address
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer
from watchdog.net.response_parser import HttpResponseParser

HTTP_READ_CHUNK_BYTES = 16 * 1024
"""Small, because a hostile response takes the most time per byte, and blocks the event loop for that time."""


class HttpExchangeProtocol(asyncio.BufferedProtocol):
    """Owns a connection for one exchange: `start_tls` if needed, then `exchange`, and `close` in any case."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._response_end: asyncio.Future[None] = self._loop.create_future()
        self._buffer = bytearray(HTTP_READ_CHUNK_BYTES)
        self._transport: Any  # an asyncio.Transport; uvloop's do not derive from it
        self._parser: HttpResponseParser | None = None
        self._early_data = b""
        """The data that the server sent before the request: it does not speak HTTP."""
        self._is_lost_early = False
        self._early_error: Exception | None = None

    @property
    def peer_address(self) -> str:
        """Address and port of the server; empty if the connection is already lost."""
        peer = self._transport.get_extra_info("peername")
        return format_socket_address(peer) if peer else ""

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> Any:
        """Performs the handshake. Returns the ssl.SSLObject. Raises ProbeError and OSError."""
        if self._early_data:
            raise ProbeError.from_reason("tls.not_tls", "tls")
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=server_name)
        self._transport = transport
        return self._transport.get_extra_info("ssl_object")

    async def exchange(self, request_bytes: bytes, parser: HttpResponseParser, phase_timer: PhaseTimer) -> None:
        """Sends the request. Returns once the response is complete. Raises ProbeError and OSError."""
        phase_timer.start_nestable_phase("first_byte")
        self._parser = parser
        if self._early_data:
            self._feed(parser, self._early_data)
        if self._is_lost_early:
            self._end_response(self._early_error)
        else:
            self._transport.write(request_bytes)  # not drained: a server may respond before it has read everything
        await self._response_end

    def close(self) -> None:
        self._transport.abort()
        if self._response_end.done() and not self._response_end.cancelled():
            self._response_end.exception()  # asyncio logs one that is never read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(memoryview(self._buffer)[:nbytes])
        if self._parser is None:
            self._early_data += data
        elif not self._response_end.done():
            self._feed(self._parser, data)
        if nbytes == HTTP_READ_CHUNK_BYTES and not self._response_end.done():
            self._transport.pause_reading()  # the event loop would go on reading while there is data
            self._loop.call_soon(self._resume_reading)

    def _feed(self, parser: HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed(data)
        except Exception as error:
            self._response_end.set_exception(error)
            return
        if parser.is_complete:
            self._response_end.set_result(None)

    def _resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        self._end_response(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_response(exc)

    def _end_response(self, error: Exception | None) -> None:
        if self._response_end.done():
            return
        if self._parser is None:
            self._is_lost_early, self._early_error = True, error
            return
        try:
            if error is not None:
                raise error
            self._parser.feed_eof()
        except Exception as end_error:
            self._response_end.set_exception(end_error)
        else:
            self._response_end.set_result(None)
