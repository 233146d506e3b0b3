"""The interface of queue systems: three kinds of drivers, each a configuration model.

CanaryDriver      sends a sentinel job, polls it and cancels it
QueueStatsSource  reads how many jobs wait, run and fail in a queue
JobSource         reads what a scheduler knows about its jobs

Drivers report facts; they judge nothing. Every failure to do so is a ProbeError.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import ClassVar, Protocol, Self, TypeVar

from pydantic import model_validator

from watchdog.config_types import ConfigModel
from watchdog.config_values import describe_missing_package_extra
from watchdog.domain.model import Json
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, JobSourceSnapshot, QueueStats
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PHASE_DESCRIPTIONS

JOB_WORKER_GONE_MESSAGE = "its worker is gone"
MAX_CANARY_JOB_ERROR_CHARS = 10_000
MIN_QUEUE_CALL_TIMEOUT_S = 0.05
"""No exchange gets less time: an error of the system names the cause, a timeout does not."""


@dataclass(frozen=True, slots=True)
class CanaryJobRequest:
    """One canary job."""

    id: str
    """Derived from the probe and the slot, so that sending it twice creates one job."""
    payload: Json
    ttl_ms: int
    """When the system may delete the job, finished or not, in ms after sending."""
    send_within_s: float
    """How long the system may take to accept the job."""


@dataclass(frozen=True, slots=True)
class QueueConnectContext:
    """What a driver needs to reach its system, and where it leaves its evidence."""

    network: NetworkAccess
    phase_timer: PhaseTimer
    allow_private_addresses: bool
    timeout_s: float
    """For any single exchange, in seconds."""
    started_at: int
    """When the run started, in ms since the epoch."""
    facts: dict[str, Json] = field(default_factory=dict)
    """Evidence about the system, filled in by the driver and kept for every outcome."""
    ends_at_monotonic: float = math.inf
    """When the last exchange has to be over, by the monotonic clock in seconds."""

    def cap_timeout_to_run_end(self, timeout_s: float) -> float:
        """The timeout in seconds for an exchange that starts now: it is over before the run ends."""
        return max(min(timeout_s, self.ends_at_monotonic - monotonic()), MIN_QUEUE_CALL_TIMEOUT_S)


class CanaryConnection(Protocol):
    """An open connection to a queue. Every method raises ProbeError."""

    async def send(self, sentinel: CanaryJobRequest) -> str:
        """Returns the system's id for the job; empty if only this connection can identify it, while it is open."""

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        """The current state of the job. After a retryable error the next poll may succeed."""

    async def cancel(self, job_id: str) -> bool:
        """Removes the job if it waits, has finished, or has lost its worker. False: it is running, or the system cannot
        remove jobs."""

    async def fetch_queue_stats(self) -> QueueStats:
        """The queue's other jobs, as far as they are cheap to count."""


def build_canary_job_poll_result(
    stage: CanaryJobStage,
    picked_up_at: int | None,
    finished_at: int | None,
    error: str,
    *,
    worker_lost: bool,
    progress: float | None = None,
) -> CanaryJobPollResult:
    """The status of a sentinel, from the fields of the job that the system stores.

    Keeps only the fields that apply to the stage. `error`: why a failed job failed. `worker_lost`: whether a running
    job has no worker any more.
    """
    match stage:
        case CanaryJobStage.RUNNING:
            problem = JOB_WORKER_GONE_MESSAGE if worker_lost else ""
            return CanaryJobPollResult(stage, picked_up_at, error=problem, progress=progress)
        case CanaryJobStage.DONE:
            return CanaryJobPollResult(stage, picked_up_at, finished_at)
        case CanaryJobStage.FAILED:
            return CanaryJobPollResult(stage, picked_up_at, finished_at, error[:MAX_CANARY_JOB_ERROR_CHARS])
    return CanaryJobPollResult(stage)


class QueueSystemConfig(ConfigModel):
    """How one queue system is reached, as configured. Each system has subclasses of its own.

    Raises ValueError when it is configured without the packages that it needs.
    """

    kind: ClassVar[str]
    """Its key in the configuration: `bullmq`, `pgboss`."""
    example: ClassVar[str]
    """A configuration that uses the kind, for the reference page."""
    name: ClassVar[str]
    """As people write it: BullMQ, pg-boss."""
    required_modules: ClassVar[tuple[str, ...]] = ()
    """Modules of optional packages."""
    pip_extra: ClassVar[str] = ""
    """The extra of our package that installs them."""
    form_fields: ClassVar[tuple[str, ...]] = ()
    """Its fields that a form has an input for, such as `queue`; others are entered as YAML."""

    @model_validator(mode="after")
    def _require_installed_modules(self) -> Self:
        require_installed_modules(self.name, self.required_modules, self.pip_extra)
        return self

    @property
    @abstractmethod
    def target(self) -> str:
        """Where it points, without secrets."""

    @property
    def sends_http_requests(self) -> bool:
        """Whether it is reached by HTTP requests, which can be routed through a proxy."""
        return False

    @property
    def host(self) -> str:
        """The host that counts against the limit per host; empty if it is not limited."""
        return ""

    def preload(self) -> None:
        """Imports the modules that a run needs, so that the first run does not wait for them."""
        for module in self.required_modules:
            import_module(module)


