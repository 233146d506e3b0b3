"""The ASGI server, uvicorn, behind the guard of connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import uvicorn

from watchdog.server.guard import (
    InboundConnectionGuard,
    InboundConnectionLimits,
    accept_connections,
    drop_overdue_connections_repeatedly,
)
from watchdog.server.requests import RequestConcurrencyLimitMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp

WEB_SERVER_SHUTDOWN_TIMEOUT_S = 1
"""Seconds that requests in progress may take after shutdown has started."""
LISTEN_BACKLOG_CONNECTIONS = 1_024


class WebServer(uvicorn.Server):
    """Serves an ASGI app on an open socket while its `async with` block runs. `end_streams`: ends the responses that
    last, when shutdown begins."""

    def __init__(
        self,
        asgi_app: ASGIApp,
        listen_socket: socket.socket,
        guard: InboundConnectionGuard | None = None,
        end_streams: Callable[[], None] = lambda: None,
    ):
        self._end_streams = end_streams
        self.guard = guard or InboundConnectionGuard(InboundConnectionLimits.from_process_limits())
        super().__init__(
            uvicorn.Config(
                RequestConcurrencyLimitMiddleware(asgi_app, self.guard),
                http="httptools",
                ws="none",
                proxy_headers=False,  # the guard applies them, of trusted proxies alone
                log_config=None,
                log_level="error",  # visitors must not fill the log with warnings about what they send
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=WEB_SERVER_SHUTDOWN_TIMEOUT_S,
            )
        )
        self._listen_socket = listen_socket
        self._connection_tasks: list[asyncio.Task[None]] = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `watchdog.signals` handles them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and accept connections ourselves: uvicorn gets no socket."""
        await super().startup(sockets)
        self._listen_socket.setblocking(False)
        self._connection_tasks = [
            asyncio.create_task(
                accept_connections(self._listen_socket, self.guard, self._create_uvicorn_protocol),
                name="accept-connections",
            ),
            asyncio.create_task(drop_overdue_connections_repeatedly(self.guard), name="connection-deadlines"),
        ]

    def _create_uvicorn_protocol(self) -> asyncio.Protocol:
        """The protocol of one connection, as uvicorn creates it for its own sockets."""
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg] # typed as any protocol
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._connection_tasks:
            task.cancel()
        await asyncio.gather(*self._connection_tasks, return_exceptions=True)
        self._listen_socket.close()
        self._end_streams()
        await super().shutdown(sockets)
        self.guard.drop_all()

    async def __aenter__(self) -> Self:
        self._serve_task = asyncio.create_task(self.serve([]), name="web-server")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        await self._serve_task


def open_listen_socket(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes any free port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listen_socket = socket.socket(family, proto=socket.IPPROTO_TCP)  # else asyncio would leave Nagle's algorithm on
    try:
        listen_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listen_socket.bind((host, port))
        listen_socket.listen(LISTEN_BACKLOG_CONNECTIONS)
    except OSError:
        listen_socket.close()
        raise
    return listen_socket
