"""What a fault leaves behind: a service watches a canary and the backlog of a queue in every system.

One system at a time is broken and repaired. Figures: the time until the incident, the causes at the first three slots,
the time until it resolves, incidents of other systems, and incidents that open again.

Faults: the worker is killed; a sentinel is lost with its worker; the broker is killed. An API and an MCP server stand
for their own broker: they refuse what is sent to them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
import structlog

from benchmarks.measurements import Measurement
from tests.support.job_api import FakeJobApi, ScriptedResponse
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from tests.support.postgres import running_postgres
from tests.support.queue_harness import QueueHarness
from tests.support.queue_harnesses import QUEUE_HARNESSES, PostgresHarness
from tests.support.redis_server import RedisServer
from tests.support.third_party import ThirdPartyServers, find_free_port, install_third_party_servers
from watchdog.app import RunningApp, run_app
from watchdog.config.load import load_config
from watchdog.domain.model import Outcome
from watchdog.net import Network, PhaseTimer
from watchdog.queues import ConnectContext, SentinelJob
from watchdog.service.clock import wall_clock_ms
from watchdog.store.tables import incidents, results

FINISH_WITHIN_S, INTERVAL_S, CALL_TIMEOUT_S = 3, 5, 3
LIMIT_S = INTERVAL_S + FINISH_WITHIN_S + 1
"""From a fault to its incident, and from the repair to the end of the incident."""
FIRST_SLOTS = 3
BACKLOG_SIZE = 5
IMMEDIATE_ALERT = {"failure_threshold": 1, "success_threshold": 1}
START_TIMEOUT_S = 90.0


class BrokenSystem(ABC):
    """A system that can be broken and repaired, and the probes that watch it."""

    name: str
    faults: ClassVar[tuple[str, ...]] = ("worker", "sentinel", "broker")

    @abstractmethod
    def probes(self) -> list[dict[str, Any]]:
        """Their configuration; the id of each begins with the system's name."""

    @abstractmethod
    async def break_down(self, fault: str) -> None: ...

    @abstractmethod
    async def repair(self, fault: str) -> None: ...

    def _probe(self, purpose: str, **fields: Any) -> dict[str, Any]:
        common = {"every": f"{INTERVAL_S}s", "alert": IMMEDIATE_ALERT}
        return {"name": f"{self.name} {purpose}", "id": f"{self.name}.{purpose}", **common, **fields}


class QueueSystem(BrokenSystem):
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
        async with Network() as network:
            context = ConnectContext(network, PhaseTimer(), True, CALL_TIMEOUT_S, wall_clock_ms())
            async with driver.connect(context) as connection:
                for number in range(BACKLOG_SIZE):
                    sentinel = SentinelJob(f"backlog-{time.time_ns()}-{number}", {}, 120_000, CALL_TIMEOUT_S)
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


class ApiSystem(BrokenSystem):
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


class McpSystem(BrokenSystem):
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
async def running_systems() -> AsyncIterator[list[BrokenSystem]]:
    peers = install_third_party_servers()
    async with AsyncExitStack() as stack:
        systems: list[BrokenSystem] = []
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


