"""The MCP server over streamable HTTP, inside the web application."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from watchdog.config_values import split_listen_address
from watchdog.domain.local_hosts import LOOPBACK_NAMES, is_wildcard_host
from watchdog.mcp_server.context import McpToolContext
from watchdog.mcp_server.tool_jobs import WatchdogMcpToolJobRunner

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.types import Receive, Scope, Send

MAX_INCOMING_MCP_REQUEST_BYTES = 64 * 1024
"""The arguments of every tool are short."""


def list_allowed_hosts_and_origins(listen: str, public_url: str) -> tuple[list[str], list[str]]:
    """The Host and Origin headers that requests may have: this machine's, and those of the public URL."""
    own = [] if is_wildcard_host(split_listen_address(listen)[0]) else [listen.rpartition(":")[0]]
    hosts = [f"{name}{port}" for name in (*LOOPBACK_NAMES, *own) for port in ("", ":*")]
    origins = [f"http://{host}" for host in hosts]
    if public_url:
        public = urlsplit(public_url)
        hosts.append(public.netloc)
        origins.append(f"{public.scheme}://{public.netloc}")
    return hosts, origins


class LazyMcpApp:
    """An ASGI application that is built at its first request: loading the SDK takes half a second, and many
    installations never use it.

    `allowed_hosts`: host names (with a port or `:*`) and `allowed_origins`: origins that requests may name. Answers
    every version of the protocol, each request by itself, without sessions.
    """

    def __init__(self, context: McpToolContext, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]):
        self._context = context
        self._allowed_hosts, self._allowed_origins = list(allowed_hosts), list(allowed_origins)
        self._security: TransportSecuritySettings | None = None
        self._job_runner = WatchdogMcpToolJobRunner()
        self._start_lock = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._manager_task: asyncio.Task[None] | None = None
        self._shutdown = asyncio.Event()

    def allow(self, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]) -> None:
        """Other hosts and origins from now on. Jobs of tools go on."""
        self._allowed_hosts, self._allowed_origins = list(allowed_hosts), list(allowed_origins)
        if self._security is not None:
            self._security.allowed_hosts, self._security.allowed_origins = self._allowed_hosts, self._allowed_origins

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._job_runner.__aexit__()
        self._shutdown.set()
        if self._manager_task is not None:
            await self._manager_task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._start_lock:
            if self._manager is None:
                self._manager = await self._start_session_manager()
        await self._manager.handle_request(scope, receive, send)

    async def _start_session_manager(self) -> StreamableHTTPSessionManager:
        manager = await asyncio.to_thread(self._build_session_manager)
        started = asyncio.Event()

        async def run_session_manager() -> None:
            """Enters and leaves the manager in one task, as its task group requires."""
            async with manager.run():
                started.set()
                await self._shutdown.wait()

        task = asyncio.create_task(run_session_manager(), name="mcp")
        task.add_done_callback(lambda _: started.set())  # otherwise a failed start would never be noticed
        await started.wait()
        if task.done():
            task.result()
        self._manager_task = task
        return manager

    def _build_session_manager(self) -> StreamableHTTPSessionManager:
        from mcp.server.transport_security import TransportSecuritySettings

        from watchdog.mcp_server.server import create_mcp_server

        server = create_mcp_server(self._context, self._job_runner)
        self._security = TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=self._allowed_hosts,
            allowed_origins=self._allowed_origins,
        )
        server.streamable_http_app(
            stateless_http=True, transport_security=self._security, max_request_body_size=MAX_INCOMING_MCP_REQUEST_BYTES
        )  # only its manager is used; the application around it is just another router
        return server.session_manager
