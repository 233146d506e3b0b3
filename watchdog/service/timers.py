"""Timers that no step of the wall clock delays, or makes run many times at once."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, tzinfo

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from watchdog.domain.timestamps import UNIX_EPOCH


class MonotonicClockTimeZone(tzinfo):
    """A time zone in which it is as late as the monotonic clock shows.

    APScheduler compares all instants with `datetime.now(zone)`, which asks the zone what time it is there.
    """

    def fromutc(self, _: datetime) -> datetime:
        return (UNIX_EPOCH + timedelta(seconds=time.monotonic())).replace(tzinfo=self)

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, _: datetime | None) -> str:
        return "monotonic"


class FixedIntervalTrigger(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fires at an interval, the first time after one."""

    def __init__(self, interval_s: float):
        self._interval = timedelta(seconds=interval_s)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        return (previous or now) + self._interval


def create_timer_scheduler() -> AsyncIOScheduler:
    """A scheduler for jobs with a FixedIntervalTrigger. A tick that comes while its job still runs, or is late, is
    dropped."""
    defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
    return AsyncIOScheduler(timezone=MonotonicClockTimeZone(), job_defaults=defaults)
