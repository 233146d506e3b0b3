"""The schedules of Celery beat, wherever they are stored: crontabs and intervals."""

from __future__ import annotations

import re
from typing import Any

from watchdog.domain.observations import MAX_PLAUSIBLE_JOB_INTERVAL_MS

MAX_CELERY_SCHEDULES = 2_000
MAX_CELERY_CRON_EXPRESSION_CHARS = 600
"""More than an expression that lists every minute, hour, day, month and weekday."""
NUMBER_BY_WEEKDAY_OR_MONTH_NAME = {
    name: number
    for names, first in (("sun mon tue wed thu fri sat", 0), ("jan feb mar apr may jun jul aug sep oct nov dec", 1))
    for number, name in enumerate(names.split(), first)
}
CELERY_CRON_FIELD_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def celery_crontab_to_possibly_invalid_cron_expression(
    minute: Any, hour: Any, day: Any, month: Any, weekday: Any
) -> str:
    """A Celery crontab as a cron expression.

    With both a day of the month and a weekday, cron runs on days that match either, Celery on days that match both.
    Such a crontab gets a note that makes it an invalid expression: it is shown, and not judged.
    """
    fields = [
        _format_celery_cron_field(value, *bounds)
        for value, bounds in zip((minute, hour, day, month, weekday), CELERY_CRON_FIELD_BOUNDS, strict=True)
    ]
    text = " ".join(fields)
    if len(text) > MAX_CELERY_CRON_EXPRESSION_CHARS:
        return f"{text[:50]}..."
    needs_both_days = all(not fields[position].startswith("*") for position in (2, 4))
    return f"{text} (both days)" if needs_both_days else text


def _format_celery_cron_field(value: Any, low: int, high: int) -> str:
    parts = value if isinstance(value, list) else [value]
    text = "".join(",".join(str(part) if isinstance(part, int | str) else "!" for part in parts).lower().split())
    text = re.sub("[a-z]+", lambda name: str(NUMBER_BY_WEEKDAY_OR_MONTH_NAME.get(name[0][:3], name[0])), text)
    return ",".join(_expand_wrapped_cron_range(part, low, high) for part in text.split(","))


def _expand_wrapped_cron_range(part: str, low: int, high: int) -> str:
    """Celery wraps a range around the end (`fri-mon`), cron does not: lists its values."""
    bounds = re.fullmatch(r"(\d{1,2})-(\d{1,2})(?:/(\d{1,2}))?", part)
    if bounds is None:
        return part
    first, last, step = int(bounds[1]), int(bounds[2]), int(bounds[3] or 1)
    if not low <= last < first <= high or step == 0:
        return part
    return ",".join(map(str, [*range(first, high + 1), *range(low, last + 1)][::step]))


def to_plausible_job_interval_ms(interval_ms: float) -> int | None:
    """None: out of range."""
    return int(interval_ms) if 1 <= interval_ms <= MAX_PLAUSIBLE_JOB_INTERVAL_MS else None
