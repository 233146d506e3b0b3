"""Reads the time for each write transaction, and adopts steps of the clock together with the database."""

from __future__ import annotations

from functools import partial

import structlog

from watchdog.domain.formatting import format_duration, format_utc_timestamp
from watchdog.service.clock import MAX_CLOCK_DEVIATION_MS, WatchdogClock
from watchdog.store.write.clock_steps import (
    DatabaseClockAndWatermark,
    adopt_clock_step,
    load_database_clock_and_watermark,
)
from watchdog.store.write.watermark import ClaimWatermark

log = structlog.get_logger()


class ClockGenerationSynchronizer:
    """Keeps the clock of this process and the database in the same clock generation.

    Only `adopt_clock_steps_and_read_time` moves either to another one, and runs in the thread that writes: so no write
    gets a time of the generation before.
    """

    def __init__(self, clock: WatchdogClock, watermark: ClaimWatermark):
        self.clock, self.watermark = clock, watermark
        self._has_started = False

    def adopt_clock_steps_and_read_time(self) -> int:
        """The time for a write transaction. Raises StoreUnavailableError."""
        stored = self._load_database_clock_and_measure_offset()
        if not self._has_started:
            self._start_in_database_clock_generation(stored)
        elif stored.generation != self.watermark.generation:
            self._follow_clock_step_of_other_process()
        elif self.clock.has_lasting_clock_step and stored.watermark is not None:
            self._adopt_reference_clock_step(stored.generation, self.clock())
        return self.clock()

    def _load_database_clock_and_measure_offset(self) -> DatabaseClockAndWatermark:
        stored = DatabaseClockAndWatermark(None, 0, None)

        def read_server_clock() -> int | None:
            nonlocal stored
            stored = load_database_clock_and_watermark(self.watermark.database, self.watermark.location)
            return stored.database_time

        self.clock.measure_database_clock_offset(read_server_clock)
        return stored

    def _start_in_database_clock_generation(self, stored: DatabaseClockAndWatermark) -> None:
        """A time behind the watermark is a step at once: nothing would be due until the time had caught up. A time
        ahead of it is downtime."""
        self.watermark.follow_database_clock_generation()
        if stored.watermark is not None and self.clock() < stored.watermark - MAX_CLOCK_DEVIATION_MS:
            self._adopt_reference_clock_step(stored.generation, None)
        self._has_started = True

    def _adopt_reference_clock_step(self, generation: int, now: int | None) -> None:
        watermark, to = self.watermark, self.clock.estimate_database_clock_time()
        step = adopt_clock_step(watermark.database, watermark.location, generation=generation, to=to, now=now)
        if step is None:
            self._follow_clock_step_of_other_process()
            return
        watermark.follow_database_clock_generation(
            partial(self.clock.step_to_measured_database_clock_time, step.signed_clock_step_ms)
        )
        start, end = (format_utc_timestamp(instant, step.stepped_to, seconds=True) for instant in step[1:])
        distance = format_duration(abs(step.signed_clock_step_ms))
        log.warning(
            "clock_step", step_from=start, step_to=end, distance=distance, forward=step.signed_clock_step_ms > 0
        )

    def _follow_clock_step_of_other_process(self) -> None:
        """Another process has adopted a step, which this one sees by itself at about the same time."""
        self.watermark.follow_database_clock_generation(
            lambda: self.clock.step_to_measured_database_clock_time(
                self.clock.estimate_database_clock_time() - self.clock()
            )
        )
