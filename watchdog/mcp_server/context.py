"""What the tools work with: the store, the probes, and the running service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from watchdog.api.service import build_health_check_tool_response, serialize_background_task_health
from watchdog.domain.acts import Actor, ActSubjectKind, OperatorActRefusedError, OperatorInterfaceKind
from watchdog.domain.model import Json
from watchdog.domain.text import append_list_hint
from watchdog.mcp_server.tool_jobs import McpToolRequestError
from watchdog.probes.base import Probe
from watchdog.service.acts import ActResultT, ActRunner
from watchdog.service.clock import Clock
from watchdog.service.receiver_tests import DestinationTestResult, ReceiverTester
from watchdog.service.runner import RetryingProbeRunner
from watchdog.service.scheduler import MonitoringService
from watchdog.store.database import Database
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, STORE_READ_QUERY_TIMEOUT_S, QueryResultT, StoreReadRunner
from watchdog.store.read.status import Connection

MCP_DATABASE_UNAVAILABLE_TEXT = "the database cannot be read at the moment. Try again in 10 s"

MCP_UNCERTAIN_ACT_TEXT = (
    "the database cannot be used at the moment. Before you repeat the call in 10 s, read whether it took effect"
)


LIST_TOOL_BY_ACT_SUBJECT = {ActSubjectKind.PROBE: "list_probes", ActSubjectKind.INCIDENT: "list_incidents"}


class AllBackgroundTasksHealthAndTrigger(Protocol):
    """The internal tasks of a running service. Both methods raise McpToolRequestError."""

    async def health(self) -> Json:
        """The answer of the tool `health_check`."""

    async def trigger_task(self, task_name: str) -> Json:
        """Runs a task at once; its entry of `health_check` afterwards."""


@dataclass(slots=True)
class McpToolContext:
    """`is_operator`: whether the client behind an HTTP request (None: over stdio) may do more than read, and
    `get_actor_name`: in whose name it acts. A reload of the configuration replaces `probes`."""

    run_read_query: StoreReadRunner
    runner: RetryingProbeRunner
    probes: Sequence[Probe]
    service: AllBackgroundTasksHealthAndTrigger
    is_operator: Callable[[Any], bool]
    run_act_in_store: ActRunner
    get_actor_name: Callable[[Any], str]
    receiver_tester: ReceiverTester

    async def run_query(self, query: Callable[[Connection], QueryResultT]) -> QueryResultT:
        """Raises McpToolRequestError."""
        try:
            async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S):
                return await self.run_read_query(query)
        except STORE_READ_QUERY_ERRORS:
            raise McpToolRequestError(MCP_DATABASE_UNAVAILABLE_TEXT) from None

    def get_operator(self, request: Any) -> Actor:
        """Who acts behind an HTTP request. Raises McpToolRequestError for a reader."""
        if not self.is_operator(request):
            raise McpToolRequestError("this requires an API key with the operator role; this key has the reader role")
        return Actor(self.get_actor_name(request), OperatorInterfaceKind.MCP)

    async def test_receiver(self, receiver: str, actor: Actor, comment: str) -> list[DestinationTestResult]:
        """Raises McpToolRequestError."""
        try:
            return await self.receiver_tester.test(receiver, actor, comment, self.run_act_in_store)
        except OperatorActRefusedError as e:
            raise McpToolRequestError(str(e)) from None
        except STORE_READ_QUERY_ERRORS:
            raise McpToolRequestError(MCP_UNCERTAIN_ACT_TEXT) from None

    async def run_act(self, act: Callable[[Database, int], ActResultT]) -> ActResultT:
        """Raises McpToolRequestError."""
        try:
            return await self.run_act_in_store(act)
        except OperatorActRefusedError as e:
            tool = LIST_TOOL_BY_ACT_SUBJECT.get(e.unknown_subject) if e.unknown_subject else None
            raise McpToolRequestError(append_list_hint(str(e), tool) if tool else str(e)) from None
        except STORE_READ_QUERY_ERRORS:
            raise McpToolRequestError(MCP_UNCERTAIN_ACT_TEXT) from None


class LocalBackgroundTaskHealthAndTrigger:
    """The service of this process."""

    def __init__(self, service: MonitoringService, clock: Clock):
        self._service, self._clock = service, clock

    async def health(self) -> Json:
        return build_health_check_tool_response(
            [serialize_background_task_health(task, self._clock()) for task in self._service.tasks.values()]
        )

    async def trigger_task(self, task_name: str) -> Json:
        tasks = self._service.tasks
        if task_name not in tasks:
            raise McpToolRequestError(f"there is no task {task_name!r}; the tasks are {', '.join(tasks)}")
        await self._service.trigger_task(task_name)
        return serialize_background_task_health(tasks[task_name], self._clock())
