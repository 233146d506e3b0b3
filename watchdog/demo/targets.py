"""The sample targets, in a process of their own: an HTTP service, an MCP server that reports scheduled tasks, and a
job table with its worker.

usage: python -m watchdog.demo.targets PORT FOLDER      (exits when its standard input closes, and removes the folder)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, time
from typing import Any

from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent
from starlette.requests import Request
from starlette.responses import JSONResponse

from watchdog.demo import worker

DEMO_CHECKOUT_OUTAGE_START_AND_END_S = (30.0, 75.0)
"""When the checkout fails: from, until, in seconds since the start."""
DEMO_REINDEX_STALE_START_AND_END_S = (30.0, 90.0)
"""When the task `reindex` does not run."""
DEMO_WORKER_OUTAGE_START_AND_END_S = (30.0, 75.0)
"""When the worker is dead. It dies during its slow job, so slightly later."""

demo_mcp_server = MCPServer("Demo search", version="4.2.1", log_level="ERROR")
started_monotonic_s = monotonic()


def measure_demo_uptime_s() -> float:
    return monotonic() - started_monotonic_s


async def demo_always_ok_website_endpoint(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def demo_checkout_health_endpoint(_: Request) -> JSONResponse:
    if DEMO_CHECKOUT_OUTAGE_START_AND_END_S[0] <= measure_demo_uptime_s() < DEMO_CHECKOUT_OUTAGE_START_AND_END_S[1]:
        body = {
            "status": "unavailable",
            "db": "pool exhausted: 100 of 100 in use",
            "queue": {"failed": 12, "waiting": 61},
        }
        return JSONResponse(body, 503)
    return JSONResponse({"status": "ok", "db": "9 of 100 in use", "queue": {"failed": 0, "waiting": 3}})


@demo_mcp_server.tool()
def search(query: str) -> str:
    """Search the demo's empty index."""
    return f"no results for {query}"


@demo_mcp_server.tool()
def health_check() -> CallToolResult:
    """Every scheduled task of this server, with its last run."""
    now = time()
    stale_from, stale_until = DEMO_REINDEX_STALE_START_AND_END_S
    stalled_s = measure_demo_uptime_s() - stale_from if stale_from <= measure_demo_uptime_s() < stale_until else 0.0
    runs = {"reindex": now - 4 - stalled_s, "registry_sync": now - 2, "session_cleanup": now - 3_000}
    tasks = [{"name": name, "ok": True, "last_run_at": at, "last_run_status": "success"} for name, at in runs.items()]
    health: dict[str, Any] = {"healthy": True, "tasks": tasks}
    return CallToolResult(content=[TextContent(type="text", text="see tasks")], structured_content=health)


def run_demo_worker_with_outages(folder: Path) -> None:
    """Start, kill and restart the worker until standard input closes; then remove the folder and exit."""
    running: subprocess.Popen[bytes] | None = None
    file = folder / worker.DEMO_JOB_DATABASE_FILENAME
    try:
        while not worker.has_stdin_closed_within(0.2):
            dead = (
                DEMO_WORKER_OUTAGE_START_AND_END_S[0] <= measure_demo_uptime_s() < DEMO_WORKER_OUTAGE_START_AND_END_S[1]
            )
            if running is None and not dead:
                command = [sys.executable, "-m", "watchdog.demo.worker", str(file)]
                running = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own
            elif running is not None and dead:
                running.send_signal(signal.SIGSTOP)  # or the job could finish before the worker is killed
                if worker.DEMO_INTERRUPTED_JOB_NAME in worker.list_running_demo_jobs(file):
                    _kill_demo_process_and_wait(running)
                    running = None
                else:
                    running.send_signal(signal.SIGCONT)
        if running is not None:
            _kill_demo_process_and_wait(running)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def _kill_demo_process_and_wait(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def run_demo_targets(port: int, folder: Path) -> None:
    import uvicorn

    worker.create_demo_job_table(folder / worker.DEMO_JOB_DATABASE_FILENAME)
    threading.Thread(target=run_demo_worker_with_outages, args=[folder], daemon=True).start()

    app = demo_mcp_server.streamable_http_app(session_idle_timeout=60)
    app.add_route("/", demo_always_ok_website_endpoint)
    app.add_route("/checkout/health", demo_checkout_health_endpoint)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    run_demo_targets(int(sys.argv[1]), Path(sys.argv[2]))
