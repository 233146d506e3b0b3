"""Timers run at their interval, even if the wall clock is set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from apscheduler.executors import base as executors
from apscheduler.schedulers import base as schedulers

from tests.support.polling import wait_until_async
from watchdog.service.timers import FixedIntervalTrigger, create_timer_scheduler


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(days=3650), -timedelta(hours=1), -timedelta(days=3650)])
async def test_a_step_of_the_wall_clock_neither_delays_nor_repeats_a_tick(
    monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    wall_clock_error = timedelta(0)

    class WallClock(datetime):
        """`now` as the standard library defines it, on a machine whose clock is set."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            assert tz is not None
            return tz.fromutc((datetime.now(UTC) + wall_clock_error).replace(tzinfo=tz))

    for module in (schedulers, executors):
        monkeypatch.setattr(module, "datetime", WallClock)
    ticks: list[timedelta] = []
    timers = create_timer_scheduler()
    timers.add_job(lambda: ticks.append(wall_clock_error), FixedIntervalTrigger(0.02))
    timers.start()
    try:
        for wall_clock_error in (timedelta(0), step, timedelta(0)):  # noqa: B007 - the clock reads it
            before = len(ticks)
            await wait_until_async(lambda: len(ticks) >= before + 3)  # noqa: B023 - called in this pass
    finally:
        timers.shutdown(wait=False)
    assert step in ticks


def test_the_next_tick_is_one_interval_after_the_last() -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    trigger = FixedIntervalTrigger(0.5)
    assert trigger.get_next_fire_time(None, now) == now + timedelta(seconds=0.5)
    assert trigger.get_next_fire_time(now, now + timedelta(hours=1)) == now + timedelta(seconds=0.5)
