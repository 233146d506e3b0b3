"""The world outside Watchdog: targets, receivers and jobs, and what really happened to them.

Watchdog reaches it where it would reach its network: `SimulatedNetwork` answers the requests of `http` probes and of
notifiers, and the stand-ins below replace an MCP session, the tables of jobs and the queues.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from random import Random
from typing import Any, NamedTuple, Self

import httpx

from tests.simulation.virtual_loop import CURRENT_PROCESS
from watchdog.domain.model import IncidentEvent
from watchdog.domain.observations import JobSourceSnapshot, QueueStats, ScheduledJobFacts
from watchdog.net import NetworkAccess
from watchdog.net.cookies import RunCookieJar
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.mcp import McpSessionResult, McpTool
from watchdog.net.own_network import translate_network_error_of_missing_ip_default_route
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BoundedBodyCollector
from watchdog.net.url import parse_http_url
from watchdog.queues.base import QueueConnectContext

START_AT = 1_700_000_040_000
"""The wall clock at the start, epoch ms."""
MACHINE_STARTED_MS = 5_000_000
"""The monotonic clock at the start."""
JOB_INTERVAL_MS = 600_000


class Condition(StrEnum):
    """How a target or a receiver responds."""

    HEALTHY = "healthy"
    ERROR = "error"
    REFUSED = "refused"
    UNRESOLVED = "unresolved"
    HANG = "hang"
    SLOW = "slow"
    """Late, and good."""
    DENY = "deny"
    """A receiver's 200 with `ok: false`."""
    RATE_LIMIT = "rate_limit"
    LOSE_RESPONSE = "lose_response"
    """A receiver takes the message, and the sender gets no response."""


GOOD_CONDITIONS = (Condition.HEALTHY, Condition.SLOW)


class Delivery(NamedTuple):
    """A message that a receiver took."""

    at: float
    receiver: str
    key: str
    event: str
    merged: bool
    incident: str
    named: Mapping[str, bool]
    """Each incident that it names -> whether it is over by then."""
    probes: frozenset[str]


@dataclass
class World:
    """What is the case, and what happened. Times are seconds of the loop."""

    random: Random
    time: Callable[[], float]
    """Seconds since the start."""
    conditions: dict[str, Condition] = field(default_factory=dict)
    """Target or receiver -> its condition; missing: healthy."""
    network_down: bool = False
    wall_offset_ms: int = 0
    """What the wall clock is wrong by."""
    visits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    bad_visits: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Target -> when a run began that the target failed, by the clock of the run."""
    deliveries: list[Delivery] = field(default_factory=list)
    lost_responses: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Key of a message -> how often its receiver took it without an answer."""
    acknowledged_check_ins: list[tuple[str, int]] = field(default_factory=list)
    """Probe and the instant of each check-in that was answered with 200."""
    trace: MutableSequence[str] = field(default_factory=list)
    on_delivery: Callable[[Delivery], None] = lambda delivery: None
    on_check_in: Callable[[], None] = lambda: None

    def acknowledge_check_in(self, probe: str, occurred_at: int) -> None:
        self.acknowledged_check_ins.append((probe, occurred_at))
        self.note(f"checked in {probe} {occurred_at - START_AT}")
        self.on_check_in()

    def note(self, text: str) -> None:
        self.trace.append(f"{self.time():.6f} {text}")

    def read_wall_clock_ms(self) -> int:
        return START_AT + round(self.time() * 1000) + self.wall_offset_ms

    def read_monotonic_clock_ms(self) -> int:
        return MACHINE_STARTED_MS + round(self.time() * 1000)

    def condition_of(self, name: str) -> Condition:
        return self.conditions.get(name, Condition.HEALTHY)

    async def visit(self, target: str, started_at: int) -> Condition:
        """A run asks a target. Returns HEALTHY, SLOW or ERROR; raises OSError as a socket would."""
        condition = self.condition_of(target)
        self.visits[target].append(self.time())
        self.note(f"visit {target} {condition} {self.network_down}")
        if self.network_down:
            await asyncio.sleep(0.001)
            error = translate_network_error_of_missing_ip_default_route(
                OSError(errno.ENETUNREACH, ""), socket.AF_INET, frozenset
            )
            assert error is not None
            raise error
        if condition not in GOOD_CONDITIONS:
            self.bad_visits[target].append(started_at)
        await asyncio.sleep(self.random.uniform(0.002, 0.2))
        match condition:
            case Condition.REFUSED:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            case Condition.UNRESOLVED:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            case Condition.HANG:
                await asyncio.Event().wait()
            case Condition.SLOW:
                await asyncio.sleep(self.random.uniform(3, 8))
        return condition

    async def visit_or_probe_error(self, target: str, started_at: int) -> Condition:
        """As `visit`; raises ProbeError."""
        try:
            return await self.visit(target, started_at)
        except OSError as e:
            error = build_probe_error_from_exception(e)
            assert error is not None
            raise error from None

    async def receive(self, request: httpx.Request) -> httpx.Response:
        """A receiver gets a message. It has the message before it answers."""
        receiver = request.url.host.partition(".")[0]
        condition, process = self.condition_of(receiver), CURRENT_PROCESS.get()
        if process is not None and not process.is_alive:
            raise httpx.ConnectError("the process is dead")
        if self.network_down:
            raise httpx.ConnectError("unreachable") from OSError(errno.ENETUNREACH, "Network is unreachable")
        if condition is Condition.REFUSED:
            raise httpx.ConnectError("refused") from ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        if condition is Condition.HANG:
            await asyncio.sleep(10)
            raise httpx.ReadTimeout("no response")
        if condition in (*GOOD_CONDITIONS, Condition.LOSE_RESPONSE):
            self._take_message(receiver, json.loads(request.content), lost=condition is Condition.LOSE_RESPONSE)
        await asyncio.sleep(self.random.uniform(0.01, 0.3))
        match condition:
            case Condition.LOSE_RESPONSE:
                raise httpx.ReadError("reset") from ConnectionResetError(errno.ECONNRESET, "reset")
            case Condition.SLOW:
                await asyncio.sleep(self.random.uniform(2, 8))
            case Condition.ERROR:
                return httpx.Response(503, stream=httpx.ByteStream(b""))
            case Condition.DENY:
                return httpx.Response(200, stream=httpx.ByteStream(b'{"ok": false}'))
            case Condition.RATE_LIMIT:
                return httpx.Response(429, headers={"retry-after": "30"}, stream=httpx.ByteStream(b""))
        return httpx.Response(200, stream=httpx.ByteStream(b"ok"))

    def _take_message(self, receiver: str, body: dict[str, Any], *, lost: bool) -> None:
        key, event, incident = body["idempotency_key"], body["event"], body["incident"]["id"]
        members = {member["incident"]["id"]: bool(member["incident"]["resolved_at"]) for member in body["members"]}
        named = members or {incident: event == IncidentEvent.RESOLVED}
        probes = frozenset({body["probe"]["id"], *(member["probe"]["id"] for member in body["members"])})
        delivery = Delivery(self.time(), receiver, key, event, body["merged"], incident, named, probes)
        self.deliveries.append(delivery)
        if lost:
            self.lost_responses[key] += 1
        self.note(f"delivery {receiver} {key} {event}")
        self.on_delivery(delivery)


