"""An MCP server built with SDK 2.x. Its jobs advance when they are read, and end with the process.

usage: job_server.py stdio | job_server.py http PORT | job_server.py sse PORT
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

JOB_STATES = ["queued", "queued", "queued", "running", "running", "done"]
"""The state of a job at each read; the last one is repeated."""

server = MCPServer("Jobs", version="1.0")
job_read_counts: dict[str, int] = {}


@server.tool()
def export_data(format: str = "csv") -> dict[str, Any]:
    job_id = f"{format}-{len(job_read_counts) + 1}"
    job_read_counts[job_id] = 0
    return {"job_id": job_id, "poll_resource": f"job://{job_id}"}


@server.resource("job://{job_id}")
def job(job_id: str) -> str:
    job_read_counts[job_id] = count = min(job_read_counts[job_id] + 1, len(JOB_STATES))
    progress = {"progress": round(count / len(JOB_STATES) * 100), "total": 100}
    return json.dumps({"state": JOB_STATES[count - 1], "progress": progress})


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
