"""The seam of queue systems: a sentinel is sent, looked at and taken back, scheduled jobs are told of, a queue is
looked into. Drivers report facts and judge nothing."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Container, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar, Protocol, Self

from pydantic import model_validator

from watchdog.config_types import ConfigModel
from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot, JobStatus, QueueStats
from watchdog.net import Network, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PHASE_DESCRIPTIONS


@dataclass(frozen=True, slots=True)
class SentinelJob:
    """One canary job."""

    id: str
    """Derived from probe and slot: sending it twice makes one job."""
    payload: Json
    ttl_ms: int
    """Milliseconds after which the system may forget it, finished or not."""


@dataclass(frozen=True, slots=True)
class ConnectContext:
    """What a driver needs to get to its system."""

    network: Network
    trace: PhaseTimer
    allow_private_addresses: bool
    timeout_s: float
    """Seconds that any one exchange may take."""
    started_at: int
    """The clock at the start, ms since the epoch."""
    facts: dict[str, Json] = field(default_factory=dict)
    """What the driver finds worth knowing about the system: evidence, whatever comes of the run."""


class CanaryConnection(Protocol):
    """An open line to a queue. Every method raises Fault."""

    async def send(self, sentinel: SentinelJob) -> str:
        """Returns by what the system knows the sentinel from now on; empty: only this line does, while it is open."""

    async def poll(self, job_id: str) -> JobStatus:
        """A fault that is retryable may be gone at the next look."""

    async def cancel(self, job_id: str) -> bool:
        """Take it back, whether it waits or is finished. False: it is being worked on, or the system cannot."""

    async def fetch_queue_stats(self) -> QueueStats:
        """What else is in the queue, as far as it is cheap to know."""


class QueueDriver(ConfigModel):
    """How one queue system is reached, as configured; a subclass a system."""

    kind: ClassVar[str]
    """Its key in the configuration: `bullmq`, `pgboss`."""
    name: ClassVar[str]
    """As people write it: BullMQ, pg-boss."""
    required_modules: ClassVar[tuple[str, ...]] = ()
    """Modules of optional packages."""
    pip_extra: ClassVar[str] = ""
    """What to install for them."""

    @model_validator(mode="after")
    def _require_modules(self) -> Self:
        require_modules(self.name, self.required_modules, self.pip_extra)
        return self

    @property
    @abstractmethod
    def target(self) -> str:
        """Where it points, safe to show."""

    @property
    def host(self) -> str:
        """What the per-host limit counts; empty: not limited."""
        return ""

    def prepare(self) -> None:
        """Load what sending needs, where that takes long."""
        for module in self.required_modules:
            import_module(module)


def require_modules(name: str, modules: Iterable[str], pip_extra: str) -> None:
    """Raises ValueError that says how to get what is missing."""
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ValueError(f"{name} needs the package {missing[0]}: pip install 'watchdog-monitor[{pip_extra}]'")


class CanaryDriver(QueueDriver):
    """A system that canary jobs can be sent through."""

    deterministic_id: ClassVar[bool] = True
    """Whether `ref_of` tells the reference of a sentinel that another process may have sent."""
    deadline_margin_ms: ClassVar[int] = 5_000
    """Milliseconds on top of `finish_within`: for connecting, sending and taking back. Where `ref_of` tells nothing,
    for the slowest of it: a run that is cut off remembers no sentinel."""
    poll_interval_range_ms: ClassVar[tuple[int, int]] = (20, 500)
    """Milliseconds between two looks: the least, soon after sending, and the most."""
    blocking_period_ms: ClassVar[int | None] = None
    """Milliseconds for which a sentinel that cannot be taken back keeps others from being sent; None: while it lasts.

    For a system that can be asked how a job is, but not whether anybody still works on it.
    """
    payload_field: ClassVar[str] = ""
    """The field of its own that says what is sent; empty: `payload` does."""
    pickup_hint: ClassVar[str] = "remove start_within"
    """What to do if the system does not show when a job is picked up."""

    @property
    def exposes_pickup(self) -> bool:
        """Whether a look can tell a waiting job from a running one."""
        return True

    @abstractmethod
    def connect(self, context: ConnectContext) -> AbstractAsyncContextManager[CanaryConnection]:
        """An open line. Raises Fault."""

    def derive_job_id(self, sentinel_id: str) -> str:
        return sentinel_id


class QueueStatsSource(QueueDriver):
    """A system whose queue can be looked into."""

    @property
    def unsupported_metrics(self) -> Container[str]:
        """What it never shows: figures, `failure_ratio` for how jobs ended lately, `head` for which job is next."""
        return ()

    @abstractmethod
    async def fetch_queue_stats(self, context: ConnectContext, window_ms: int | None) -> QueueStats:
        """What is in the queue, and how jobs ended in the last so many ms. Raises Fault."""


class JobSource(QueueDriver):
    """A system that knows scheduled jobs."""

    @property
    def exposes_run_id(self) -> bool:
        """Whether it says by what it knows a run that is under way."""
        return False

    @property
    def database_url(self) -> str:
        """Of the database that it reads; empty: it reads none."""
        return getattr(self, "url", "")  # what is no database says where else it is

    @abstractmethod
    async def fetch_snapshot(self, context: ConnectContext) -> JobSourceSnapshot:
        """What it says of every job. Raises Fault."""


async def resolve_reachable_address(context: ConnectContext, host: str, port: int, label: str = "broker") -> str:
    """A first knock, with our own address filter, phases and words. Returns the address. Raises Fault."""
    try:
        async with asyncio.timeout(context.timeout_s):
            sock = await context.network.connector.connect(host, port, context.trace, context.allow_private_addresses)
    except TimeoutError:
        doing = PHASE_DESCRIPTIONS[context.trace.current_phase or "connect"]
        raise broker_unreachable_error(f"{host}:{port}: timed out while {doing}", label=label) from None
    except ProbeError as fault:
        if fault.is_internal or fault.reason == "connection.address_blocked":
            raise
        raise broker_unreachable_error(f"{host}:{port}: {fault.message}", fault.facts, label) from None
    with sock:
        return str(sock.getpeername()[0])


def broker_unreachable_error(detail: str, facts: Mapping[str, Json] = {}, label: str = "broker") -> ProbeError:
    """`what`: how people call the thing that holds the jobs."""
    fault = ProbeError("broker.unreachable", f"{label} unreachable: {detail}", "connect", retryable=True)
    fault.facts |= facts
    return fault
