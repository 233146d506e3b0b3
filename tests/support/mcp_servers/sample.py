"""A sample MCP server on the 2.x SDK, which reports scheduled tasks. Its first argument selects a fault.

FAULT: none, hang, is_error, stale, no_health_check.
usage: sample.py FAULT stdio | sample.py FAULT http PORT | sample.py FAULT sse PORT
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent

FAULT_NAME, TRANSPORT = sys.argv[1], sys.argv[2]
PORT = int(sys.argv[3]) if len(sys.argv) > 3 else 0

server = MCPServer("Sample", version="7.1")


def sample_tasks() -> list[dict[str, Any]]:
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


if FAULT_NAME != "no_health_check":

    @server.tool()
    async def health_check() -> CallToolResult:
        reply: dict[str, Any] = {"healthy": True, "tasks": sample_tasks()}
        is_error = False
        match FAULT_NAME:
            case "hang":
                await anyio.sleep(600)
            case "is_error":
                is_error = True
                reply["tasks"][0] |= {
                    "ok": False,
                    "last_run_status": "failed",
                    "last_run_error": "upstream returned 502",
                }
            case "stale":
                reply["tasks"][0]["last_run_at"] = time.time() - 86_400
        return CallToolResult(
            content=[TextContent(text=json.dumps(reply))], structured_content=reply, is_error=is_error
        )


@server.resource("report://today")
def report() -> str:
    return json.dumps({"status": "complete", "rows": 3})


if __name__ == "__main__":
    if TRANSPORT == "stdio":
        server.run("stdio")
    elif TRANSPORT == "sse":
        server.run("sse", host="127.0.0.1", port=PORT)
    else:
        server.run("streamable-http", host="127.0.0.1", port=PORT)
