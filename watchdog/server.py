"""The web server: uvicorn on a socket that is already open, with bounds on connections and request heads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from watchdog.service.process_resources import MAX_WEB_SERVER_CONNECTIONS, read_run_and_connection_limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_REQUEST_HEAD_BYTES = 65_536
WEB_SERVER_SHUTDOWN_TIMEOUT_S = 1
"""Seconds that requests in progress may take after shutdown has started."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """A connection to the pages. Visitors, however many, must not use up the file descriptors that probes need."""

    _reading_head, _head_bytes = False, 0
    """Whether a request head is incomplete, and the bytes received since it began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > read_run_and_connection_limits().http_connections:
            idlest = self._find_idle_connection()
            self.connections.discard(idlest)
            idlest.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """The parser itself would accept a head that never ends."""
        super().data_received(data)
        if self._reading_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_REQUEST_HEAD_BYTES:
                self._reading_head = False
                self.send_400_response("The head of the request is too long.")

    def _find_idle_connection(self) -> HttpToolsProtocol:
        """A connection without a request in progress; this connection if there is none."""
        others = (other for other in self.connections if isinstance(other, HttpToolsProtocol) and other is not self)
        return next((other for other in others if other.cycle is None or other.cycle.response_complete), self)


class WebServer(uvicorn.Server):
    """Serves an ASGI app on an open socket while its `async with` block runs."""

    def __init__(self, asgi_app: ASGIApp, listen_socket: socket.socket):
        super().__init__(
            uvicorn.Config(
                asgi_app,
                http=BoundedHttpProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=WEB_SERVER_SHUTDOWN_TIMEOUT_S,
                backlog=MAX_WEB_SERVER_CONNECTIONS // 2,
            )
        )
        self._listen_socket = listen_socket

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `watchdog.signals` handles them."""
        yield

    async def __aenter__(self) -> Self:
        self._serve_task = asyncio.create_task(self.serve([self._listen_socket]), name="web-server")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        await self._serve_task


def open_listen_socket(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes any free port. Raises OSError."""
    listen_socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listen_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listen_socket.bind((host, port))
        listen_socket.listen(1024)
    except OSError:
        listen_socket.close()
        raise
    return listen_socket
