"""Over standard input and output: one client, the one that started us."""

from __future__ import annotations

import asyncio

from watchdog.mcp_server.context import ToolContext
from watchdog.mcp_server.tool_jobs import ToolJobRunner


async def serve_mcp_stdio(context: ToolContext, stop: asyncio.Event) -> bool:
    """Until the client closes our input, or `stop` is set. False: told to stop, and a thread still waits for input."""
    from watchdog.mcp_server.server import create_mcp_server

    async with ToolJobRunner() as jobs:
        server = create_mcp_server(context, jobs)
        talking = asyncio.create_task(server.run_stdio_async(), name="mcp")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({talking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if talking.done():
            await talking
            return True
        return False
