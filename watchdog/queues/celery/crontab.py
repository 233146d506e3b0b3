"""What the schedules of Celery beat mean, wherever they are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from watchdog.domain.observations import MAX_INTERVAL_MS, JobFacts
from watchdog.domain.schedule import missed_runs

MAX_SCHEDULES = 2_000
"""Schedules that are read."""
MAX_CRON_CHARS = 600
"""Characters of a cron expression: more than all minutes, hours and days, one by one."""
WEEKDAY_AND_MONTH_NUMBERS = {
    name: number
    for names, first in (("sun mon tue wed thu fri sat", 0), ("jan feb mar apr may jun jul aug sep oct nov dec", 1))
    for number, name in enumerate(names.split(), first)
}
CRON_FIELD_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def crontab_to_cron(minute: Any, hour: Any, day: Any, month: Any, weekday: Any) -> str:
    """A crontab of Celery as a cron expression. Where days of the month and of the week are given, a day must be both:
    no expression says so, hence that one is told and cannot be read."""
    fields = [
        _format_cron_field(told, *bounds)
        for told, bounds in zip((minute, hour, day, month, weekday), CRON_FIELD_BOUNDS, strict=True)
    ]
    text = " ".join(fields)
    if len(text) > MAX_CRON_CHARS:
        return f"{text[:50]}..."
    either = all(not fields[at].startswith("*") for at in (2, 4))
    return f"{text} (both days)" if either else text


def _format_cron_field(value: Any, low: int, high: int) -> str:
    several = value if isinstance(value, list) else [value]
    text = "".join(",".join(str(one) if isinstance(one, int | str) else "!" for one in several).lower().split())
    text = re.sub("[a-z]+", lambda name: str(WEEKDAY_AND_MONTH_NUMBERS.get(name[0][:3], name[0])), text)
    return ",".join(_expand_wrapped_range(part, low, high) for part in text.split(","))


def _expand_wrapped_range(part: str, low: int, high: int) -> str:
    """A range that goes past the end begins anew in Celery: fri-mon."""
    found = re.fullmatch(r"(\d{1,2})-(\d{1,2})(?:/(\d{1,2}))?", part)
    if found is None:
        return part
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if not low <= last < first <= high or step == 0:
        return part
    return ",".join(map(str, [*range(first, high + 1), *range(low, last + 1)][::step]))


def validate_interval(interval_ms: float) -> int | None:
    return int(interval_ms) if 1 <= interval_ms <= MAX_INTERVAL_MS else None


def scheduler_idle_since(jobs: Iterable[JobFacts], now: int) -> int | None:
    """When the first job came due that beat has not sent, nor any other since; None: it may well be at work."""
    jobs = list(jobs)
    sent = max((job.last_start for job in jobs if job.last_start is not None), default=0)
    return min(
        (at for job in jobs if job.enabled and (at := _missed_due_at(job, now)) is not None and at > sent), default=None
    )


def _missed_due_at(job: JobFacts, now: int) -> int | None:
    """When it should have been sent and was not."""
    if job.next_due is not None:
        return job.next_due if job.next_due <= now else None
    since = next(at for at in (job.schedule_since, job.last_start, now) if at is not None)
    plan = job.build_schedule(since)
    if plan is None or not missed_runs(plan, now, job.last_start, 0, since):
        return None
    return plan.next_slot_after(since if job.last_start is None else job.last_start)
