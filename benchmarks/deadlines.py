"""How punctually time limits end what hangs: the overshoot of each, and the CPU of reading configurations.

The tests only check that a hang ends; how fast depends on the machine, and is measured here.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import sqlalchemy as sa

from benchmarks.measurements import Measurement
from tests.support.command_line import subprocess_env
from tests.support.mcp_probe_runs import run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.polling import wait_until
from tests.support.probe_runs import run_probe
from tests.support.regen import BAD_CONFIG_FOLDER, bad_config_error
from tests.support.scripted_servers import running_server, send_forever
from tests.support.silent_server import SilentServer
from tests.support.watchdog_process import run_watchdog
from watchdog.config.load import load_config
from watchdog.net import NetworkAccess
from watchdog.net.http import HttpRequest
from watchdog.probes import JobsProbe

REPETITIONS = 5
"""The slowest one counts."""
DEADLINE_S = 1.0
MCP_PROGRAM = "import time; time.sleep(600)"
FLEET_CONFIG = "probes:\n" + "".join(
    f"  - name: API {i}\n    group: Core\n    tags: [prod, eu]\n"
    f'    http: {{url: "https://api{i}.acme.example/", headers: {{Authorization: "Bearer ${{API_TOKEN}}"}}}}\n'
    f'    expect: ["status == 200", "body.queue.failed <= {i}"]\n    prefer: ["elapsed_ms <= 800"]\n'
    for i in range(500)
)
ENDLESS_QUERY = (
    "SELECT i AS id, 'x' AS job_type, 'failed' AS status, i AS completed_at FROM"
    " (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900000000) SELECT i FROM n) AS n"
)


def prove() -> Iterator[Measurement]:
    yield from _measure_configuration()
    yield Measurement("an HTTP response that never ends, over its deadline", _slowest(_endless_http), "s", 1.0)
    yield Measurement("an MCP call over HTTP that hangs, over its deadline", _slowest(_hanging_mcp_http), "s", 1.0)
    yield Measurement("an MCP server process that hangs, over its deadline", _slowest(_hanging_mcp_process), "s", 4.0)
    with tempfile.TemporaryDirectory() as folder:
        durations = [_endless_statement(Path(folder)) for _ in range(REPETITIONS)]
        yield Measurement("a SQL statement that never ends, in all", max(total for total, _ in durations), "s", 6.0)
        yield Measurement("event loop blocked meanwhile, maximum", max(lag for _, lag in durations), "s", 1.5)
        yield Measurement("shutdown with 50 runs in progress", _shutdown_with_runs_in_progress(Path(folder)), "s", 10.0)
        yield Measurement("command of `exec` starts while Watchdog hangs", _exec_start(Path(folder)), "s", 4.5)


def _measure_configuration() -> Iterator[Measurement]:
    files = sorted(BAD_CONFIG_FOLDER.glob("*.yaml"))
    started = time.process_time()
    for file in files:
        bad_config_error(file)
    yield Measurement(
        "CPU to refuse a bad configuration, average", (time.process_time() - started) / len(files), "s", 0.1
    )
    started = time.process_time()
    load_config(Path("watchdog.yaml"), FLEET_CONFIG, {"API_TOKEN": "0123456789"})
    yield Measurement("CPU to load 500 probes", time.process_time() - started, "s", 1.0)


def _slowest(overshoot_s: Callable[[], Awaitable[float]]) -> float:
    async def measure() -> float:
        return await overshoot_s()

    asyncio.run(measure())  # loads what is loaded once
    return max(asyncio.run(measure()) for _ in range(REPETITIONS))


async def _endless_http() -> float:
    response = send_forever(b"x", 0.01, first=b"HTTP/1.1 200 OK\r\n\r\n")
    async with running_server(response) as server, NetworkAccess() as network:
        started = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await network.send_http_request(HttpRequest(server.url_of()))
        except TimeoutError:
            return time.monotonic() - started - DEADLINE_S
    raise AssertionError("the response ended")


async def _hanging_mcp_http() -> float:
    async with running_raw_server({"tools/call": RawMcpResponse(hang=True)}) as server:
        started = time.monotonic()
        await run_mcp_probe({"url": server.url}, timeout_s=DEADLINE_S)
        return time.monotonic() - started - DEADLINE_S


async def _hanging_mcp_process() -> float:
    started = time.monotonic()
    await run_mcp_probe({"command": [sys.executable, "-c", MCP_PROGRAM]}, timeout_s=DEADLINE_S)
    return time.monotonic() - started - DEADLINE_S


def _endless_statement(folder: Path) -> tuple[float, float]:
    """Seconds until the poll ends, and the longest time for which the event loop was blocked."""
    url = f"sqlite:///{folder}/app.db"
    with closing(sa.create_engine(url, poolclass=sa.NullPool).connect()) as connection:
        connection.exec_driver_sql(f"CREATE VIEW IF NOT EXISTS endless AS {ENDLESS_QUERY}")
    columns = {"type": "job_type", "status": "status", "finished": "completed_at"}
    statuses = {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]}
    source = {"url": url, "table": "endless", "columns": columns, "statuses": statuses}
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": source}})

    async def measure() -> tuple[float, float]:
        started = time.monotonic()
        async with _loop_lag() as lags:
            await run_probe(probe)
        return time.monotonic() - started, max(lags)

    return asyncio.run(measure())


@asynccontextmanager
async def _loop_lag() -> AsyncIterator[list[float]]:
    lags = [0.0]

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - before - 0.01)

    task = asyncio.create_task(watch())
    try:
        yield lags
    finally:
        task.cancel()


def _shutdown_with_runs_in_progress(folder: Path) -> float:
    with closing(SilentServer()) as silent:
        probes = [
            {"name": f"P{i}", "every": "2s", "timeout": "5m", "http": f"http://127.0.1.{i}:{silent.port}/"}
            for i in range(1, 51)
        ]
        config = folder / "watchdog.yaml"
        config.write_text(json.dumps({"server": {"listen": "127.0.0.1:0"}, "probes": probes}))
        with run_watchdog(config) as run:
            wait_until(lambda: len(silent.connections) >= 50)
            started = time.monotonic()
            run.stop()
            return time.monotonic() - started


def _exec_start(folder: Path) -> float:
    """Seconds until the first output of the command."""
    with closing(SilentServer()) as silent:
        env = subprocess_env({"WATCHDOG_CHECK_IN_URL": f"http://127.0.0.1:{silent.port}/in/0123456789abcdef"})
        program = [sys.executable, "-c", "print('started', flush=True)"]
        command = [sys.executable, "-m", "watchdog.cli", "exec", "Backup", "--", *program]
        started = time.monotonic()
        with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
            assert job.stdout is not None
            assert job.stdout.readline()
            duration = time.monotonic() - started
            job.terminate()
        return duration
