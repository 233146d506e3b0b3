"""A connection to a server that sends text and waits for text. The received data is bounded."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from watchdog.net.connector import format_socket_address

MAX_RECEIVED_TEXT_BYTES = 64 * 1024
MAX_TEXT_EXCERPT_BYTES = 5_000
"""More than is stored: truncating before masking could leave a part of a secret."""


class TextConnectionProtocol(asyncio.Protocol):
    """Owns a connection: `start_tls`, `send` and `wait_for_more` in any order, and `close` in any case.

    Nothing is read before one of the first three is called, or once `received` has MAX_RECEIVED_TEXT_BYTES.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        """The data since the connection was made, or since TLS began."""
        self._loop = asyncio.get_running_loop()
        self._transport: Any  # an asyncio.Transport; uvloop's do not derive from it
        self._arrival: asyncio.Future[None] | None = None
        self._is_reading_paused = self._is_ended = False
        self._end_error: Exception | None = None

    @property
    def peer_address(self) -> str:
        """Address and port of the server; empty if the connection is already lost."""
        peer = self._transport.get_extra_info("peername")
        return format_socket_address(peer) if peer else ""

    @property
    def own_ip_address(self) -> str:
        """Empty if the connection is already lost."""
        own = self._transport.get_extra_info("sockname")
        return str(own[0]) if own else ""

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached, so that nothing more is read."""
        return len(self.received) >= MAX_RECEIVED_TEXT_BYTES

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> Any:
        """Performs the handshake. Returns the ssl.SSLObject. Raises OSError."""
        if self._is_ended or self._transport.is_closing():
            raise ConnectionAbortedError
        self.received.clear()
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=server_name)
        self._transport, self._is_reading_paused = transport, False
        return self._transport.get_extra_info("ssl_object")

    def send(self, data: bytes) -> None:
        self._transport.write(data)  # not drained: a server may respond before it has read everything
        self._resume_reading()

    async def wait_for_more(self) -> bool:
        """Waits until `received` has grown. False: it will not grow, because the server has closed the connection or
        `received` is full. Raises OSError."""
        length = len(self.received)
        self._resume_reading()
        while len(self.received) == length and not self._is_ended and not self.is_full:
            self._arrival = self._loop.create_future()
            await self._arrival
        if len(self.received) > length:
            return True
        if self._end_error is not None:
            raise self._end_error
        return False

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._pause_reading()
        self._loop.call_soon(self._keep_reading_paused)

    def data_received(self, data: bytes) -> None:
        self.received += data[: MAX_RECEIVED_TEXT_BYTES - len(self.received)]
        if self.is_full:
            self._pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended, self._end_error = True, exc
        self._wake()

    def _pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _keep_reading_paused(self) -> None:
        """uvloop starts reading after `connection_made`, even if that has paused it."""
        if self._is_reading_paused:
            self._pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and not self.is_full and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


def format_received_text_size(received: bytes | bytearray) -> str:
    """ "7 bytes"."""
    return "1 byte" if len(received) == 1 else f"{len(received)} bytes"


def build_text_excerpt(received: bytes | bytearray) -> str:
    """The beginning of the data, with escapes for bytes that are not text."""
    return bytes(received[:MAX_TEXT_EXCERPT_BYTES]).decode(errors="backslashreplace")
