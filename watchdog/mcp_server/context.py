"""What the tools work with: the store, the probes, and the running service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from watchdog.api.service import background_task_json, health_json
from watchdog.domain.model import Json
from watchdog.mcp_server.tool_jobs import RequestRejectedError
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.runner import ProbeRunner
from watchdog.service.scheduler import MonitoringService
from watchdog.store.read.query import QUERY_ERRORS, QUERY_TIMEOUT_S, QueryResultT, ReadQueryRunner
from watchdog.store.read.status import Connection

DATABASE_UNAVAILABLE_TEXT = (
    "the database is unavailable; probes keep running, and their results are kept. Try again in 10 s"
)


class ServiceControl(Protocol):
    """The internal tasks of a running service. Both methods raise RequestRejectedError."""

    async def health(self) -> Json:
        """The answer of the tool `health_check`."""

    async def trigger_task(self, task_name: str) -> Json:
        """Runs a task at once; its entry of `health_check` afterwards."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """`is_operator`: whether the client behind an HTTP request (None: over stdio) may do more than read."""

    run_read_query: ReadQueryRunner
    runner: ProbeRunner
    probes: Sequence[Probe]
    service: ServiceControl
    is_operator: Callable[[Any], bool]

    async def run_query(self, query: Callable[[Connection], QueryResultT]) -> QueryResultT:
        """Raises RequestRejectedError."""
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                return await self.run_read_query(query)
        except QUERY_ERRORS:
            raise RequestRejectedError(DATABASE_UNAVAILABLE_TEXT) from None


class LocalService:
    """The service of this process."""

    def __init__(self, service: MonitoringService, clock: Clock):
        self._service, self._clock = service, clock

    async def health(self) -> Json:
        return health_json([background_task_json(task, self._clock()) for task in self._service.tasks.values()])

    async def trigger_task(self, task_name: str) -> Json:
        tasks = self._service.tasks
        if task_name not in tasks:
            raise RequestRejectedError(f"there is no task {task_name!r}; the tasks are {', '.join(tasks)}")
        await self._service.trigger_task(task_name)
        return background_task_json(tasks[task_name], self._clock())
