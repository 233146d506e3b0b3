"""What our tools work with: the store to read, and a service to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from watchdog.mcp_server.jobs import RefusedError
from watchdog.model import Json
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.runner import Runner
from watchdog.service.service import Service
from watchdog.service.tasks import task_json
from watchdog.store.views import Connection, StoreError

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds to wait for the database."""
AWAY = "the database does not answer; probing goes on, and what it sees is kept. Try again in 10 s"


class Read(Protocol):
    """Runs a query on a reading connection, in the store's own threads."""

    def __call__(self, query: Callable[[Connection], T], /) -> Awaitable[T]: ...


class Tending(Protocol):
    """The internal tasks of a running service. Raises RefusedError."""

    async def health(self) -> Json:
        """{healthy, tasks}, as the convention has it."""

    async def trigger(self, name: str) -> Json:
        """Do one task at once; how it stands then."""


@dataclass(frozen=True, slots=True)
class Desk:
    """`may_act`: whether whoever sent this HTTP request (None: over stdio) may do more than read."""

    read: Read
    runner: Runner
    probes: Sequence[Probe]
    tending: Tending
    may_act: Callable[[Any], bool]

    async def ask(self, query: Callable[[Connection], T]) -> T:
        """Raises RefusedError."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.read(query)
        except (StoreError, TimeoutError):
            raise RefusedError(AWAY) from None


class Inside:
    """The service of this process."""

    def __init__(self, service: Service, clock: Clock):
        self._service, self._clock = service, clock

    async def health(self) -> Json:
        tasks = [task_json(task, self._clock()) for task in self._service.tasks.values()]
        return {"healthy": all(task["ok"] for task in tasks), "tasks": tasks}

    async def trigger(self, name: str) -> Json:
        if name not in self._service.tasks:
            raise RefusedError(f"no task is called {name!r}; there are {', '.join(self._service.tasks)}")
        await self._service.trigger(name)
        return task_json(self._service.tasks[name], self._clock())
