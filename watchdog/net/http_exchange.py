"""A connection for HTTP: one request and its response at a time."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol

from watchdog.net.connector import format_socket_address
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer

HTTP_READ_CHUNK_BYTES = 16 * 1024
"""Small, because a hostile response takes the most time per byte, and blocks the event loop for that time."""


class ReceivedMessage(Protocol):
    """What a server sends: a response, or the reply of a proxy."""

    is_complete: bool

    def feed(self, data: bytes) -> None:
        """Parses what has arrived. Raises ProbeError."""

    def feed_eof(self) -> None:
        """The server has closed the connection. Raises ProbeError unless that completes the message."""


class HttpExchangeProtocol(asyncio.BufferedProtocol):
    """Owns a connection: `start_tls` if needed, then `exchange`, and `close` in any case. Between two exchanges,
    `become_idle`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(HTTP_READ_CHUNK_BYTES))  # asyncio reads TLS records into slices of it
        self._transport: Any  # an asyncio.Transport; uvloop's do not derive from it
        self._message: ReceivedMessage | None = None
        """What is being received."""
        self._message_end: asyncio.Future[None] = self._loop.create_future()
        self._early_data = b""
        """The data that arrived while no message was received. Before TLS or a request, it is not HTTP; after the TLS
        handshake, a server of HTTP/2 sends its settings."""
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
        if transport is None:
            raise ConnectionResetError("the connection was lost before the handshake")
        self._transport = transport
        return self._transport.get_extra_info("ssl_object")

    @property
    def selected_alpn_protocol(self) -> str:
        """The protocol that the server selected during the TLS handshake; empty: none."""
        ssl_object = self._transport.get_extra_info("ssl_object")
        return (ssl_object.selected_alpn_protocol() or "") if ssl_object else ""

    def write(self, data: bytes) -> None:
        """Does not wait until it is sent."""
        self._transport.write(data)

    async def exchange(self, request_bytes: bytes, response: ReceivedMessage, phase_timer: PhaseTimer) -> None:
        """Sends the request. Returns once the response is complete. Raises ProbeError and OSError."""
        phase_timer.start_nestable_phase("first_byte")
        self._start_exchange(request_bytes, response)
        await self._message_end

    async def receive(self, message: ReceivedMessage) -> None:
        """Returns once the message is complete. Raises ProbeError and OSError."""
        self._start_receiving(message)
        await self._message_end

    async def receive_and_pause(self, message: ReceivedMessage) -> None:
        """As `receive`. Then another message may be received, or a handshake begin. What followed the message in the
        same packets is lost."""
        await self.receive(message)
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._message, self._message_end = None, self._loop.create_future()

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is idle: the server has neither closed it nor sent anything."""
        return not self._transport.is_closing() and not self._message_end.done() and not self._early_data

    def become_idle(self) -> None:
        """After a response was received as a whole: another request may follow."""
        self._message, self._message_end = None, self._loop.create_future()
        self._resume_reading()  # notices when the server closes the connection

    def close(self) -> None:
        self._transport.abort()
        if not self._message_end.cancel() and not self._message_end.cancelled():
            self._message_end.exception()  # asyncio logs one that is never read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        if self._message is None or self._message_end.done():
            self._early_data += data
            if len(self._early_data) >= HTTP_READ_CHUNK_BYTES:
                self._transport.pause_reading()  # until something is received
        else:
            self._feed(self._message, data)
            if nbytes == HTTP_READ_CHUNK_BYTES and not self._message_end.done():
                self._transport.pause_reading()  # the event loop would go on reading while there is data
                self._loop.call_soon(self._resume_reading)

    def _feed(self, message: ReceivedMessage, data: bytes) -> None:
        try:
            message.feed(data)
        except Exception as error:
            self._message_end.set_exception(error)
            return
        if message.is_complete:
            self._message_end.set_result(None)

    def eof_received(self) -> None:
        self._end_message(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_message(exc)

    def _start_exchange(self, request_bytes: bytes, response: ReceivedMessage) -> None:
        if not self._is_lost_early:
            self._transport.write(request_bytes)  # not drained: a server may respond before it has read everything
        self._start_receiving(response)

    def _start_receiving(self, message: ReceivedMessage) -> None:
        self._message = message
        if self._early_data:
            self._feed(message, self._early_data)
            self._early_data = b""
        if self._is_lost_early:
            self._end_message(self._early_error)
        else:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _end_message(self, error: Exception | None) -> None:
        if self._message_end.done():
            return
        if self._message is None:
            self._is_lost_early, self._early_error = True, error
            return
        try:
            if error is not None:
                raise error
            self._message.feed_eof()
        except Exception as end_error:
            self._message_end.set_exception(end_error)
        else:
            self._message_end.set_result(None)
