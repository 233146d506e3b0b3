"""What a configuration requires of scheduled jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from watchdog.domain.schedule import CronSchedule


@dataclass(frozen=True, slots=True)
class ScheduledJobLimits:
    """What is required of a job, as configured. Durations in ms."""

    schedule: CronSchedule | None = None
    """When it should run; overrides the source's schedule."""
    interval: int | None = None
    """How often it should run, counted from its last run; overrides the source's schedule."""
    grace: int = 60_000
    """How late a run may start."""
    early: int | None = None
    """How early a run may start that counts for a slot; None: a tenth of the period, at most 5 min."""
    max_runtime: int | None = None
    min_runtime: int | None = None
    max_failures: int = 1
    """This many failed runs in a row are a problem."""

    @property
    def overrides_schedule(self) -> bool:
        return self.schedule is not None or self.interval is not None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ScheduledJobLimits:
        schedule = stored.get("schedule")
        return cls(**{**stored, "schedule": None if schedule is None else CronSchedule(**schedule)})
