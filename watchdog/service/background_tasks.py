"""How each internal task of ours fares: in memory, for whoever watches the watchdog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from watchdog.domain.formatting import format_duration, format_duration_rounded, format_iso8601
from watchdog.domain.model import Json

OVERDUE_AFTER_INTERVALS = 20
"""So many times its interval without an end of a run, and a task hangs."""


@dataclass(slots=True)
class BackgroundTask:
    """Work that comes round every so often, and how it last went."""

    run: Callable[[], Awaitable[None]]
    interval_ms: int
    """Milliseconds from one run to the next."""
    first_due_at: int
    """When it was first to run. An instant, as `ended` is."""
    last_ended_at: int | None = None
    """When its last run ended, well or not; None: none has."""
    consecutive_failures: int = 0
    """How many runs in a row failed."""
    last_error: str = ""
    """What the last of them said: one line, masked."""

    @property
    def name(self) -> str:
        return self.run.__name__

    def record_success(self, now: int) -> int:
        """Returns how often in a row it had failed before."""
        failures, self.consecutive_failures, self.last_error, self.last_ended_at = self.consecutive_failures, 0, "", now
        return failures

    def record_failure(self, now: int, error: str) -> None:
        self.consecutive_failures, self.last_error, self.last_ended_at = self.consecutive_failures + 1, error, now

    def staleness_ms(self, now: int) -> int:
        """Ms since its last run ended, or since it was first to run."""
        return max(now - (self.first_due_at if self.last_ended_at is None else self.last_ended_at), 0)

    def status(self, now: int) -> str:
        """success, failed, overdue or never; the last is no fault yet."""
        if self.staleness_ms(now) > OVERDUE_AFTER_INTERVALS * self.interval_ms:
            return "overdue"
        return "failed" if self.consecutive_failures else "never" if self.last_ended_at is None else "success"

    def describe_problem(self, now: int) -> str:
        """What is wrong, in words; empty when nothing is."""
        if self.status(now) != "overdue":
            return self.last_error
        silent_for = format_duration_rounded(self.staleness_ms(now))
        hangs = f"no run has ended for {silent_for}; one is due every {format_duration(self.interval_ms)}"
        return f"{hangs}. {self.last_error}" if self.last_error else hangs


def background_task_to_json(task: BackgroundTask, now: int) -> Json:
    """As the convention of health_check has it: what `ok` says, and when the last run ended."""
    status = task.status(now)
    return {
        "name": task.name,
        "ok": status in ("success", "never"),
        "last_run_at": None if task.last_ended_at is None else format_iso8601(task.last_ended_at),
        "staleness_ms": None if task.last_ended_at is None else task.staleness_ms(now),
        "last_run_status": status,
        "last_run_error": task.describe_problem(now) or None,
    }
