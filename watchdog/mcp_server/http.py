"""Over streamable HTTP, inside the pages' application."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from watchdog.mcp_server.desk import Desk
from watchdog.mcp_server.jobs import Jobs

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.types import Receive, Scope, Send

LARGEST = 64 * 1024
"""Bytes of a request: none of our tools takes more than a name."""


class Mounted:
    """An ASGI application that the first request builds: loading the SDK takes half a second, and many never ask.

    `hosts`: the names (with port, or `:*`) and `origins`: the sites that a request may have been sent to and from.
    Requests of both protocol eras are answered, each by itself, without sessions.
    """

    def __init__(self, desk: Desk, hosts: Sequence[str], origins: Sequence[str]):
        self._desk, self._hosts, self._origins = desk, list(hosts), list(origins)
        self._jobs = Jobs()
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
                self._manager = await self._open()
        await self._manager.handle_request(scope, receive, send)

    async def _open(self) -> StreamableHTTPSessionManager:
        manager = await asyncio.to_thread(self._build)
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

    def _build(self) -> StreamableHTTPSessionManager:
        from mcp.server.transport_security import TransportSecuritySettings

        from watchdog.mcp_server.server import make_server

        server = make_server(self._desk, self._jobs)
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=True, allowed_hosts=self._hosts, allowed_origins=self._origins
        )
        server.streamable_http_app(
            stateless_http=True, transport_security=security, max_request_body_size=LARGEST
        )  # what we mount is its manager; its application is one more router
        return server.session_manager