def require_installed_modules(name: str, modules: Iterable[str], pip_extra: str) -> None:
    """Raises ValueError with the command that installs what is missing."""
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ValueError(f"{name} needs the package {missing[0]}: {describe_missing_package_extra(pip_extra)}")


class CanaryDriver(QueueSystemConfig):
    """A system that canary jobs are sent through."""

    deterministic_id: ClassVar[bool] = True
    """Whether `derive_job_id` returns the id of a sentinel that a killed process may have sent."""
    poll_interval_range_ms: ClassVar[tuple[int, int]] = (20, 500)
    """The shortest interval between two polls, soon after sending, and the longest."""
    payload_field: ClassVar[str] = ""
    """The driver's own field for what is sent; empty if the section's `payload` is sent."""
    pickup_hint: ClassVar[str] = "remove start_within"
    """What to do if the system does not show when a job is picked up."""

    @property
    def exposes_pickup(self) -> bool:
        """Whether a poll can distinguish a waiting job from a running job."""
        return True

    @abstractmethod
    def connect(self, context: QueueConnectContext) -> AbstractAsyncContextManager[CanaryConnection]:
        """Opens a connection. Raises ProbeError."""

    def derive_job_id(self, sentinel_id: str) -> str:
        """The system's id for a sentinel."""
        return sentinel_id


class QueueStatsSource(QueueSystemConfig):
    """A system whose queues can be measured."""

    @property
    def unsupported_metrics(self) -> Container[str]:
        """What it never reports: names of metrics, `failure_ratio` (recently finished jobs), `head` (the next job)."""
        return ()

    @abstractmethod
    async def fetch_queue_stats(self, context: QueueConnectContext, window_ms: int | None) -> QueueStats:
        """The state of the queue; with `window_ms` also how the jobs that finished within it ended. Raises
        ProbeError."""


class JobSource(QueueSystemConfig):
    """A system that knows scheduled jobs."""

    max_jobs: ClassVar[int] = 2_000
    """How many jobs are judged. A snapshot holds one more if there are more."""

    @property
    def reports_job_run_ids(self) -> bool:
        """Whether it reports an id of the run in progress."""
        return False

    @property
    def database_url(self) -> str:
        """The URL of the database that it reads; empty if it reads none."""
        return ""

    @abstractmethod
    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        """All jobs that it knows. Raises ProbeError."""


_RunT = TypeVar("_RunT")


def select_oldest_job_run_in_progress(
    runs: Iterable[_RunT],
    started_at: Callable[[_RunT], int | None],
    has_worker: Callable[[_RunT], bool],
    newest_success_started_at: int | None,
) -> _RunT | None:
    """The oldest of the runs in progress. A run whose worker is gone is over once a later run has succeeded."""
    current = [
        run
        for run in runs
        if has_worker(run) or newest_success_started_at is None or (started_at(run) or 0) > newest_success_started_at
    ]
    return min(current, key=lambda run: started_at(run) or 0, default=None)


async def connect_once_to_find_reachable_address(
    context: QueueConnectContext, host: str, port: int, label: str = "broker"
) -> str:
    """Connects once, through the address filter and with the usual phases and messages, and returns the address.

    Client libraries connect to that address afterwards: they have neither filter nor phases. Raises ProbeError.
    """
    import asyncio

    try:
        async with asyncio.timeout(context.cap_timeout_to_run_end(context.timeout_s)):
            sock = await context.network.connector.connect(
                host, port, context.phase_timer, context.allow_private_addresses
            )
        with sock:
            return str(sock.getpeername()[0])
    except TimeoutError:
        activity = PHASE_DESCRIPTIONS[context.phase_timer.current_phase or "connect"]
        raise build_broker_unreachable_error(f"{host}:{port}: timed out while {activity}", label=label) from None
    except ProbeError as error:
        if error.is_internal or error.reason == "connection.address_blocked":
            raise
        unreachable = build_broker_unreachable_error(f"{host}:{port}: {error.message}", error.facts, label)
        unreachable.transport_reason = error.reason
        raise unreachable from None
    except OSError:  # it has no peer any more
        raise build_broker_unreachable_error(f"{host}:{port}: connection closed by the server", label=label) from None


def build_broker_unreachable_error(detail: str, facts: Mapping[str, Json] = {}, label: str = "broker") -> ProbeError:
    """`label`: what the message calls the system that holds the jobs."""
    error = ProbeError("broker.unreachable", f"{label} unreachable: {detail}", "connect", retryable=True)
    error.facts |= facts
    return error
