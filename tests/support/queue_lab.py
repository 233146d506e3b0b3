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

from tests.support.polling import wait_until_async
from tests.support.probe_runs import canary_probe, run_probe
from tests.support.redis_server import WorkerProcess
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import RecordedResult
from watchdog.probes import CanaryProbe

NBSP = "\N{NO-BREAK SPACE}"

QueueScenario: TypeAlias = Literal["paused", "vanished", "cancelled", "abandoned", "sent twice", "missing"]
"""What a queue, or a sentinel in it, can be in some systems only."""


class QueueLab(ABC):
    """One queue of its own in a real system, and what a test does to both."""

    kind: ClassVar[str]
    """As in watchdog.queues.CANARIES."""
    server_fixture: ClassVar[str]
    """The fixture that starts the system's broker."""
    uses_node: ClassVar[bool] = False
    """Its workers are of Node.js, and get `peers`."""
    unsupported_scenarios: ClassVar[Mapping[QueueScenario, str]] = {}
    """Scenarios that the system does not have, and why."""

    default_limits: ClassVar[Mapping[str, Any]] = {"start_within": "3s", "finish_within": "5s"}
    short_limits: ClassVar[Mapping[str, Any]] = {"start_within": "500ms"}
    """The soonest that a sentinel which nobody works on is too late."""
    payload_options: ClassVar[Mapping[str, Any]] = {}
    """What `once` is given for a payload of one's own."""
    behavior_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What makes a worker do this, where that is said by the job."""

    expected_phases: ClassVar[tuple[str, ...]] = ("connect", "enqueue", "pick_up", "finish")
    expected_facts: ClassVar[Mapping[str, Any]] = {}
    """Evidence beside the sentinel."""
    no_worker_failure: ClassVar[tuple[str, str]] = (
        "canary.not_picked_up",
        f"not picked up within 500{NBSP}ms: 0{NBSP}workers, 1 waiting, oldest [0-9].+",
    )
    """Reason and message where nobody works; this message and the next are regular expressions."""
    no_worker_measurements: ClassVar[Mapping[str, int]] = {"waiting": 1, "consumers": 0}
    """Measured there."""
    hanging_job_message: ClassVar[str] = f"picked up after .+, not finished within 3{NBSP}s"
    failing_job_message: ClassVar[str] = "no template for __canary__"
    """Why a job that throws failed."""
    missing_queue_message: ClassVar[str] = ""
    """That there is no such queue."""
    silent_broker_message: ClassVar[str]
    """Why a broker that accepts connections and says nothing is unreachable, when it may take 1 s for an answer."""
    stalled_broker_message: ClassVar[str]
    """The same of one that stops answering under way."""
    wrong_password_message: ClassVar[str]
    """The same of one that refuses the password."""

    def __init__(self, url: str, peers: ThirdPartyServers | None = None) -> None:
        """`url`: of the broker, or of its database."""
        self.broker_url, self.peers, self.queue_name, self.behavior = url, peers, f"mail-{uuid4().hex[:8]}", "return"
        self.probed_url = url
        """What the probe is told."""

    # --- a sentinel

    @property
    @abstractmethod
    def system_config(self) -> dict[str, Any]:
        """Queue and broker, as configured."""

    def build_probe(self, system: Mapping[str, Any] = {}, **job: Any) -> CanaryProbe:
        sent = {**self.system_config, **self.behavior_options.get(self.behavior, {}), **system}
        return canary_probe({self.kind: sent, **self.default_limits, **job})

    def run_probe(self, system: Mapping[str, Any] = {}, **job: Any) -> RecordedResult:
        return asyncio.run(run_probe(self.build_probe(system, **job)))

    def run_probe_and_trigger(
        self, condition: Callable[[], object], action: Callable[[], object], **job: Any
    ) -> RecordedResult:
        """What comes of a sentinel when, as soon as the one is so, the other happens."""

        async def flight() -> RecordedResult:
            flying = asyncio.create_task(run_probe(self.build_probe(**job)))
            await wait_until_async(condition)
            action()
            return await flying

        return asyncio.run(flight())

    def abandon_sentinel(self, slot: int) -> None:
        """Send the sentinel of that slot from a process that dies."""

        async def dies() -> None:
            flying = asyncio.create_task(run_probe(self.build_probe(), slot))
            await wait_until_async(self.count_waiting)
            flying.cancel()
            await asyncio.gather(flying, return_exceptions=True)

        asyncio.run(dies())

    def expire_start_timeout(self) -> None:
        """What the time that a worker has to begin a sentinel comes to when it is over."""

    # --- the queue

    @contextmanager
    def running_worker(self, behavior: str = "return", **env: str) -> Iterator[WorkerProcess]:
        """One that works on the queue: return, throw or hang; or nothing."""
        self.behavior = behavior
        with self.start_worker(behavior, env) as worker:
            yield worker

    @abstractmethod
    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]: ...

    def expire_killed_worker(self) -> None:
        """What the silence of a killed one comes to, after a while; nothing where that is noticed at once."""

    def create_queue(self) -> None:
        """The queue, as its application does; nothing where the first job does."""

    def queue_exists(self) -> bool:
        """Whether the system knows the queue."""
        raise self._not_implemented("missing")

    @abstractmethod
    def count_waiting(self) -> int: ...

    def count_active(self) -> int | None:
        """None: nobody sees it."""
        raise self._not_implemented("abandoned")

    @abstractmethod
    def list_leftovers(self) -> list[str]:
        """All that is there of sentinels."""

    def remove_sentinel(self) -> None:
        """Take the sentinel that waits away."""
        raise self._not_implemented("vanished")

    def cancel_sentinel(self) -> None:
        """Do what the system calls so."""
        raise self._not_implemented("cancelled")

    def pause_queue(self) -> None:
        raise self._not_implemented("paused")

    def _not_implemented(self, scenario: QueueScenario) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not do it, nor says why it cannot be {scenario!r}")

    # --- the broker

    @classmethod
    @abstractmethod
    def prepared_broker(cls, server: Any, peers: ThirdPartyServers | None) -> AbstractContextManager[str]:
        """A URL where the system is ready for queues."""

    @abstractmethod
    def dedicated_broker(self) -> AbstractContextManager[Self]:
        """The same on a server that nobody else uses."""

    @abstractmethod
    def broker_pid(self) -> int:
        """Of the process that accepts connections."""

    def connection_pid(self) -> int:
        """Of the one that answers a sentinel's."""
        return self.broker_pid()

    @abstractmethod
    def kill_broker(self) -> None:
        """The whole server."""

    @abstractmethod
    def wrong_password_url(self) -> AbstractContextManager[str]:
        """A URL with the wrong password hushhush1."""

    def clean_up(self) -> None:
        """What tests leave that others would meet."""


@contextmanager
def suspended_process(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
