"""The cost of HTTP exchanges on fresh connections: CPU seconds per 1,000, user and system, of this process alone.

usage: python -m benchmarks.http_exchange [EXCHANGES]     against a local nginx, or a small server if there is none
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvloop

from benchmarks.measurements import Measurement
from tests.support import nginx
from watchdog.net import NetworkAccess
from watchdog.net.http import HttpRequest
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.http import HttpProbe

CONCURRENCY = 20
SMALL_SERVER_SOURCE = """
import asyncio
async def talk(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 12\\r\\n\\r\\n"
    writer.write(head + b'{"ok": true}')
    writer.close()
async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def http_target() -> Iterator[tuple[str, str]]:
    """Yields the name and the URL of the server."""
    if nginx.find_nginx():
        with nginx.running_nginx() as url:
            yield "nginx", url
        return
    command = [sys.executable, "-c", SMALL_SERVER_SOURCE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip() if process.stdout else ""
        yield "a small server", f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def measure_cost(operation: Callable[[], Awaitable[object]], count: int) -> tuple[float, float]:
    """CPU seconds and wall seconds per 1,000, after a warm-up."""

    async def repeat(times: int) -> None:
        for _ in range(times):
            await operation()

    await asyncio.gather(*(repeat(5) for _ in range(CONCURRENCY)))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(repeat(count // CONCURRENCY) for _ in range(CONCURRENCY)))
    thousands = count // CONCURRENCY * CONCURRENCY / 1000
    return (time.process_time() - cpu) / thousands, (time.perf_counter() - wall) / thousands


async def compare_costs(url: str, count: int) -> dict[str, tuple[float, float]]:
    plain = HttpProbe.model_validate({"name": "plain", "http": url})
    with_expressions = HttpProbe.model_validate(
        {
            "name": "with expressions",
            "http": url,
            "expect": ["status == 200", "body.ok"],
            "prefer": ["elapsed_ms <= 800"],
        }
    )
    async with NetworkAccess() as network:

        async def observe(probe: HttpProbe) -> None:
            observation = await probe.observe(ProbeAttemptContext(0, 0, 10.0, "", {}, network))
            if observation.reason:
                raise RuntimeError(observation)

        return {
            "exchange": await measure_cost(lambda: network.send_http_request(HttpRequest(url)), count),
            "probe": await measure_cost(lambda: observe(plain), count),
            "probe with expressions": await measure_cost(lambda: observe(with_expressions), count),
        }


def prove() -> Iterator[Measurement]:
    with http_target() as (server, url):
        for row, (cpu, _) in uvloop.run(compare_costs(url, 4_000)).items():
            max_value = 0.65 if row == "exchange" else None
            yield Measurement(f"{row} with {server}, CPU per 1,000", cpu, "s", max_value)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    with http_target() as (server, url):
        print(f"{number} fresh exchanges with {server}, {CONCURRENCY} at a time, {os.cpu_count()} cores")
        print(f"{'':24}{'loop':>8}{'CPU s / 1,000':>16}{'wall s / 1,000':>16}")
        for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
            for row, (cpu, wall) in run(compare_costs(url, number)).items():
                print(f"{row:24}{name:>8}{cpu:16.3f}{wall:16.3f}")


if __name__ == "__main__":
    main()
