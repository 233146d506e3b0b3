"""The seam of queue systems: a sentinel is sent, looked at and taken back, scheduled jobs are told of, a queue is
looked into. Drivers report facts and judge nothing."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Container, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from pydantic import model_validator

from watchdog.fields import Model
from watchdog.model import Json
from watchdog.schedule import Cron, Interval, Schedule, ScheduleError
from watchdog.wire import Trace, Wire
from watchdog.wire.address import Egress
from watchdog.wire.faults import Fault
from watchdog.wire.trace import DOING
from watchdog.words import DAY


class Stage(StrEnum):
    """How far a sentinel has come."""

    SENT = "sent"
    """Under way. Whether anybody picked it up, the system does not show."""
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """The system does not know it any more."""


class Look(NamedTuple):
    """One look at a sentinel. Times in ms since the epoch by the system's own clocks; None: it does not say."""

    stage: Stage
    picked_up: int | None = None
    finished: int | None = None
    error: str = ""
    """Why it failed, in the system's words, untrusted; of one that runs: what is wrong with that."""
    progress: float | None = None
    """How far the job says it is, in whatever unit it counts."""
    ref: str = ""
    """By what the system knows it from now on, if that came to light only after it was sent."""


class Ended(NamedTuple):
    """How many jobs came to an end lately."""

    failed: int
    well: int | None
    """None: what ended well is not kept."""


class Depth(NamedTuple):
    """What is in a queue; None: the system cannot say, or was not asked."""

    waiting: int | None = None
    """Jobs that somebody could take now."""
    active: int | None = None
    delayed: int | None = None
    """Jobs whose time has not come."""
    failed: int | None = None
    """Failed jobs that are kept."""
    oldest: int | None = None
    """Milliseconds for which the oldest waiting job could have been taken."""
    consumers: int | None = None
    """Workers that take jobs from this queue."""
    paused: bool = False
    head: str | None = None
    """What tells the job that is next to be taken from others."""
    ended: Ended | None = None

    @property
    def figures(self) -> dict[str, int]:
        """What can be said in numbers."""
        told = {name: getattr(self, name) for name in FIGURES}
        return {name: n for name, n in told.items() if n is not None}


FIGURES = ("waiting", "active", "delayed", "failed", "oldest", "consumers")


LAST = 100_000_000_000_000
"""Milliseconds since the epoch that are a time."""
CENTURY = 36_525 * DAY


def ms(told: str | float | None) -> int | None:
    """Milliseconds as somebody else wrote them down; None where no clock shows so many."""
    try:
        found = int(float(told or "x"))
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found < LAST else None


class JobFacts(NamedTuple):
    """What a source says of one scheduled job. Times in ms since the epoch by the source's clock; None: not known."""

    name: str
    cron: str = ""
    every: int | None = None
    """Milliseconds, in the place of `cron`."""
    timezone: str = "UTC"
    enabled: bool = True
    next_due: int | None = None
    """When its scheduler means to run it next; in the past: it is late."""
    last_start: int | None = None
    last_end: int | None = None
    """When its newest finished run ended, well or not."""
    last_ok: int | None = None
    running_since: int | None = None
    """When the oldest run that is under way began."""
    duration: int | None = None
    """Milliseconds that its newest finished run took."""
    failures: int = 0
    """Runs that failed since the last one that did not."""
    error: str = ""
    """What the newest failed run said, untrusted."""
    stalled: bool = False
    """A run is under way that nobody works on any more."""
    worker: str = ""
    """Who works on the run under way, untrusted."""
    run: str = ""
    """By what the source knows that run."""
    since: int | None = None
    """From when on its schedule is surely in force."""

    @property
    def credible(self) -> JobFacts:
        """The same without times that no clock shows and intervals that mean nothing: anybody may have written them."""
        times = ("next_due", "last_start", "last_end", "last_ok", "running_since", "since")
        bounds = dict.fromkeys(times, LAST) | {"every": CENTURY, "duration": CENTURY}
        told = {name: getattr(self, name) for name in bounds}
        odd: dict[str, Any] = {
            name: None for name, n in told.items() if n is not None and not (name == "every") <= n < bounds[name]
        }
        return self._replace(**odd)

    def plan(self, since: int = 0) -> Schedule | None:
        """Its schedule; None: nobody knows one, or it is none that we can read. `since`: when that was first seen; a
        job that runs every so often is owed first so long after."""
        try:
            if self.cron:
                return Cron(self.cron, self.timezone)
        except ScheduleError:
            return None
        if self.every:
            first = self.last_start if self.last_start is not None else since - 1
            anchor = self.next_due if self.next_due is not None else first
            return Interval(self.every, anchor % self.every)
        return None


class Snapshot(NamedTuple):
    """All that a source says at one instant."""

    now: int
    """The source's own clock."""
    jobs: tuple[JobFacts, ...]
    scheduler: int | None = None
    """When the scheduler itself gave its last sign of life; None: it gives none."""
    lag: int = 0
    """Milliseconds after which a run is surely told of."""


