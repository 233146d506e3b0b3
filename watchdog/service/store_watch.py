"""Watches whether the store can be written, without using it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import structlog

from watchdog.domain.formatting import SECOND_MS, format_duration, format_duration_rounded
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.clock import Clock
from watchdog.store.errors import StoreUnavailableError

log = structlog.get_logger()

STORE_WATCH_INTERVAL_S = 1.0
STORE_LIVENESS_BACKGROUND_TASK_NAMES = ("claim", "record", "flush_check_ins")
"""The background tasks that show whether the store works: they write to it twice a second."""
STORE_NOT_RESPONDING_AFTER_MS = 8 * SECOND_MS
"""A task that waits for the store for longer counts as failed: a server may be stopped, or a file locked."""
STORE_NOT_RESPONDING_ERROR_TEXT = "the database does not respond"


class StoreAbsence(NamedTuple):
    """A time in which the store cannot be written."""

    since: int
    """Epoch ms."""
    error: str
    """Why, on one line, masked. It may name hosts and files."""
    is_damaged: bool = False
    """The SQLite file is damaged, or was deleted or replaced: it does not come back by itself."""

    def describe(self, now: int) -> str:
        """For everyone: without an error that may name hosts."""
        if self.is_damaged:
            return self.error
        return f"the database has been unavailable for {format_duration_rounded(max(now - self.since, 0))}"


class StoreAbsenceDetector:
    """Judges by the background tasks whether the store is away. `find_store_absence_and_log_change` must be called at
    an interval.

    `read_restart`: when the clock was last set, or 0: what began before that is counted from there.
    """

    def __init__(self, tasks: Mapping[str, BackgroundTask], clock: Clock, read_restart: Clock = lambda: 0):
        self.tasks, self.clock, self._read_restart = tasks, clock, read_restart
        self.noticed: StoreAbsence | None = None
        """The absence as of the last call of `find_store_absence_and_log_change`."""

    def find_store_absence(self) -> StoreAbsence | None:
        """The absence that lasts at present; None: the store works, as far as is known."""
        now, absences = self.clock(), []
        for task in self.tasks.values():
            if task.name not in STORE_LIVENESS_BACKGROUND_TASK_NAMES and not task.store_damaged:
                continue
            if task.store_failing_since is not None:
                since = self._clamp_start_to_last_clock_step(task.store_failing_since, now)
                absences.append(StoreAbsence(since, task.last_error, task.store_damaged))
            elif task.waiting_since is not None:
                since = self._clamp_start_to_last_clock_step(task.waiting_since, now)
                if now - since > STORE_NOT_RESPONDING_AFTER_MS:
                    absences.append(StoreAbsence(since, STORE_NOT_RESPONDING_ERROR_TEXT))
        return min(absences, key=lambda absence: (not absence.is_damaged, absence.since), default=None)

    def raise_if_store_refuses_writes(self) -> None:
        """Raise StoreUnavailableError while the store refuses results or check-ins, although it may take claims: the
        watermark would pass slots and deadlines although what decides them is not stored."""
        for name in STORE_LIVENESS_BACKGROUND_TASK_NAMES:
            task = self.tasks.get(name)
            if name != "claim" and task is not None and task.store_failing_since is not None:
                raise StoreUnavailableError(task.last_error)

    def can_claim_slots_in_store(self) -> bool:
        """Whether slots can be claimed, as far as is known."""
        task, now = self.tasks["claim"], self.clock()
        if task.store_failing_since is not None:
            return False
        return (
            task.waiting_since is None
            or now - self._clamp_start_to_last_clock_step(task.waiting_since, now) <= STORE_NOT_RESPONDING_AFTER_MS
        )

    def _clamp_start_to_last_clock_step(self, since: int, now: int) -> int:
        """When something began, or when the clock was set, if that came later. `now`: read before the restart is."""
        restart = self._read_restart()
        return since if restart <= since <= now else restart

    def find_store_absence_and_log_change(self) -> StoreAbsence | None:
        """The absence, as `find_store_absence`. Logs that the store does not respond, and that it is back; that it
        refuses is logged by the task that it refuses."""
        absence = self.find_store_absence()
        if absence and not self.noticed and absence.error == STORE_NOT_RESPONDING_ERROR_TEXT:
            log.error("store_unavailable", error=absence.error)
        elif self.noticed and not absence:
            log.info("store_available_again", unavailable_for=format_duration(self.clock() - self.noticed.since))
        self.noticed = absence
        return absence
