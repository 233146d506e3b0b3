"""The sample targets, in a process of their own: an HTTP service and an MCP server that reports scheduled tasks.

usage: python -m watchdog.demo.targets PORT      (it ends with its standard input)
"""

from __future__ import annotations

import os
import sys
import threading
from time import monotonic, time
from typing import Any

from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent
from starlette.requests import Request
from starlette.responses import JSONResponse

BROKEN = (30.0, 75.0)
"""From when to when the checkout is broken, in seconds since the start."""
STALE = (30.0, 90.0)
"""From when to when the task `reindex` does not run."""

server = MCPServer("Demo search", version="4.2.1", log_level="ERROR")
started = monotonic()


def age() -> float:
    return monotonic() - started


async def website(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def checkout(_: Request) -> JSONResponse:
    if BROKEN[0] <= age() < BROKEN[1]:
        why = {
            "status": "unavailable",
            "db": "pool exhausted: 100 of 100 in use",
            "queue": {"failed": 12, "waiting": 61},
        }
        return JSONResponse(why, 503)
    return JSONResponse({"status": "ok", "db": "9 of 100 in use", "queue": {"failed": 0, "waiting": 3}})


@server.tool()
def search(query: str) -> str:
    """Search the demo's empty index."""
    return f"nothing found for {query}"


@server.tool()
def health_check() -> CallToolResult:
    """Every scheduled task of this server, with its last run."""
    now, stalled = time(), age() - STALE[0] if STALE[0] <= age() < STALE[1] else 0.0
    runs = {"reindex": now - 4 - stalled, "registry_sync": now - 2, "session_cleanup": now - 3_000}
    tasks = [{"name": name, "ok": True, "last_run_at": at, "last_run_status": "success"} for name, at in runs.items()]
    answer: dict[str, Any] = {"healthy": True, "tasks": tasks}
    return CallToolResult(content=[TextContent(type="text", text="see tasks")], structured_content=answer)


def end_with_the_demo() -> None:
    """The other end of our standard input is held by the demo: it closes however the demo ends."""
    sys.stdin.read()
    os._exit(0)


def main(port: int) -> None:
    import uvicorn

    threading.Thread(target=end_with_the_demo, daemon=True).start()

    app = server.streamable_http_app(session_idle_timeout=60)
    app.add_route("/", website)
    app.add_route("/checkout/health", checkout)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
