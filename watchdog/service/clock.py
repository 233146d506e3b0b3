"""The clock: read once at the start of each background task and passed down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from watchdog.store.database import Database

Clock: TypeAlias = Callable[[], int]
"""Returns epoch ms."""


def read_wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class WatchdogDatabaseClock:
    """The clock of the database, so that processes on several machines agree on slots and leases.

    It is this machine's clock and an offset, which `measure_offset` measures. SQLite has no clock.
    """

    def __init__(self, local_clock: Clock, database: Database):
        self._local_clock, self._database = local_clock, database
        self._offset_ms = 0

    def __call__(self) -> int:
        return self._local_clock() + self._offset_ms

    def measure_offset(self) -> None:
        """Measure how far the database's clock is ahead. A difference that the duration of the query explains is none.
        Raises StoreUnavailableError."""
        started_at = read_wall_clock_ms()
        database_time = self._database.read_clock()
        if database_time is None:
            return
        ended_at = read_wall_clock_ms()
        offset = database_time - (started_at + ended_at) // 2
        if abs(offset - self._offset_ms) > ended_at - started_at:
            self._offset_ms = offset