class Observer:
    """Reads what the service has stored."""

    def __init__(self, app: RunningApp) -> None:
        self.app = app
        self.id_by_key = {key: probe.id for key, probe in app.service.probes.items()}

    def _query(self, query: sa.Select[Any]) -> list[Any]:
        with self.app.store_executor.database.read_transaction() as connection:
            return list(connection.execute(query))

    def incidents_since(self, since: int) -> list[Any]:
        rows = self._query(sa.select(incidents).where(incidents.c.opened_at >= since).order_by(incidents.c.opened_at))
        return [{**row._mapping, "probe_id": self.id_by_key[row.probe]} for row in rows]

    def failures_since(self, probe_id: str, since: int) -> list[Any]:
        (key,) = (key for key, id in self.id_by_key.items() if id == probe_id)
        failed = results.c.probe == key, results.c.slot >= since, results.c.outcome == Outcome.FAIL
        return self._query(sa.select(results.c.reason, results.c.message).where(*failed).order_by(results.c.slot))

    def failing_probe_ids(self) -> set[str]:
        """Those whose newest result is no pass, and those without a result."""
        newest = sa.select(results.c.probe, results.c.outcome, sa.func.max(results.c.slot)).group_by(results.c.probe)
        passing = {row.probe for row in self._query(newest) if row.outcome == Outcome.PASS}
        return {id for key, id in self.id_by_key.items() if key not in passing}

    async def wait_until_all_pass(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while self.failing_probe_ids() and time.monotonic() < end:
            await asyncio.sleep(0.1)


def prove() -> Iterator[Measurement]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        yield from asyncio.run(_measure_all(Path(folder)))


async def _measure_all(folder: Path) -> list[Measurement]:
    measurements: list[Measurement] = []
    async with running_systems() as systems:
        config = {
            "storage": {"url": f"sqlite:///{folder / 'watchdog.db'}"},
            "probes": [probe for system in systems for probe in system.probes()],
        }
        async with run_app(load_config(folder / "watchdog.yaml", json.dumps(config), {})) as app:
            observer = Observer(app)
            await observer.wait_until_all_pass(START_TIMEOUT_S)
            print(f"  failing before the first fault: {sorted(observer.failing_probe_ids()) or 'none'}", flush=True)
            for system in systems:
                for fault in system.faults:
                    measurements += await _measure_fault(observer, system, fault)
    return measurements


async def _measure_fault(observer: Observer, system: BrokenSystem, fault: str) -> list[Measurement]:
    label, probe_id = f"{system.name}: {fault}", f"{system.name}.canary"
    broken_at = wall_clock_ms()
    await system.break_down(fault)
    if fault != "sentinel":
        end = time.monotonic() + LIMIT_S + INTERVAL_S * FIRST_SLOTS
        while len(observer.failures_since(probe_id, broken_at)) < FIRST_SLOTS and time.monotonic() < end:
            await asyncio.sleep(0.1)
    words = observer.failures_since(probe_id, broken_at)[:FIRST_SLOTS]
    await system.repair(fault)
    repaired_at = wall_clock_ms()
    await asyncio.sleep(LIMIT_S)
    await observer.wait_until_all_pass(LIMIT_S * 3)
    words = words or observer.failures_since(probe_id, broken_at)
    for slot, failure in enumerate(words, 1):
        print(f"  {label}, slot {slot}: {failure.reason}: {failure.message}", flush=True)
    opened = observer.incidents_since(broken_at)
    own = [incident for incident in opened if incident["probe_id"].startswith(f"{system.name}.")]
    unresolved = float("inf")
    times_to_open = [(incident["opened_at"] - broken_at) / 1000 for incident in own]
    times_to_resolve = [((incident["resolved_at"] or unresolved) - repaired_at) / 1000 for incident in own]
    expected = len(system.probes()) if fault != "sentinel" else 1
    unnoticed = max(expected - len({incident["probe_id"] for incident in own}), 0)
    flaps = len(own) - len({incident["probe_id"] for incident in own})
    other_causes = max(len({failure.reason for failure in words}) - 1, 0)
    until_noticed_s = LIMIT_S + (INTERVAL_S if fault == "sentinel" else 0)
    measurements = [
        Measurement(f"{label}: probes without an incident", unnoticed, "", 0),
        Measurement(f"{label}: until the incident", max(times_to_open, default=unresolved), "s", until_noticed_s),
        Measurement(f"{label}: other causes at slots 2 and 3", other_causes, "", 0),
        Measurement(f"{label}: until it resolves", max(times_to_resolve, default=unresolved), "s", LIMIT_S),
        Measurement(f"{label}: other subjects blamed", len(opened) - len(own), "", 0),
        Measurement(f"{label}: opened again", flaps, "", 0),
    ]
    for incident in opened:
        if incident not in own:
            print(f"  {label}: blamed {incident['probe_id']}: {incident['message']}", flush=True)
    return measurements
