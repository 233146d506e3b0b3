"""How each internal task of ours fares: in memory, for whoever watches the watchdog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from watchdog.model import Json
from watchdog.words import about, iso, span

OVERDUE = 20
"""So many times its interval without an end of a run, and a task hangs."""


@dataclass(slots=True)
class InternalTask:
    """Work that comes round every so often, and how it last went."""

    run: Callable[[], Awaitable[None]]
    every: int
    """Milliseconds from one run to the next."""
    since: int
    """When it was first to run. An instant, as `ended` is."""
    ended: int | None = None
    """When its last run ended, well or not; None: none has."""
    failures: int = 0
    """How many runs in a row failed."""
    error: str = ""
    """What the last of them said: one line, masked."""

    @property
    def name(self) -> str:
        return self.run.__name__

    def succeeded(self, now: int) -> int:
        """Returns how often in a row it had failed before."""
        failures, self.failures, self.error, self.ended = self.failures, 0, "", now
        return failures

    def failed(self, now: int, error: str) -> None:
        self.failures, self.error, self.ended = self.failures + 1, error, now

    def staleness(self, now: int) -> int:
        """Ms since its last run ended, or since it was first to run."""
        return max(now - (self.since if self.ended is None else self.ended), 0)

    def status(self, now: int) -> str:
        """success, failed, overdue or never; the last is no fault yet."""
        if self.staleness(now) > OVERDUE * self.every:
            return "overdue"
        return "failed" if self.failures else "never" if self.ended is None else "success"

    def trouble(self, now: int) -> str:
        """What is wrong, in words; empty when nothing is."""
        if self.status(now) != "overdue":
            return self.error
        hangs = f"no run has ended for {about(self.staleness(now))}; one is due every {span(self.every)}"
        return f"{hangs}. {self.error}" if self.error else hangs


def task_json(task: InternalTask, now: int) -> Json:
    """As the convention of health_check has it: what `ok` says, and when the last run ended."""
    status = task.status(now)
    return {
        "name": task.name,
        "ok": status in ("success", "never"),
        "last_run_at": None if task.ended is None else iso(task.ended),
        "staleness_ms": None if task.ended is None else task.staleness(now),
        "last_run_status": status,
        "last_run_error": task.trouble(now) or None,
    }
