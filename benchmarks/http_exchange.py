"""What fresh HTTP exchanges cost: CPU seconds per 1,000, user and system, of this process alone.

usage: python -m benchmarks.http_exchange [EXCHANGES]     against a local nginx, or a small server where there is none
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

from benchmarks.table import Figure
from tests import nginx
from watchdog.probes.base import Attempt
from watchdog.probes.http import HttpProbe
from watchdog.wire import Wire
from watchdog.wire.http import Request

AT_ONCE = 20
SMALL_SERVER = """
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
def target() -> Iterator[tuple[str, str]]:
    """What it is, and its URL."""
    if nginx.installed():
        with nginx.running() as url:
            yield "nginx", url
        return
    command = [sys.executable, "-c", SMALL_SERVER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip() if process.stdout else ""
        yield "a small server", f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def measure(once: Callable[[], Awaitable[object]], number: int) -> tuple[float, float]:
    """CPU seconds and wall seconds per 1,000, after a warm-up."""

    async def some(n: int) -> None:
        for _ in range(n):
            await once()

    await asyncio.gather(*(some(5) for _ in range(AT_ONCE)))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(some(number // AT_ONCE) for _ in range(AT_ONCE)))
    done = number // AT_ONCE * AT_ONCE / 1000
    return (time.process_time() - cpu) / done, (time.perf_counter() - wall) / done


async def compare(url: str, number: int) -> dict[str, tuple[float, float]]:
    plain = HttpProbe.model_validate({"name": "plain", "http": url})
    judged = HttpProbe.model_validate(
        {"name": "judged", "http": url, "expect": ["status == 200", "body.ok"], "prefer": ["elapsed_ms <= 800"]}
    )
    async with Wire() as wire:

        async def observe(probe: HttpProbe) -> None:
            seen = await probe.observe(Attempt(0, 0, 10.0, "", {}, wire))
            if seen.reason:
                raise RuntimeError(seen)

        return {
            "exchange": await measure(lambda: wire.exchange(Request(url)), number),
            "probe": await measure(lambda: observe(plain), number),
            "probe with expressions": await measure(lambda: observe(judged), number),
        }


def prove() -> Iterator[Figure]:
    with target() as (what, url):
        for row, (cpu, _) in uvloop.run(compare(url, 4_000)).items():
            bound = 0.65 if row == "exchange" else None
            yield Figure(f"{row} with {what}, CPU per 1,000", cpu, "s", bound)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    with target() as (what, url):
        print(f"{number} fresh exchanges with {what}, {AT_ONCE} at once, {os.cpu_count()} cores")
        print(f"{'':24}{'loop':>8}{'CPU s / 1,000':>16}{'wall s / 1,000':>16}")
        for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
            for row, (cpu, wall) in run(compare(url, number)).items():
                print(f"{row:24}{name:>8}{cpu:16.3f}{wall:16.3f}")


if __name__ == "__main__":
    main()
