"""A sample MCP server on the 2.x SDK whose faults are chosen by its first argument.

usage: sample.py FAULT stdio | sample.py FAULT http PORT | sample.py FAULT sse PORT
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent

FAULT, TRANSPORT = sys.argv[1], sys.argv[2]
PORT = int(sys.argv[3]) if len(sys.argv) > 3 else 0

server = MCPServer("Sample", version="7.1")


def tasks() -> list[dict[str, Any]]:
    now = time.time()
    return [
        {"name": "registry_sync", "ok": True, "last_run_at": now - 60, "last_run_status": "success", "rows": 42},
        {"name": "session_cleanup", "ok": True, "staleness_ms": 3_600_000, "last_run_status": "success"},
        {"name": "nightly_report", "ok": True, "last_run_at": None, "last_run_status": "never"},
    ]


@server.tool()
def search(query: str) -> str:
    """Needs an argument."""
    return f"nothing found for {query}"


if FAULT != "no_health_check":

    @server.tool()
    async def health_check() -> CallToolResult:
        reply: dict[str, Any] = {"healthy": True, "tasks": tasks()}
        is_error = False
        match FAULT:
            case "hang":
                await anyio.sleep(600)
            case "is_error":
                is_error = True
                reply["tasks"][0] |= {"ok": False, "last_run_status": "failed", "last_run_error": "upstream said 502"}
            case "plain_error":
                return CallToolResult(content=[TextContent(text="database is locked")], is_error=True)
            case "stale":
                reply["tasks"][0]["last_run_at"] = time.time() - 86_400
            case "bad_tasks":
                reply["tasks"] = ["sync", {"ok": True}, {"name": "odd", "last_run_at": "yesterday"}]
            case "no_tasks":
                del reply["tasks"]
            case "unhealthy":
                reply["healthy"] = False
        return CallToolResult(
            content=[TextContent(text=json.dumps(reply))], structured_content=reply, is_error=is_error
        )


@server.resource("report://today")
def report() -> str:
    return json.dumps({"status": "complete", "rows": 3})


def fork_grandchildren() -> None:
    """One in our session, one in a session of its own; both outlive us unless somebody looks for them."""
    for detach in (False, True):
        if os.fork() == 0:
            if detach:
                os.setsid()
            time.sleep(600)
            os._exit(0)


if __name__ == "__main__":
    if FAULT == "forks":
        fork_grandchildren()
    if TRANSPORT == "stdio":
        server.run("stdio")
    elif TRANSPORT == "sse":
        server.run("sse", host="127.0.0.1", port=PORT)
    else:
        server.run("streamable-http", host="127.0.0.1", port=PORT)
