"""What our tools work with: the store to read, and a service to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from watchdog.domain.model import Json
from watchdog.mcp_server.tool_jobs import RequestRejectedError
from watchdog.probes.base import Probe
from watchdog.service.background_tasks import background_task_to_json
from watchdog.service.clock import Clock
from watchdog.service.runner import ProbeRunner
from watchdog.service.scheduler import MonitoringService
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.status import Connection

QueryResultT = TypeVar("QueryResultT")

DATABASE_TIMEOUT_S = 5.0
"""Seconds to wait for the database."""
DATABASE_UNAVAILABLE_TEXT = "the database does not answer; probing goes on, and what it sees is kept. Try again in 10 s"


class ReadQueryRunner(Protocol):
    """Runs a query on a reading connection, in the store's own threads."""

    def __call__(self, query: Callable[[Connection], QueryResultT], /) -> Awaitable[QueryResultT]: ...


class ServiceControl(Protocol):
    """The internal tasks of a running service. Raises RefusedError."""

    async def health(self) -> Json:
        """{healthy, tasks}, as the convention has it."""

    async def trigger_task(self, task_name: str) -> Json:
        """Do one task at once; how it stands then."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """`may_act`: whether whoever sent this HTTP request (None: over stdio) may do more than read."""

    run_read_query: ReadQueryRunner
    runner: ProbeRunner
    probes: Sequence[Probe]
    service: ServiceControl
    is_operator: Callable[[Any], bool]

    async def run_query(self, query: Callable[[Connection], QueryResultT]) -> QueryResultT:
        """Raises RefusedError."""
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                return await self.run_read_query(query)
        except (StoreUnavailableError, TimeoutError):
            raise RequestRejectedError(DATABASE_UNAVAILABLE_TEXT) from None


class LocalService:
    """The service of this process."""

    def __init__(self, service: MonitoringService, clock: Clock):
        self._service, self._clock = service, clock

    async def health(self) -> Json:
        tasks = [background_task_to_json(task, self._clock()) for task in self._service.tasks.values()]
        return {"healthy": all(task["ok"] for task in tasks), "tasks": tasks}

    async def trigger_task(self, task_name: str) -> Json:
        if task_name not in self._service.tasks:
            raise RequestRejectedError(f"no task is called {task_name!r}; there are {', '.join(self._service.tasks)}")
        await self._service.trigger_task(task_name)
        return background_task_to_json(self._service.tasks[task_name], self._clock())
