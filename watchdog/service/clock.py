"""The clock of a process: monotonic, and anchored to a reference clock whose steps it does not follow at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from watchdog.domain.formatting import format_duration_rounded

Clock: TypeAlias = Callable[[], int]
"""Returns epoch ms."""

MAX_CLOCK_DEVIATION_MS = 2_000
"""A larger change of the reference clock is a step; a smaller one, such as NTP makes, is followed at once."""
CLOCK_STEP_ADOPTION_DELAY_MS = 60_000
"""A step is followed once it has lasted for this long. For as long it is reported afterwards."""
MAX_PAUSE_BETWEEN_CLOCK_MEASUREMENTS_MS = 10_000
"""After a longer one, such as an absence of the database, it is not known that a step has lasted: it counts as new."""


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
    no clock, so there it is this machine's. Between two calls of `step_to_measured_database_clock_time` the
    time never goes back.
    """

    def __init__(self, wall_clock: Clock = read_wall_clock_ms, monotonic_clock: Clock = read_boot_clock_ms):
        self._wall_clock, self._monotonic_clock = wall_clock, monotonic_clock
        self._offset = self._reference_offset = wall_clock() - monotonic_clock()
        self._is_anchored = self._has_server = False
        self._pending: PendingClockStep | None = None
        self._followed_step: PendingClockStep | None = None
        self._newest = self._measured_at = 0
        self._lock = threading.Lock()
        """Held while `_newest` changes: the event loop and the writing thread read the time at once."""

    def __call__(self) -> int:
        with self._lock:
            self._newest = max(self._newest, self._monotonic_clock() + self._offset)
            return self._newest

    def measure_database_clock_offset(self, read_server_clock: Callable[[], int | None]) -> None:
        """Measure the offset of the reference clock, and follow it unless it was set. `read_server_clock`: None for
        SQLite; if it raises, the last offset stays."""
        started_at = self._monotonic_clock()
        reference = read_server_clock()
        self._has_server = reference is not None
        if reference is None:
            started_at, reference = self._monotonic_clock(), self._wall_clock()
        ended_at = self._monotonic_clock()
        self._apply_clock_offset_measurement(reference - (started_at + ended_at) // 2, ended_at - started_at, ended_at)

    def _apply_clock_offset_measurement(self, offset: int, uncertainty: int, measured_at: int) -> None:
        """`uncertainty`: the duration of the measurement."""
        if not self._is_anchored:
            self._offset, self._is_anchored = offset, True
        change, self._reference_offset = abs(offset - self._offset), offset
        if change <= uncertainty:
            self._pending = None
        elif change <= MAX_CLOCK_DEVIATION_MS:
            self._offset, self._pending = offset, None
        elif (
            self._pending is None
            or abs(offset - self._pending.offset) > MAX_CLOCK_DEVIATION_MS + uncertainty
            or measured_at - self._measured_at > MAX_PAUSE_BETWEEN_CLOCK_MEASUREMENTS_MS
        ):
            self._pending = PendingClockStep(offset, measured_at)
        self._measured_at = measured_at

    @property
    def has_lasting_clock_step(self) -> bool:
        """Whether the reference clock was set, and has stayed so for CLOCK_STEP_ADOPTION_DELAY_MS."""
        pending = self._pending
        return pending is not None and self._monotonic_clock() - pending.since >= CLOCK_STEP_ADOPTION_DELAY_MS

    def estimate_database_clock_time(self) -> int:
        """The reference clock, as it was last measured."""
        return self._monotonic_clock() + self._reference_offset

    def step_to_measured_database_clock_time(self, distance: int) -> None:
        """Continue at the time of the reference clock. `distance`: how far the time steps by this, in ms."""
        with self._lock:
            self._offset, self._pending, self._newest = self._reference_offset, None, 0
        self._followed_step = PendingClockStep(distance, self._monotonic_clock())

    def describe_problem(self) -> str:
        """Which clock was set or differs, in words; empty if all agree."""
        deviation = self._wall_clock() - self()
        if abs(deviation) > MAX_CLOCK_DEVIATION_MS:
            direction = "ahead of" if deviation > 0 else "behind"
            reference = "the database's clock" if self._has_server else "the time that Watchdog has measured"
            return f"the clock of this machine is {format_duration_rounded(abs(deviation))} {direction} {reference}"
        if self._pending is not None:
            return _describe_clock_step("the database's clock", self._pending.offset - self._offset)
        step = self._followed_step
        if step is not None and self._monotonic_clock() - step.since < CLOCK_STEP_ADOPTION_DELAY_MS:
            clock = "the database's clock" if self._has_server else "the clock of this machine"
            return _describe_clock_step(clock, step.offset)
        return ""


def _describe_clock_step(clock: str, distance: int) -> str:
    return f"{clock} was set {'forward' if distance > 0 else 'back'} by {format_duration_rounded(abs(distance))}"
