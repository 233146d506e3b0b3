"""The sample targets, in a process of their own: an HTTP service, an MCP server that reports scheduled tasks, a job
table with its worker, and queues with their workers.

usage: python -m watchdog.demo.targets PORT QUEUE_PORT FOLDER      (QUEUE_PORT is 0 without queues)

Reads commands from standard input, one a line: `break FAULT` and `repair FAULT`, with a DemoFault. Exits when its
standard input closes, and removes the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from asyncio import sleep
from contextlib import ExitStack
from pathlib import Path
from random import gauss
from time import monotonic, time
from typing import Any

from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, TextContent, Tool
from starlette.requests import Request
from starlette.responses import JSONResponse

from watchdog.demo import queues, worker
from watchdog.demo.faults import DemoFault

MAX_WAIT_UNTIL_JOB_STARTS_S = 15.0
"""The job during which the worker is killed starts within this time."""


class DemoTargets:
    """What is broken, and the processes of workers. `break_target` and `repair_target` are called in
    one thread; others only read `broken_since`."""

    def __init__(self, folder: Path, queue_port: int):
        self.job_file, self.queue_port = folder / worker.DEMO_JOB_DATABASE_FILENAME, queue_port
        self.broken_since: dict[DemoFault, float] = {}
        """Fault -> time by the monotonic clock."""
        self._queue_server: subprocess.Popen[bytes] | None = None
        self._workers: dict[DemoFault, tuple[ExitStack, subprocess.Popen[bytes]]] = {}

    def start_processes(self, stack: ExitStack) -> None:
        """Start the workers and the server of the queues, until the stack closes."""
        stack.callback(self._end_workers)
        self._start_worker(DemoFault.ORDERS)
        if self.queue_port:
            server = queues.start_demo_queue_process("serve", str(self.queue_port))
            self._queue_server = stack.enter_context(server)
            self._start_worker(DemoFault.EMAILS)
            self._start_worker(DemoFault.THUMBNAILS)

    def measure_broken_s(self, fault: DemoFault) -> float:
        """How long a target has been broken; 0 if it is not."""
        since = self.broken_since.get(fault)
        return 0.0 if since is None else monotonic() - since

    def break_target(self, fault: DemoFault) -> None:
        match fault:
            case DemoFault.ORDERS:
                self._kill_worker_during_job()
            case DemoFault.EMAILS:
                self._workers[fault][0].close()
            case DemoFault.THUMBNAILS:
                self._hang_queue_worker()
        self.broken_since[fault] = monotonic()

    def repair_target(self, fault: DemoFault) -> None:
        match fault:
            case DemoFault.ORDERS | DemoFault.EMAILS | DemoFault.THUMBNAILS:
                self._workers[fault][0].close()
                self._start_worker(fault)
        self.broken_since.pop(fault, None)

    def _start_worker(self, fault: DemoFault) -> None:
        exits = ExitStack()
        if fault is DemoFault.ORDERS:
            process = exits.enter_context(worker.start_demo_worker(self.job_file))
        else:
            process = exits.enter_context(queues.start_demo_queue_process("work", str(self.queue_port), fault.value))
        self._workers[fault] = exits, process

    def _hang_queue_worker(self) -> None:
        if self._queue_server is not None and self._queue_server.stdin is not None:
            self._queue_server.stdin.write(b"hang\n")
            self._queue_server.stdin.flush()

    def _end_workers(self) -> None:
        for exits, _ in self._workers.values():
            exits.close()

    def _kill_worker_during_job(self) -> None:
        exits, process = self._workers[DemoFault.ORDERS]
        deadline = monotonic() + MAX_WAIT_UNTIL_JOB_STARTS_S
        while monotonic() < deadline:
            process.send_signal(signal.SIGSTOP)  # or the job could finish before the worker is killed
            if worker.DEMO_INTERRUPTED_JOB_NAME in worker.list_running_demo_jobs(self.job_file):
                break
            process.send_signal(signal.SIGCONT)
            threading.Event().wait(0.2)
        exits.close()


class DemoMcpServer(MCPServer):
    """An MCP server with a tool, and a health check that lists its scheduled tasks."""

    def __init__(self, targets: DemoTargets):
        super().__init__("Demo search", version="4.2.1", log_level="ERROR")
        self.targets = targets
        self.add_tool(self.search)
        self.add_tool(self.health_check)

    async def list_tools(self) -> list[Tool]:
        await sleep(max(gauss(0.012, 0.003), 0))
        if self.targets.measure_broken_s(DemoFault.TOOLS):
            raise MCPError(-32603, "search index unavailable: 0 of 3 shards reachable")
        return await super().list_tools()

    def search(self, query: str) -> str:
        """Search the demo's empty index."""
        return f"no results for {query}"

    def health_check(self) -> CallToolResult:
        """Every scheduled task of this server, with its last run."""
        now = time()
        stalled_s = self.targets.measure_broken_s(DemoFault.REINDEX)
        runs = {"reindex": now - 4 - stalled_s, "registry_sync": now - 2, "session_cleanup": now - 3_000}
        tasks = [
            {"name": name, "ok": True, "last_run_at": at, "last_run_status": "success"} for name, at in runs.items()
        ]
        health: dict[str, Any] = {"healthy": True, "tasks": tasks}
        return CallToolResult(content=[TextContent(type="text", text="see tasks")], structured_content=health)


async def demo_always_ok_website_endpoint(_: Request) -> JSONResponse:
    await sleep(max(gauss(0.035, 0.006), 0))
    return JSONResponse({"status": "ok"})


def make_checkout_health_endpoint(targets: DemoTargets) -> Any:
    async def demo_checkout_health_endpoint(_: Request) -> JSONResponse:
        if targets.measure_broken_s(DemoFault.CHECKOUT):
            body = {
                "status": "unavailable",
                "db": "pool exhausted: 100 of 100 in use",
                "queue": {"failed": 12, "waiting": 61},
            }
            return JSONResponse(body, 503)
        await sleep(max(gauss(0.11, 0.02), 0))
        return JSONResponse({"status": "ok", "db": "9 of 100 in use", "queue": {"failed": 0, "waiting": 3}})

    return demo_checkout_health_endpoint


def follow_commands_until_stdin_closes(targets: DemoTargets, folder: Path) -> None:
    """Break and repair targets; then end every process, remove the folder and exit."""
    try:
        with ExitStack() as stack:
            targets.start_processes(stack)
            for line in sys.stdin:
                verb, fault = line.split()
                (targets.break_target if verb == "break" else targets.repair_target)(DemoFault(fault))
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def run_demo_targets(port: int, queue_port: int, folder: Path) -> None:
    import uvicorn

    worker.create_demo_job_table(folder / worker.DEMO_JOB_DATABASE_FILENAME)
    targets = DemoTargets(folder, queue_port)
    threading.Thread(target=follow_commands_until_stdin_closes, args=[targets, folder], daemon=True).start()

    app = DemoMcpServer(targets).streamable_http_app(session_idle_timeout=60)
    app.add_route("/", demo_always_ok_website_endpoint)
    app.add_route("/checkout/health", make_checkout_health_endpoint(targets))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)


if __name__ == "__main__":
    run_demo_targets(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
