"""Systems that canaries are sent through, with the faults of their workers and brokers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

from benchmarks.aftermath_harness import INTERVAL_S, BrokenSystem, Fault
from tests.support.job_api import FakeJobApi, ScriptedResponse
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from tests.support.ports import find_free_port
from tests.support.postgres import running_postgres
from tests.support.queue_harness import QueueHarness
from tests.support.queue_harnesses import QUEUE_HARNESSES, PostgresHarness
from tests.support.redis_server import RedisServer
from tests.support.third_party import ThirdPartyServers, install_third_party_servers
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.queues import CanaryJobRequest, QueueConnectContext
from watchdog.service.clock import read_wall_clock_ms

FINISH_WITHIN_S, CALL_TIMEOUT_S = 3, 3
BACKLOG_SIZE = 5


class CanarySystem(BrokenSystem):
    """A system with a canary, and with a probe of the backlog if it has a queue."""

    watched = "canary"

    def faults(self) -> list[Fault]:
        everything = frozenset((probe["id"], "") for probe in self.probes())
        canary = frozenset([(self.probe_id("canary"), "")])
        return [
            Fault("worker", everything, FINISH_WITHIN_S, FINISH_WITHIN_S),
            Fault("sentinel", canary, FINISH_WITHIN_S + INTERVAL_S, FINISH_WITHIN_S, repaired_at_once=True),
            Fault("broker", everything, FINISH_WITHIN_S, FINISH_WITHIN_S),
        ]


class QueueSystem(CanarySystem):
    """A queue with one worker, on a broker of its own."""

    def __init__(self, kind: type[QueueHarness], peers: ThirdPartyServers) -> None:
        self.kind, self.peers, self.name = kind, peers, kind.kind
        self._stack, self._broker, self._worker = ExitStack(), ExitStack(), ExitStack()
        self._server: Any = None

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        if issubclass(self.kind, PostgresHarness):
            self._server = self._stack.enter_context(running_postgres())
            url = self._server.database_url("postgres")
        else:
            self._server = RedisServer(find_free_port())
            self._broker.enter_context(self._server.running())
            url = self._server.url
        self.harness = self.kind(url, self.peers)
        if isinstance(self.harness, PostgresHarness):
            self.harness.create_tables()
        self._start_worker()

    def stop(self) -> None:
        for stack in (self._worker, self._broker, self._stack):
            stack.close()

    def _start_worker(self) -> None:
        self._worker.close()
        self._worker.enter_context(self.harness.running_worker("return"))

    def probes(self) -> list[dict[str, Any]]:
        limits = {"finish_within": f"{FINISH_WITHIN_S}s"}
        source = {self.harness.kind: self.harness.system_config}
        queue = {name: value for name, value in self.harness.system_config.items() if name != "backend"}
        return [
            self._probe("canary", canary={**source, **limits}),
            self._probe("backlog", queue={self.harness.kind: queue}, rules={"waiting": {"over": BACKLOG_SIZE - 2}}),
        ]

    async def break_down(self, fault: str) -> None:
        if fault == "broker":
            await asyncio.to_thread(self._kill_broker)
            return
        await asyncio.to_thread(self._worker.close)
        if fault == "worker":
            await self._send_backlog()

    def _kill_broker(self) -> None:
        if isinstance(self.harness, PostgresHarness):
            self._server.kill()
        else:
            self._broker.close()

    async def _send_backlog(self) -> None:
        driver = self.harness.build_probe().canary.queue_driver
        async with NetworkAccess() as network:
            context = QueueConnectContext(network, PhaseTimer(), True, CALL_TIMEOUT_S, read_wall_clock_ms())
            async with driver.connect(context) as connection:
                for number in range(BACKLOG_SIZE):
                    sentinel = CanaryJobRequest(f"backlog-{time.time_ns()}-{number}", {}, 120_000, CALL_TIMEOUT_S)
                    await connection.send(sentinel)

    async def repair(self, fault: str) -> None:
        await asyncio.to_thread(self._repair, fault)

    def _repair(self, fault: str) -> None:
        if fault == "broker" and isinstance(self.harness, PostgresHarness):
            self._server.start()
        elif fault == "broker":
            self._broker.enter_context(self._server.running())
        elif fault == "sentinel":
            self._lose_waiting_sentinel()
        self._start_worker()

    def _lose_waiting_sentinel(self) -> None:
        end = time.monotonic() + INTERVAL_S * 2
        while not self.harness.count_waiting() and time.monotonic() < end:
            time.sleep(0.05)
        self.harness.lose_jobs()
        self.harness.create_queue()


class ApiSystem(CanarySystem):
    """A job API. Jobs that it has when its worker is killed stay queued."""

    name = "http"

    def __init__(self, api: FakeJobApi) -> None:
        self.api = api
        self._post_count = 0
        """Jobs sent before the fault."""

    def probes(self) -> list[dict[str, Any]]:
        url = self.api.url
        job = {
            "enqueue": {"url": f"{url}/jobs", "json": {"kind": "noop"}},
            "poll": f"{url}/jobs/{{job_id}}",
            "done": "body.status == 'completed'",
            "failed": "body.status == 'failed'",
            "started": "body.status == 'running'",
        }
        return [self._probe("canary", canary={"http": job, "finish_within": f"{FINISH_WITHIN_S}s"})]

    async def break_down(self, fault: str) -> None:
        self._post_count = len(self.api.received_posts())
        if fault == "broker":
            refusal = ScriptedResponse(503, {"error": "redis: connection refused"})
            self.api.fail_all(refusal)
        else:
            self.api.worker_behavior = "nothing"

    async def repair(self, fault: str) -> None:
        if fault == "sentinel":
            await self._lose_waiting_sentinel()
        self.api.scripted_responses.clear()
        self.api.worker_behavior = "return"

    async def _lose_waiting_sentinel(self) -> None:
        while len(self.api.received_posts()) == self._post_count:
            await asyncio.sleep(0.05)
        self.api.jobs.clear()
        self.api.first_id += 1_000


class McpSystem(CanarySystem):
    """An MCP server with a tool that starts a job, and a resource with its state."""

    name = "mcp"

    def __init__(self) -> None:
        self.url = ""
        self.responses: dict[str, RawMcpResponse] = {}
        self._set_stage("done")

    def _set_stage(self, status: str) -> None:
        content = [{"type": "text", "text": json.dumps({"job_id": time.time_ns()})}]
        resource = [{"uri": "job:1", "text": json.dumps({"status": status})}]
        self.responses["tools/call"] = RawMcpResponse(result={"content": content})
        self.responses["resources/read"] = RawMcpResponse(result={"contents": resource})

    def probes(self) -> list[dict[str, Any]]:
        job = {"url": self.url, "tool": "export", "resource": "job:{job_id}"}
        return [self._probe("canary", canary={"mcp": job, "finish_within": f"{FINISH_WITHIN_S}s"})]

    async def break_down(self, fault: str) -> None:
        if fault == "broker":
            content = [{"type": "text", "text": "Redis gives no answer"}]
            self.responses["tools/call"] = RawMcpResponse(result={"content": content, "isError": True})
        else:
            self._set_stage("queued" if fault == "worker" else "not_found")

    async def repair(self, fault: str) -> None:
        if fault == "sentinel":
            await asyncio.sleep(INTERVAL_S)
        self._set_stage("done")


@asynccontextmanager
async def running_systems() -> AsyncIterator[list[CanarySystem]]:
    peers = install_third_party_servers()
    async with AsyncExitStack() as stack:
        systems: list[CanarySystem] = []
        for kind in QUEUE_HARNESSES:
            system = QueueSystem(kind, peers)
            stack.callback(system.stop)
            await system.start()
            systems.append(system)
        systems.append(ApiSystem(stack.enter_context(FakeJobApi())))
        mcp = McpSystem()
        server = await stack.enter_async_context(running_raw_server(mcp.responses, [tool_definition("export")]))
        mcp.url = server.url
        yield [*systems, mcp]
