"""Over streamable HTTP, inside the pages' application."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from watchdog.mcp_server.context import ToolContext
from watchdog.mcp_server.tool_jobs import ToolJobRunner

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.types import Receive, Scope, Send

MAX_REQUEST_BYTES = 64 * 1024
"""Bytes of a request: none of our tools takes more than a name."""


class LazyMcpApp:
    """An ASGI application that the first request builds: loading the SDK takes half a second, and many never ask.

    `hosts`: the names (with port, or `:*`) and `origins`: the sites that a request may have been sent to and from.
    Requests of both protocol eras are answered, each by itself, without sessions.
    """

    def __init__(self, context: ToolContext, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]):
        self._desk, self._hosts, self._origins = context, list(allowed_hosts), list(allowed_origins)
        self._jobs = ToolJobRunner()
        self._opening = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._life: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._jobs.__aexit__()
        self._end.set()
        if self._life is not None:
            await self._life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opening:
            if self._manager is None:
                self._manager = await self._start_session_manager()
        await self._manager.handle_request(scope, receive, send)

    async def _start_session_manager(self) -> StreamableHTTPSessionManager:
        manager = await asyncio.to_thread(self._build_session_manager)
        begun = asyncio.Event()

        async def live() -> None:
            """Entered and left in one task, as its task group needs."""
            async with manager.run():
                begun.set()
                await self._end.wait()

        life = asyncio.create_task(live(), name="mcp")
        life.add_done_callback(lambda _: begun.set())  # or a beginning that failed would be waited for
        await begun.wait()
        if life.done():
            life.result()
        self._life = life
        return manager

    def _build_session_manager(self) -> StreamableHTTPSessionManager:
        from mcp.server.transport_security import TransportSecuritySettings

        from watchdog.mcp_server.server import create_mcp_server

        server = create_mcp_server(self._desk, self._jobs)
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=True, allowed_hosts=self._hosts, allowed_origins=self._origins
        )
        server.streamable_http_app(
            stateless_http=True, transport_security=security, max_request_body_size=MAX_REQUEST_BYTES
        )  # what we mount is its manager; its application is one more router
        return server.session_manager
