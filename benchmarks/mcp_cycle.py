"""The CPU of a cycle with an MCP server beside the bare SDK's: tools/list and health_check, each on a new connection.

Both know the server's protocol version from an earlier cycle. The SDK shares its transport between cycles, checks
nothing and keeps nothing; Watchdog bounds, times and masks everything, validates schemas and compares contracts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median

import httpx2
import uvloop
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.measurements import Measurement
from tests.support.ports import find_free_port
from tests.support.third_party import listening_process
from watchdog.domain.model import Json, Outcome
from watchdog.net import NetworkAccess
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.mcp import McpProbe

MAX_RATIO = 1.5
ROUNDS, CYCLES, WARM_UP_CYCLES = 5, 100, 20
PROTOCOL_VERSION = "2026-07-28"
TIMEOUT_S = 10.0
SAMPLE_SERVER = Path(__file__).parents[1] / "tests/support/mcp_servers/sample.py"


class SharedTransport(httpx2.AsyncBaseTransport):
    """A transport that outlives the clients which use it."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._inner.handle_async_request(request)


class SdkCycle:
    """The bare SDK."""

    def __init__(self, url: str) -> None:
        self._url, self._transport = url, SharedTransport()

    async def run(self) -> None:
        async with httpx2.AsyncClient(transport=self._transport, timeout=TIMEOUT_S) as http_client:
            transport = streamable_http_client(self._url, http_client=http_client)
            client = Client(transport, mode=PROTOCOL_VERSION, cache=None)
            async with client:
                tools = await client.list_tools()
                result = await client.call_tool("health_check", {})
        if not tools.tools or result.is_error:
            raise RuntimeError(f"the server failed: {result}")


class WatchdogCycle:
    """A probe, with what it has remembered of the server."""

    def __init__(self, url: str, network: NetworkAccess) -> None:
        self._probe, self._network = McpProbe.model_validate({"name": "probe", "mcp": url}), network
        self._state: dict[str, Json] = {}

    async def run(self) -> None:
        context = ProbeAttemptContext(0, 0, TIMEOUT_S, "", self._state, self._network)
        observation = await self._probe.observe(context)
        if observation.outcome is not Outcome.PASS:
            raise RuntimeError(f"the probe failed: {observation.message}")
        self._state |= observation.state_updates


def prove() -> Iterator[Measurement]:
    port = find_free_port()
    with listening_process([sys.executable, str(SAMPLE_SERVER), "none", "http", str(port)], port):
        sdk, watchdog = uvloop.run(measure_rounds(f"http://127.0.0.1:{port}/mcp"))
    yield Measurement("SDK alone, median", median(sdk), "CPU ms")
    yield Measurement("Watchdog, median", median(watchdog), "CPU ms")
    ratios = [own / other for own, other in zip(watchdog, sdk, strict=True)]
    yield Measurement(f"ratio, median of {ROUNDS} rounds", median(ratios), "", MAX_RATIO)


async def measure_rounds(url: str) -> tuple[list[float], list[float]]:
    """CPU ms of a cycle of the SDK and of Watchdog, alternating."""
    of_sdk: list[float] = []
    of_watchdog: list[float] = []
    async with NetworkAccess() as network:
        sdk, watchdog = SdkCycle(url), WatchdogCycle(url, network)
        for cycle in (sdk, watchdog):
            await measure_cpu_ms(cycle.run, WARM_UP_CYCLES)
        for number in range(1, ROUNDS + 1):
            of_sdk.append(await measure_cpu_ms(sdk.run, CYCLES))
            of_watchdog.append(await measure_cpu_ms(watchdog.run, CYCLES))
            print(f"  round {number}: SDK {of_sdk[-1]:.2f}, Watchdog {of_watchdog[-1]:.2f} CPU ms", flush=True)
    return of_sdk, of_watchdog


async def measure_cpu_ms(run: Callable[[], Awaitable[None]], count: int) -> float:
    before = time.process_time()
    for _ in range(count):
        await run()
    return (time.process_time() - before) * 1000 / count
