"""Reads the time for each write transaction, and adopts steps of the clock together with the database."""

from __future__ import annotations

from functools import partial

import structlog

from watchdog.domain.formatting import format_duration, format_utc_timestamp
from watchdog.service.clock import MAX_CLOCK_DEVIATION_MS, WatchdogClock
from watchdog.store.write.clock_steps import StoredTime, adopt_clock_step, load_stored_time
from watchdog.store.write.watermark import Watermark

log = structlog.get_logger()


class ClockKeeper:
    """Keeps the clock of this process and the database in the same clock generation.

    Only `read_time` moves either to another one, and runs in the thread that writes: so no write gets a time of the
    generation before.
    """

    def __init__(self, clock: WatchdogClock, watermark: Watermark):
        self.clock, self.watermark = clock, watermark
        self._has_started = False

    def read_time(self) -> int:
        """The time for a write transaction. Raises StoreUnavailableError."""
        stored = self._measure()
        if not self._has_started:
            self._start(stored)
        elif stored.generation != self.watermark.generation:
            self._follow_database()
        elif self.clock.has_lasting_step and stored.watermark is not None:
            self._adopt_step(stored.generation, self.clock())
        return self.clock()

    def _measure(self) -> StoredTime:
        stored = StoredTime(None, 0, None)

        def read_server_clock() -> int | None:
            nonlocal stored
            stored = load_stored_time(self.watermark.database, self.watermark.location)
            return stored.database_time

        self.clock.measure(read_server_clock)
        return stored

    def _start(self, stored: StoredTime) -> None:
        """A time behind the watermark is a step at once: nothing would be due until the time had caught up. A time
        ahead of it is downtime."""
        self.watermark.enter_generation()
        if stored.watermark is not None and self.clock() < stored.watermark - MAX_CLOCK_DEVIATION_MS:
            self._adopt_step(stored.generation, None)
        self._has_started = True

    def _adopt_step(self, generation: int, now: int | None) -> None:
        watermark, to = self.watermark, self.clock.read_reference()
        step = adopt_clock_step(watermark.database, watermark.location, generation=generation, to=to, now=now)
        if step is None:
            self._follow_database()
            return
        watermark.enter_generation(partial(self.clock.follow_reference, step.distance))
        start, end = (format_utc_timestamp(instant, step.stepped_to, seconds=True) for instant in step[1:])
        distance = format_duration(abs(step.distance))
        log.warning("clock_step", step_from=start, step_to=end, distance=distance, forward=step.distance > 0)

    def _follow_database(self) -> None:
        """Another process has adopted a step, which this one sees by itself at about the same time."""
        self.watermark.enter_generation(lambda: self.clock.follow_reference(self.clock.read_reference() - self.clock()))
