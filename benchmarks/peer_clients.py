"""Python's HTTP clients alone: requests on fresh connections at a rate, and the CPU of this process.

usage: python -m benchmarks.peer_clients CLIENT URL CA_FILE RATE DURATION_S     prints requests and CPU ms as JSON
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiohttp
import httpx
import uvloop

Get: TypeAlias = Callable[[str], Awaitable[int]]
WARM_UP_S = 2


@asynccontextmanager
async def open_httpx(tls: ssl.SSLContext) -> AsyncIterator[Get]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=tls, trust_env=False, limits=limits) as client:

        async def get(url: str) -> int:
            return (await client.get(url)).status_code

        yield get


@asynccontextmanager
async def open_aiohttp(tls: ssl.SSLContext) -> AsyncIterator[Get]:
    connector = aiohttp.TCPConnector(force_close=True, ssl=tls, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get(url: str) -> int:
            async with session.get(url) as response:
                await response.read()
                return response.status

        yield get


CLIENTS = {"httpx": open_httpx, "aiohttp": open_aiohttp}


async def get_at_rate(get: Get, url: str, rate: int, duration_s: int) -> int:
    """Returns how many requests there were; all have to succeed."""
    loop = asyncio.get_running_loop()
    started, statuses = loop.time(), []

    async def get_and_note() -> None:
        statuses.append(await get(url))

    async with asyncio.TaskGroup() as requests:
        for number in range(rate * duration_s):
            if (delay := started + number / rate - loop.time()) > 0:
                await asyncio.sleep(delay)
            requests.create_task(get_and_note())
    if set(statuses) != {200}:
        raise RuntimeError(f"statuses other than 200: {set(statuses)}")
    return len(statuses)


async def measure_client(client: str, url: str, ca_file: str, rate: int, duration_s: int) -> dict[str, float]:
    async with CLIENTS[client](ssl.create_default_context(cafile=ca_file)) as get:
        await get_at_rate(get, url, rate, WARM_UP_S)
        before = resource.getrusage(resource.RUSAGE_SELF)
        count = await get_at_rate(get, url, rate, duration_s)
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"requests": count, "cpu_ms": cpu_s * 1000}


if __name__ == "__main__":
    name, url, ca_file, rate, duration_s = sys.argv[1:]
    print(json.dumps(uvloop.run(measure_client(name, url, ca_file, int(rate), int(duration_s)))))
