"""What every probe kind shares: its configuration and the seam through which it observes its target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from watchdog.fields import Duration, Model
from watchdog.model import Json, Observation, Severity
from watchdog.wire.trace import Trace

if TYPE_CHECKING:
    from watchdog.wire import Wire


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one run: what a probe may know about its circumstances."""

    slot: int
    started: int
    """The clock at the start of the attempt, ms since the epoch: ages are measured against it."""
    timeout: float
    """Seconds left of the run's deadline. The caller enforces it; a probe may use it to say where time ran out."""
    idempotency_key: str
    """The same for every attempt of this probe and slot."""
    memory: Mapping[str, Json]
    """What earlier runs of this probe asked to remember."""
    wire: Wire
    """The shared way to the network."""
    trace: Trace = field(default_factory=Trace)
    """Where the time goes; after a cancellation it tells the phases so far and the one in which time ran out."""


class Alert(Model):
    """When a finding becomes an incident, and how much it matters."""

    after: Annotated[int, Field(ge=1)] = 3
    """How many bad slots in a row open an incident."""
    recover: Annotated[int, Field(ge=1)] = 2
    """How many good slots in a row resolve it."""
    severity: Severity = Severity.WARNING


class Probe(Model):
    """The fields of every probe, whatever its kind. A kind adds one field named like the kind and `observe()`."""

    kind: ClassVar[str]
    variables: ClassVar[Mapping[str, str]] = {}
    """What `expect` and `prefer` may name: variable -> CEL type (int, double, string, bool, dyn, map, list)."""

    name: str
    key: str
    """A stable identity; default: a slug of the name."""
    group: str = ""
    tags: tuple[str, ...] = ()
    runbook: str = ""
    every: Duration = 60_000
    schedule: str | None = None
    """A cron expression, instead of `every`."""
    timezone: str = "UTC"
    timeout: Duration = 10_000
    """Bounds the whole run, retries included."""
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    recheck: Duration | None = None
    expect: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    alert: Alert = Alert()
    egress: Literal["public", "private"] = "private"

    @property
    @abstractmethod
    def target(self) -> str:
        """Where it points, safe to show: no credentials, no query."""

    @property
    def host(self) -> str:
        """What the per-host limit counts; empty: not limited."""
        return ""

    @property
    def task_limits(self) -> Mapping[str, int]:
        """Task name (or "*") -> how long ago its last run may lie, in ms."""
        return {}

    @abstractmethod
    async def observe(self, attempt: Attempt) -> Observation:
        """One attempt against the target. Every fault of the target is a returned Observation with a named reason.

        The caller cancels it at the deadline and records `timeout`; what it raises otherwise is our own bug and is
        recorded as `error`.
        """