@dataclass(frozen=True, slots=True)
class Sentinel:
    """One canary job."""

    id: str
    """Derived from probe and slot: sending it twice makes one job."""
    payload: Json
    lifetime: int
    """Milliseconds after which the system may forget it, finished or not."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a driver needs to get to its system."""

    wire: Wire
    trace: Trace
    egress: Egress
    patience: float
    """Seconds that any one exchange may take."""
    now: int
    """The clock at the start, ms since the epoch."""
    facts: dict[str, Json] = field(default_factory=dict)
    """What the driver finds worth knowing about the system: evidence, whatever comes of the run."""


class Canary(Protocol):
    """An open line to a queue. Every method raises Fault."""

    async def send(self, sentinel: Sentinel) -> str:
        """Returns by what the system knows the sentinel from now on; empty: only this line does, while it is open."""

    async def look(self, ref: str) -> Look:
        """A fault that is retryable may be gone at the next look."""

    async def cancel(self, ref: str) -> bool:
        """Take it back, whether it waits or is finished. False: it is being worked on, or the system cannot."""

    async def depth(self) -> Depth:
        """What else is in the queue, as far as it is cheap to know."""


class System(Model):
    """How one queue system is reached, as configured; a subclass a system."""

    name: ClassVar[str]
    """As people write it: BullMQ, pg-boss."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Modules of optional packages."""
    extra: ClassVar[str] = ""
    """What to install for them."""

    @model_validator(mode="after")
    def _installed(self) -> Self:
        installed(self.name, self.needs, self.extra)
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
        for module in self.needs:
            import_module(module)


def installed(name: str, needs: Iterable[str], extra: str) -> None:
    """Raises ValueError that says how to get what is missing."""
    if missing := [module for module in needs if find_spec(module) is None]:
        raise ValueError(f"{name} needs the package {missing[0]}: pip install 'watchdog-monitor[{extra}]'")


class CanarySystem(System):
    """A system that canary jobs can be sent through."""

    derives_refs: ClassVar[bool] = True
    """Whether `ref_of` tells the reference of a sentinel that another process may have sent."""
    margin: ClassVar[int] = 5_000
    """Milliseconds on top of `finish_within`: for connecting, sending and taking back. Where `ref_of` tells nothing,
    for the slowest of it: a run that is cut off remembers no sentinel."""
    pace: ClassVar[tuple[int, int]] = (20, 500)
    """Milliseconds between two looks: the least, soon after sending, and the most."""
    blocks_for: ClassVar[int | None] = None
    """Milliseconds for which a sentinel that cannot be taken back keeps others from being sent; None: while it lasts.

    For a system that can be asked how a job is, but not whether anybody still works on it.
    """
    sends: ClassVar[str] = ""
    """The field of its own that says what is sent; empty: `payload` does."""
    pickup_hint: ClassVar[str] = "say finish_within alone"
    """What to write if it does not show when a job is picked up."""

    @property
    def shows_pickup(self) -> bool:
        """Whether a look can tell a waiting job from a running one."""
        return True

    @abstractmethod
    def canary(self, reach: Reach) -> AbstractAsyncContextManager[Canary]:
        """An open line. Raises Fault."""

    def ref_of(self, sentinel: str) -> str:
        return sentinel


class DepthSystem(System):
    """A system whose queue can be looked into."""

    @property
    def hides(self) -> Container[str]:
        """What it never shows: figures, `failure_ratio` for how jobs ended lately, `head` for which job is next."""
        return ()

    @abstractmethod
    async def depth(self, reach: Reach, within: int | None) -> Depth:
        """What is in the queue, and how jobs ended in the last so many ms. Raises Fault."""


class JobSource(System):
    """A system that knows scheduled jobs."""

    @property
    def names_runs(self) -> bool:
        """Whether it says by what it knows a run that is under way."""
        return False

    @property
    def database_url(self) -> str:
        """Of the database that it reads; empty: it reads none."""
        return getattr(self, "url", "")  # what is no database says where else it is

    @abstractmethod
    async def snapshot(self, reach: Reach) -> Snapshot:
        """What it says of every job. Raises Fault."""


async def reachable(reach: Reach, host: str, port: int, what: str = "broker") -> str:
    """A first knock, with our own address filter, phases and words. Returns the address. Raises Fault."""
    try:
        async with asyncio.timeout(reach.patience):
            sock = await reach.wire.dial(host, port, reach.trace, reach.egress)
    except TimeoutError:
        doing = DOING[reach.trace.under_way or "connect"]
        raise unreachable(f"{host}:{port}: timed out while {doing}", what=what) from None
    except Fault as fault:
        if fault.ours or fault.reason == "connection.address_blocked":
            raise
        raise unreachable(f"{host}:{port}: {fault.message}", fault.facts, what) from None
    with sock:
        return str(sock.getpeername()[0])


def unreachable(why: str, facts: Mapping[str, Json] = {}, what: str = "broker") -> Fault:
    """`what`: how people call the thing that holds the jobs."""
    fault = Fault("broker.unreachable", f"{what} unreachable: {why}", "connect", retryable=True)
    fault.facts |= facts
    return fault
