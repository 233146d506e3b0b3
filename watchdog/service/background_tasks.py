"""The service's background tasks and how each last went, in memory: what another Watchdog monitors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from watchdog.domain.formatting import format_duration, format_duration_rounded
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line
from watchdog.service.counters import BACKGROUND_TASK_DURATION_BUCKET_BOUNDS_S, DurationHistogram
from watchdog.store.errors import (
    StoreUnavailableError,
    WatchdogDatabaseDamagedError,
    WatchdogDatabaseSchemaError,
    describe_store_error_unmasked,
)

BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS = 20
"""A task is overdue after this many intervals without a run that ended."""
MAX_BACKGROUND_TASK_ERROR_CHARS = 300


def format_background_task_error(error: Exception, mask: Callable[[str], str]) -> str:
    """The error's message on one line, masked."""
    text = truncate_to_single_line(mask(describe_store_error_unmasked(error)), MAX_BACKGROUND_TASK_ERROR_CHARS)
    return replace_invisible_characters(text)


@dataclass(slots=True)
class BackgroundTask:
    """Work that repeats at an interval, and how it last went. Instants are epoch ms."""

    name: str
    run: Callable[[], Awaitable[None]]
    interval_ms: int
    first_due_at: int
    last_ended_at: int | None = None
    """When the last run ended, successful or not; None before the first."""
    consecutive_failures: int = 0
    last_error: str = ""
    """The message of the last failure: one line, masked."""
    store_failing_since: int | None = None
    """When the first of the last runs began that failed because the store did; None: the last run did not."""
    store_damaged: bool = False
    """The last run failed because the store is damaged."""
    run_durations: DurationHistogram = field(
        default_factory=lambda: DurationHistogram(BACKGROUND_TASK_DURATION_BUCKET_BOUNDS_S)
    )
    """Of all runs, successful or not."""
    progressed_at: int = 0
    """When a run last completed one of its steps, of a task whose runs have several."""
    _running_since: list[int] = field(default_factory=list)

    @property
    def waiting_since(self) -> int | None:
        """When the oldest run in progress began, or completed a step; None: there is none."""
        return max(min(self._running_since), self.progressed_at) if self._running_since else None

    @contextmanager
    def track_run_in_progress(self, started_at: int) -> Iterator[None]:
        """A run is in progress."""
        self._running_since.append(started_at)
        monotonic_start_s = monotonic()
        try:
            yield
        finally:
            self.run_durations.observe(monotonic() - monotonic_start_s)
            self._running_since.remove(started_at)

    def record_successful_task_run(self, now: int) -> int:
        """Returns the number of consecutive failures before this run."""
        failures, self.consecutive_failures, self.last_error, self.last_ended_at = self.consecutive_failures, 0, "", now
        self.store_failing_since, self.store_damaged = None, False
        return failures

    def record_exception(self, error: Exception, now: int, *, started_at: int, mask: Callable[[str], str]) -> None:
        """A run that began at `started_at` has raised `error`."""
        store_failed = isinstance(error, StoreUnavailableError | WatchdogDatabaseSchemaError)
        self.record_failure(
            now,
            format_background_task_error(error, mask),
            store_failed_at=started_at if store_failed else None,
            store_damaged=isinstance(error, WatchdogDatabaseDamagedError),
        )

    def record_failure(
        self, now: int, error: str, *, store_failed_at: int | None = None, store_damaged: bool = False
    ) -> None:
        """`store_failed_at`: when the run began, if it failed because the store did."""
        self.store_damaged = store_damaged
        self.consecutive_failures, self.last_error, self.last_ended_at = self.consecutive_failures + 1, error, now
        if store_failed_at is None or self.store_failing_since is None:
            self.store_failing_since = store_failed_at

    def restart_overdue_count_at_clock_step(self, instant: int, now: int) -> None:
        """The clock was set to `instant`: nothing is overdue for longer than since then, and what was before is not in
        the future."""
        self.first_due_at = min(max(self.first_due_at, instant), now)
        self.progressed_at = min(self.progressed_at, now)
        if self.last_ended_at is not None:
            self.last_ended_at = min(max(self.last_ended_at, instant), now)

    def ms_since_last_run_ended(self, now: int) -> int:
        """Ms since the last run ended, or since the first was due."""
        return max(now - (self.first_due_at if self.last_ended_at is None else self.last_ended_at), 0)

    def status(self, now: int) -> str:
        """success, failed, overdue, or never (has not run yet, which is no problem)."""
        if self.ms_since_last_run_ended(now) > BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS * self.interval_ms:
            return "overdue"
        return "failed" if self.consecutive_failures else "never" if self.last_ended_at is None else "success"

    def describe_problem(self, now: int) -> str:
        """The problem in words; empty if there is none."""
        if self.status(now) != "overdue":
            return self.last_error
        age = format_duration_rounded(self.ms_since_last_run_ended(now))
        overdue = f"no run has ended for {age}; the task runs every {format_duration(self.interval_ms)}"
        return f"{overdue}. {self.last_error}" if self.last_error else overdue
