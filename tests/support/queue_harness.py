"""A queue system, as test_canaries.py uses it. A new canary driver adds a class to queue_harnesses.py."""

# ruff: noqa: B027 - methods that most systems do not need are empty
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
from watchdog.domain.model import ResultToRecord
from watchdog.probes import CanaryProbe

NBSP = "\N{NO-BREAK SPACE}"

QueueScenario: TypeAlias = Literal["paused", "vanished", "cancelled", "abandoned", "sent twice", "missing"]
"""Scenarios that only some systems support."""


class QueueHarness(ABC):
    """A queue of its own in a real system, and what a test does to both."""

    kind: ClassVar[str]
    """The key in watchdog.queues.CANARY_DRIVERS."""
    server_fixture: ClassVar[str]
    """The fixture that provides the broker."""
    uses_node: ClassVar[bool] = False
    """Its workers run on Node.js, and need `peers`."""
    unsupported_scenarios: ClassVar[Mapping[QueueScenario, str]] = {}
    """Scenarios that the system does not support, and why."""

    default_limits: ClassVar[Mapping[str, Any]] = {"start_within": "3s", "finish_within": "5s"}
    short_limits: ClassVar[Mapping[str, Any]] = {"start_within": "500ms"}
    """The shortest limits, for a sentinel that no worker picks up."""
    payload_options: ClassVar[Mapping[str, Any]] = {}
    """Options of `run_probe` that set a payload."""
    behavior_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Fields that select what the job does, if the job selects it."""

    expected_phases: ClassVar[tuple[str, ...]] = ("connect", "enqueue", "pick_up", "finish")
    expected_facts: ClassVar[Mapping[str, Any]] = {}
    """Evidence besides the sentinel."""
    no_worker_failure: ClassVar[tuple[str, str]] = (
        "canary.not_picked_up",
        f"canary job not picked up within 500{NBSP}ms: 1 waiting, 0{NBSP}workers, oldest [0-9].+",
    )
    """Reason and message without a worker. This message and the next are regular expressions."""
    no_worker_measurements: ClassVar[Mapping[str, int]] = {"waiting": 1, "consumers": 0}
    """The measurements without a worker."""
    busy_worker_failure: ClassVar[tuple[str, str]] = (
        "canary.not_picked_up",
        f"canary job not picked up within 500{NBSP}ms: 1 waiting, 1{NBSP}worker, 1 active, oldest [0-9].+",
    )
    """Reason and message while the only worker is busy."""
    hanging_job_message: ClassVar[str] = f"canary job picked up after .+, but not finished within 3{NBSP}s"
    failing_job_message: ClassVar[str] = "no template for __canary__"
    """The error of a job that throws."""
    missing_queue_message: ClassVar[str] = ""
    """The message for a queue that does not exist."""
    silent_broker_message: ClassVar[str]
    """The message for a broker that accepts connections and does not respond within 1 s."""
    stalled_broker_message: ClassVar[str]
    """The message for a broker that stops responding during a run."""
    wrong_password_message: ClassVar[str]
    """The message for a wrong password."""

    def __init__(self, url: str, peers: ThirdPartyServers | None = None) -> None:
        """`url`: of the broker or its database."""
        self.broker_url, self.peers, self.queue_name, self.behavior = url, peers, f"mail-{uuid4().hex[:8]}", "return"
        self.probed_url = url
        """The URL in the probe's configuration."""

    # --- a sentinel

    @property
    @abstractmethod
    def system_config(self) -> dict[str, Any]:
        """The driver's configuration: queue and broker."""

    def build_probe(self, system: Mapping[str, Any] = {}, **job: Any) -> CanaryProbe:
        driver = {**self.system_config, **self.behavior_options.get(self.behavior, {}), **system}
        return canary_probe({self.kind: driver, **self.default_limits, **job})

    def run_probe(self, system: Mapping[str, Any] = {}, **job: Any) -> ResultToRecord:
        return asyncio.run(run_probe(self.build_probe(system, **job)))

    def run_probe_and_trigger(
        self, condition: Callable[[], object], action: Callable[[], object], **job: Any
    ) -> ResultToRecord:
        """Runs the probe, and the action as soon as the condition holds."""

        async def run_and_trigger() -> ResultToRecord:
            task = asyncio.create_task(run_probe(self.build_probe(**job)))
            await wait_until_async(condition)
            action()
            return await task

        return asyncio.run(run_and_trigger())

    def abandon_sentinel(self, slot: int) -> None:
        """Sends the sentinel of that slot, and cancels the run as if its process had died."""

        async def send_and_cancel() -> None:
            task = asyncio.create_task(run_probe(self.build_probe(), slot))
            await wait_until_async(self.count_waiting)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(send_and_cancel())

    def expire_start_timeout(self) -> None:
        """Makes the time pass within which a worker may start the sentinel."""

    # --- the queue

    @contextmanager
    def running_worker(self, behavior: str = "return", **env: str) -> Iterator[WorkerProcess]:
        """A worker of the queue. `behavior` of its jobs: return, throw, hang, slow (5 s) or nothing."""
        self.behavior = behavior
        with self.start_worker(behavior, env) as worker:
            yield worker

    @abstractmethod
    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]: ...

    def expire_killed_worker(self) -> None:
        """Makes the time pass after which the system notices that a worker is gone."""

    def create_queue(self) -> None:
        """Creates the queue as its application does, unless the first job creates it."""

    def queue_exists(self) -> bool:
        """Whether the system knows the queue."""
        raise self._not_implemented("missing")

    @abstractmethod
    def count_waiting(self) -> int: ...

    def count_active(self) -> int | None:
        """None: the system does not show it."""
        raise self._not_implemented("abandoned")

    def has_finished_job(self) -> bool:
        """Whether the job of a worker that has one is finished."""
        return self.count_active() == 0

    @abstractmethod
    def list_leftovers(self) -> list[str]:
        """Everything that sentinels have left in the system."""

    def remove_sentinel(self) -> None:
        """Removes the waiting sentinel."""
        raise self._not_implemented("vanished")

    @abstractmethod
    def lose_jobs(self) -> None:
        """Removes everything from the queue, as a broker that restarts without a disk does."""

    def cancel_sentinel(self) -> None:
        """Cancels the waiting sentinel, in the system's sense."""
        raise self._not_implemented("cancelled")

    def pause_queue(self) -> None:
        raise self._not_implemented("paused")

    def _not_implemented(self, scenario: QueueScenario) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} implements neither {scenario!r} nor why it cannot")

    # --- the broker

    @classmethod
    @abstractmethod
    def prepared_broker(cls, server: Any, peers: ThirdPartyServers | None) -> AbstractContextManager[str]:
        """A URL of the broker with the system's tables."""

    @abstractmethod
    def dedicated_broker(self) -> AbstractContextManager[Self]:
        """A harness on a server of its own."""

    @abstractmethod
    def broker_pid(self) -> int:
        """The process that accepts connections."""

    def connection_pid(self) -> int:
        """The process that serves the probe's connection."""
        return self.broker_pid()

    @abstractmethod
    def kill_broker(self) -> None:
        """Kills the whole server."""

    @abstractmethod
    def wrong_password_url(self) -> AbstractContextManager[str]:
        """A URL with the wrong password `hushhush1`."""

    def clean_up(self) -> None:
        """Removes what tests leave behind."""


@contextmanager
def suspended_process(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
