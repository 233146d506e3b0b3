"""The MCP server over standard input and output, for the client that started it."""

from __future__ import annotations

import asyncio

from watchdog.mcp_server.context import ToolContext
from watchdog.mcp_server.tool_jobs import ToolJobRunner


async def serve_mcp_stdio(context: ToolContext, stop: asyncio.Event) -> bool:
    """Serves until the client closes standard input, or `stop` is set. False: a thread still waits for input."""
    from watchdog.mcp_server.server import create_mcp_server

    async with ToolJobRunner() as job_runner:
        server = create_mcp_server(context, job_runner)
        server_task = asyncio.create_task(server.run_stdio_async(), name="mcp")
        stop_task = asyncio.create_task(stop.wait())
        await asyncio.wait({server_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
        stop_task.cancel()
        if server_task.done():
            await server_task
            return True
        return False
