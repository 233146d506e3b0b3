"""The clock of a process: monotonic, and anchored to a reference clock whose steps it does not follow at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from watchdog.domain.formatting import format_duration_rounded

if TYPE_CHECKING:
    from watchdog.store.database import Database

Clock: TypeAlias = Callable[[], int]
"""Returns epoch ms."""

MAX_CLOCK_DEVIATION_MS = 2_000
"""A larger change of the reference clock is a step; a smaller one, such as NTP makes, is followed at once."""
CLOCK_STEP_ADOPTION_DELAY_MS = 60_000
"""A step is followed once it has lasted for this long."""


def read_wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def read_boot_clock_ms() -> int:
    """Ms since the machine was started, suspension included; where the system does not count suspension, without."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    return time.monotonic_ns() // 1_000_000


class PendingClockStep(NamedTuple):
    """The reference clock was set, and it is not certain yet that it stays so. In ms of the monotonic clock."""

    offset: int
    """Of the reference clock since then."""
    since: int


class WatchdogClock:
    """The time that everything in this process uses: a monotonic clock plus its offset to the reference clock.

    The reference is the database's clock, so that processes on several machines agree on slots and leases. SQLite has
    no clock, so there it is this machine's. `synchronize` measures the offset, in the thread that writes to the store.
    Between two steps that are followed, the time never goes back.
    """

    def __init__(
        self, database: Database, wall_clock: Clock = read_wall_clock_ms, monotonic_clock: Clock = read_boot_clock_ms
    ):
        self._database, self._wall_clock, self._monotonic_clock = database, wall_clock, monotonic_clock
        self._offset = wall_clock() - monotonic_clock()
        self._is_anchored = False
        self._pending: PendingClockStep | None = None
        self._newest = 0

    def __call__(self) -> int:
        self._newest = max(self._newest, self._monotonic_clock() + self._offset)
        return self._newest

    def read_for_transaction(self) -> int:
        """The time, after `synchronize`."""
        self.synchronize()
        return self()

    def synchronize(self) -> None:
        """Measure the offset. Raises StoreUnavailableError; then the last offset stays."""
        started_at = self._monotonic_clock()
        reference = self._database.read_clock()
        if reference is None:
            reference = self._wall_clock()
        ended_at = self._monotonic_clock()
        self._follow(reference - (started_at + ended_at) // 2, ended_at - started_at, ended_at)

    def _follow(self, offset: int, uncertainty: int, measured_at: int) -> None:
        """Follow a measured offset, or wait until it has lasted. `uncertainty`: the duration of the measurement."""
        if not self._is_anchored:
            self._offset, self._is_anchored = offset, True
            return
        change = abs(offset - self._offset)
        if change <= uncertainty:
            self._pending = None
        elif change <= MAX_CLOCK_DEVIATION_MS:
            self._offset, self._pending = offset, None
        elif self._pending is None or abs(offset - self._pending.offset) > MAX_CLOCK_DEVIATION_MS + uncertainty:
            self._pending = PendingClockStep(offset, measured_at)
        elif measured_at - self._pending.since >= CLOCK_STEP_ADOPTION_DELAY_MS and offset > self._offset:
            self._offset, self._pending = offset, None

    def describe_problem(self) -> str:
        """Why this process does not follow a clock, in words; empty if all clocks agree."""
        reference = "the database's clock" if self._database.is_postgres else "the time that Watchdog has measured"
        deviation = self._wall_clock() - self()
        if abs(deviation) > MAX_CLOCK_DEVIATION_MS:
            direction = "ahead of" if deviation > 0 else "behind"
            return f"the clock of this machine is {format_duration_rounded(abs(deviation))} {direction} {reference}"
        if self._pending is not None:
            step = self._pending.offset - self._offset
            direction = "forward" if step > 0 else "back"
            return f"{reference} was set {direction} by {format_duration_rounded(abs(step))}"
        return ""
