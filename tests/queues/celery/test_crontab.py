"""Celery crontabs as cron expressions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import crontab

from watchdog.domain.schedule import CronSchedule, CronScheduleError
from watchdog.queues.celery.crontab import (
    MAX_CELERY_CRON_EXPRESSION_CHARS,
    celery_crontab_to_possibly_invalid_cron_expression,
    to_plausible_job_interval_ms,
)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("*", "*", "*", "*", "*"), "* * * * *"),
        (("*/15", "8-18", "*", "*", "mon-fri"), "*/15 8-18 * * 1-5"),
        ((0, 3, "*", "*", "*"), "0 3 * * *"),
        (("0", "3", "*", "*", "Sunday, wednesday"), "0 3 * * 0,3"),
        (("0", "3", "*", "*", "fri-mon"), "0 3 * * 5,6,0,1"),
        (("30", "22-4/2", "*", "*", "*"), "30 22,0,2,4 * * *"),
        (("0", "0", "*/10", "*/2", "*"), "0 0 */10 */2 *"),
        (("0", "0", "28-2", "nov-feb", "*"), "0 0 28,29,30,31,1,2 11,12,1,2 *"),
        (([0, 30], [6], "*", "*", [1, 3, 5]), "0,30 6 * * 1,3,5"),
        (("0", "6", "*/2", "*", "1"), "0 6 */2 * 1"),
        (("1,13,30-45/5", "0", "*", "*", "*/3"), "1,13,30-45/5 0 * * */3"),
    ],
)
def test_a_crontab_has_the_same_runs(fields: tuple[Any, ...], text: str) -> None:
    minute, hour, day, month, weekday = fields
    assert celery_crontab_to_possibly_invalid_cron_expression(*fields) == text
    cron_schedule, at = CronSchedule(text), datetime(2026, 1, 1, tzinfo=UTC)
    celery_crontab = crontab(
        minute, hour, weekday.replace(" ", "") if isinstance(weekday, str) else weekday, day, month
    )
    for _ in range(40):
        celery_crontab.nowfun = lambda at=at: at
        next_run = at + celery_crontab.remaining_estimate(at)
        next_slot = cron_schedule.find_next_slot_after(round(at.timestamp() * 1000))
        assert next_slot == round(next_run.timestamp() * 1000)
        at = next_run + timedelta(seconds=1)


@pytest.mark.parametrize(
    "fields",
    [
        ("0", "6", "1-7", "*", "1"),
        ("0", "6", "*", "*", "someday"),
        ("0", "6", "*", "*", {"__type__": "weekday"}),
        ("0 0", "6\t1", "32", "*", "*"),
        ("0", "99-98", "*", "*", "*"),
        ("0", "9-8/0", "*", "*", "*"),
        ("0," * MAX_CELERY_CRON_EXPRESSION_CHARS, "6", "*", "*", "*"),
    ],
)
def test_crontabs_without_an_equivalent_are_invalid_expressions(fields: tuple[Any, ...]) -> None:
    """Such as the first Monday of a month: cron would run on each of the first seven days, and on every Monday."""
    with pytest.raises(CronScheduleError):
        CronSchedule(celery_crontab_to_possibly_invalid_cron_expression(*fields))


@pytest.mark.parametrize(("ms", "expected"), [(1500.0, 1500), (0.5, None), (1e300, None), (float("nan"), None)])
def test_intervals_out_of_range_are_ignored(ms: float, expected: int | None) -> None:
    assert to_plausible_job_interval_ms(ms) == expected