class _SimulatedConnector:
    """Resolves names, for Watchdog's check of its own network."""

    def __init__(self, world: World):
        self._world = world

    async def resolve(self, host: str, port: int, phase_timer: PhaseTimer) -> None:
        condition = self._world.condition_of(host.partition(".")[0])
        if self._world.network_down or condition is Condition.UNRESOLVED:
            raise ProbeError.from_reason("dns.not_found")

    def close(self) -> None:
        pass


class SimulatedNetwork(NetworkAccess):
    """The network access of a process in the simulation."""

    def __init__(self, world: World):
        self._world = world

    async def __aenter__(self) -> Self:
        self.connector: Any = _SimulatedConnector(self._world)
        return self

    def preload(self) -> None:
        pass

    @cached_property
    def notifier_http_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._world.receive), trust_env=False)

    async def send_http_request(
        self,
        request: HttpRequest,
        phase_timer: PhaseTimer | None = None,
        *,
        now: int = 0,
        cookies: RunCookieJar | None = None,
    ) -> HttpResponse:
        phase_timer = phase_timer or PhaseTimer()
        target = request.parsed_url.host.partition(".")[0]
        phase_timer.start_nestable_phase("connect")
        try:
            condition = await self._world.visit_or_probe_error(target, now)
        except ProbeError as error:
            error.record_interrupted_phase(phase_timer)
            raise
        phase_timer.end_phase("connect")
        body = BoundedBodyCollector("", request.max_body_bytes)
        return HttpResponse(
            status=503 if condition is Condition.ERROR else 200, reason_phrase="", headers={}, received_body=body,
            elapsed_ms=10.0, http_version="1.1", peer_address="192.0.2.1:80", url=request.url, redirect_count=0,
            cert_days=None,
        )  # fmt: skip


@dataclass
class SimulatedMcpSession:
    """Stands in for `McpSessionRunner`."""

    world: World
    target: Any
    phase_timer: PhaseTimer
    now: int

    async def run_mcp_session_into_result(self, result: McpSessionResult) -> None:
        name = parse_http_url(self.target.url).host.partition(".")[0]
        condition = await self.world.visit_or_probe_error(name, self.now)
        result.protocol_era = result.protocol_version = "2025-11-25"
        result.server_name, result.server_version, result.elapsed_ms = name, "1", 10.0
        result.tools, result.tool_page_count = [McpTool("health_check", needs_arguments=False)], 1
        result.called_tool, result.tool_is_error = "health_check", condition is Condition.ERROR
        result.tool_result = {"healthy": condition is not Condition.ERROR}


async def fetch_job_snapshot(world: World, name: str, context: QueueConnectContext) -> JobSourceSnapshot:
    """A table with one job, which runs at every JOB_INTERVAL_MS; ERROR: its newest run failed."""
    condition = await world.visit_or_probe_error(name, context.started_at)
    now = context.started_at
    last = now // JOB_INTERVAL_MS * JOB_INTERVAL_MS
    failed = condition is Condition.ERROR
    job = ScheduledJobFacts(
        f"{name}-job", every=JOB_INTERVAL_MS, next_due=last + JOB_INTERVAL_MS, last_start=last, last_end=last + 1,
        last_ok=last - JOB_INTERVAL_MS if failed else last + 1, failures=int(failed), error="boom" if failed else "",
    )  # fmt: skip
    return JobSourceSnapshot(now, (job,))


async def fetch_queue_stats(world: World, name: str, context: QueueConnectContext) -> QueueStats:
    """ERROR: too many jobs wait."""
    condition = await world.visit_or_probe_error(name, context.started_at)
    return QueueStats(waiting=900 if condition is Condition.ERROR else 3, active=1, delayed=0, failed=0, consumers=2)
