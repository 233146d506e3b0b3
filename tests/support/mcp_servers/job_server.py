"""An MCP server built with SDK 2.x. Its jobs take 0.6 s and end with the process.

usage: job_server.py stdio | job_server.py http PORT | job_server.py sse PORT
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

JOB_DURATION_S = 0.6
"""A job is queued for the first half and running for the second."""

server = MCPServer("Jobs", version="1.0")
job_started_at: dict[str, float] = {}


@server.tool()
def export_data(format: str = "csv") -> dict[str, Any]:
    job_id = f"{format}-{len(job_started_at) + 1}"
    job_started_at[job_id] = time.monotonic()
    return {"job_id": job_id, "poll_resource": f"job://{job_id}"}


@server.resource("job://{job_id}")
def job(job_id: str) -> str:
    elapsed = time.monotonic() - job_started_at[job_id]
    state = "queued" if elapsed < JOB_DURATION_S / 2 else "running" if elapsed < JOB_DURATION_S else "done"
    return json.dumps({"state": state, "progress": {"progress": round(elapsed / JOB_DURATION_S * 100), "total": 100}})


@server.tool()
async def wait(behavior: str, context: Context) -> dict[str, Any]:
    """Returns when it is done. `behavior`: works, stalls, hangs or fails."""
    for step in range(1, 4):
        await context.report_progress(step * 10, 100)
        await anyio.sleep(0.1)
        if behavior == "stalls":
            await context.report_progress(40, 100)
            await anyio.sleep(600)
    if behavior == "hangs":
        await anyio.sleep(600)
    return {"healthy": behavior == "works", "checks": {"database": "ok"}, "error": "no disk space"}


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    elif sys.argv[1] == "sse":
        server.run("sse", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
