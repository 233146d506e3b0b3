"""What the scenarios of test_canaries.py need of a queue system: a driver's author writes one Lab, into labs.py."""

# ruff: noqa: B027 - what most systems need not do is empty
from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Literal, Self, TypeAlias
from uuid import uuid4

from tests.mcp_peers import Peers
from tests.patience import until
from tests.queues.runs import canary, once
from tests.redis_server import Worker
from watchdog.model import Report
from watchdog.probes import CanaryProbe

NBSP = "\N{NO-BREAK SPACE}"

Scenario: TypeAlias = Literal["paused", "vanished", "cancelled", "abandoned", "sent twice", "missing"]
"""What a queue, or a sentinel in it, can be in some systems only."""


class Lab(ABC):
    """One queue of its own in a real system, and what a test does to both."""

    kind: ClassVar[str]
    """As in watchdog.queues.CANARIES."""
    server: ClassVar[str]
    """The fixture that starts the system's broker."""
    on_node: ClassVar[bool] = False
    """Its workers are of Node.js, and get `peers`."""
    cannot_be: ClassVar[Mapping[Scenario, str]] = {}
    """Scenarios that the system does not have, and why."""

    limits: ClassVar[Mapping[str, Any]] = {"start_within": "3s", "finish_within": "5s"}
    brief: ClassVar[Mapping[str, Any]] = {"start_within": "500ms"}
    """The soonest that a sentinel which nobody works on is too late."""
    carries: ClassVar[Mapping[str, Any]] = {}
    """What `once` is given for a payload of one's own."""
    sends: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What makes a worker do this, where that is said by the job."""

    phases: ClassVar[tuple[str, ...]] = ("connect", "enqueue", "pick_up", "finish")
    facts: ClassVar[Mapping[str, Any]] = {}
    """Evidence beside the sentinel."""
    idle: ClassVar[tuple[str, str]] = (
        "canary.not_picked_up",
        f"not picked up in 500{NBSP}ms: no worker, 1 waiting, oldest [0-9].+",
    )
    """Reason and message where nobody works; this message and the next are regular expressions."""
    counts: ClassVar[Mapping[str, int]] = {"waiting": 1, "consumers": 0}
    """Measured there."""
    hangs: ClassVar[str] = f"picked up after .+, not finished in 3{NBSP}s"
    throws: ClassVar[str] = "no template for __canary__"
    """Why a job that throws failed."""
    missing: ClassVar[str] = ""
    """That there is no such queue."""
    deaf: ClassVar[str]
    """Why a broker that accepts connections and says nothing is unreachable, when it may take 1 s for an answer."""
    mute: ClassVar[str]
    """The same of one that stops answering under way."""
    locked: ClassVar[str]
    """The same of one that refuses the password."""

    def __init__(self, url: str, peers: Peers | None = None) -> None:
        """`url`: of the broker, or of its database."""
        self.home, self.peers, self.queue, self.does = url, peers, f"mail-{uuid4().hex[:8]}", "return"
        self.url = url
        """What the probe is told."""

    # --- a sentinel

    @property
    @abstractmethod
    def system(self) -> dict[str, Any]:
        """Queue and broker, as configured."""

    def probe(self, system: Mapping[str, Any] = {}, **job: Any) -> CanaryProbe:
        sent = {**self.system, **self.sends.get(self.does, {}), **system}
        return canary({self.kind: sent, **self.limits, **job})

    def once(self, system: Mapping[str, Any] = {}, **job: Any) -> Report:
        return asyncio.run(once(self.probe(system, **job)))

    def once_when(self, seen: Callable[[], object], then: Callable[[], object], **job: Any) -> Report:
        """What comes of a sentinel when, as soon as the one is so, the other happens."""

        async def flight() -> Report:
            flying = asyncio.create_task(once(self.probe(**job)))
            await until(seen)
            then()
            return await flying

        return asyncio.run(flight())

    def abandon(self, slot: int) -> None:
        """Send the sentinel of that slot from a process that dies."""

        async def dies() -> None:
            flying = asyncio.create_task(once(self.probe(), slot))
            await until(self.waiting)
            flying.cancel()
            await asyncio.gather(flying, return_exceptions=True)

        asyncio.run(dies())

    def later(self) -> None:
        """What the time that a worker has to begin a sentinel comes to when it is over."""

    # --- the queue

    @contextmanager
    def worker(self, does: str = "return", **env: str) -> Iterator[Worker]:
        """One that works on the queue: return, throw or hang; or nothing."""
        self.does = does
        with self.started(does, env) as worker:
            yield worker

    @abstractmethod
    def started(self, does: str, env: Mapping[str, str]) -> AbstractContextManager[Worker]: ...

    def worker_is_gone(self) -> None:
        """What the silence of a killed one comes to, after a while; nothing where that is noticed at once."""

    def make(self) -> None:
        """The queue, as its application does; nothing where the first job does."""

    def exists(self) -> bool:
        """Whether the system knows the queue."""
        raise self._asked("missing")

    @abstractmethod
    def waiting(self) -> int: ...

    def active(self) -> int | None:
        """None: nobody sees it."""
        raise self._asked("abandoned")

    @abstractmethod
    def left(self) -> list[str]:
        """All that is there of sentinels."""

    def remove(self) -> None:
        """Take the sentinel that waits away."""
        raise self._asked("vanished")

    def cancel(self) -> None:
        """Do what the system calls so."""
        raise self._asked("cancelled")

    def pause(self) -> None:
        raise self._asked("paused")

    def _asked(self, scenario: Scenario) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not do it, nor says why it cannot be {scenario!r}")

    # --- the broker

    @classmethod
    @abstractmethod
    def furnished(cls, server: Any, peers: Peers | None) -> AbstractContextManager[str]:
        """A URL where the system is ready for queues."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[Self]:
        """The same on a server that nobody else uses."""

    @abstractmethod
    def pid(self) -> int:
        """Of the process that accepts connections."""

    def pid_under_way(self) -> int:
        """Of the one that answers a sentinel's."""
        return self.pid()

    @abstractmethod
    def die(self) -> None:
        """The whole server."""

    @abstractmethod
    def lock_out(self) -> AbstractContextManager[str]:
        """A URL with the wrong password hushhush1."""

    def clean(self) -> None:
        """What tests leave that others would meet."""


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
