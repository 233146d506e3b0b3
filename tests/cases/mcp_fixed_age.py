"""An MCP server whose health_check computes `ok` from one fixed age (10 min) for tasks of different schedules.

All tasks are on time. Right: pass, because the operator's limits decide. With --stale, cache_warm last ran 3 h ago.
Right: `task.stale`, which names cache_warm. usage: mcp_fixed_age.py PORT [--stale]
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent

MAX_AGE_MS = 600_000
AGES_S = {
    "registry_sync": 120,
    "cache_warm": 10_800 if "--stale" in sys.argv else 1_200,
    "session_cleanup": 28_800,
    "health_snapshot": 300,
}
server, started_at = MCPServer("tasks"), time.time()


def report_task(name: str, age_s: float) -> dict[str, Any]:
    age_ms = int((time.time() - started_at + age_s) * 1000)
    return {
        "name": name,
        "ok": age_ms < MAX_AGE_MS,
        "last_run_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started_at - age_s)),
        "last_run_status": "ok",
        "last_run_error": None,
        "staleness_ms": age_ms,
    }


@server.tool()
async def health_check() -> CallToolResult:
    tasks = [report_task(name, age_s) for name, age_s in AGES_S.items()]
    healthy = all(task["ok"] for task in tasks)
    text = json.dumps({"healthy": healthy, "tasks": tasks})
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=not healthy)


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
