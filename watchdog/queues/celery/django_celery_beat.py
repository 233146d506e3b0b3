"""django-celery-beat: schedules of Celery beat in the database of a Django application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.net.errors import ProbeError
from watchdog.queues.celery.crontab import (
    MAX_CELERY_SCHEDULES,
    celery_crontab_to_possibly_invalid_cron_expression,
    to_plausible_job_interval_ms,
)
from watchdog.queues.clients.timestamps import parse_database_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection, FromClause, Row, Select

    from watchdog.queues.clients.external_database import ExternalDatabase

MS_BY_CELERY_BEAT_PERIOD = {
    "days": DAY_MS,
    "hours": HOUR_MS,
    "minutes": MINUTE_MS,
    "seconds": SECOND_MS,
    "microseconds": 0.001,
}
MAX_CELERY_BEAT_REPORTING_DELAY_MS = 190_000
"""Beat stores what it has sent every 180 s, at the end of a loop of up to 5 s."""
CELERY_BEAT_PERIODIC_TASK_TABLE = "django_celery_beat_periodictask"
CELERY_BEAT_TIME_COLUMNS = ("last_run_at", "start_time", "expires", "date_changed", "clocked_time")


def read_django_celery_beat_jobs(
    connection: Connection, database: ExternalDatabase, default_zone: str
) -> tuple[JobSourceSnapshot, dict[str, Json]]:
    """All jobs, and evidence. `default_zone`: the time zone of stored times without one. Raises ProbeError."""
    import sqlalchemy as sa

    if not sa.inspect(connection).has_table(CELERY_BEAT_PERIODIC_TASK_TABLE):
        hint = "django-celery-beat creates it when the application is migrated"
        raise ProbeError("database.table_missing", f"table {CELERY_BEAT_PERIODIC_TASK_TABLE} does not exist: {hint}")
    now = database.read_external_database_clock_ms(connection)
    jobs = tuple(
        _build_celery_beat_job_facts(row, default_zone, now)
        for row in connection.execute(_build_celery_beat_schedules_query())
    )
    location = f"table {CELERY_BEAT_PERIODIC_TASK_TABLE} is empty"
    snapshot = JobSourceSnapshot(
        now, jobs, SchedulerLiveness("Celery beat"), MAX_CELERY_BEAT_REPORTING_DELAY_MS, location
    )
    return snapshot, database.build_write_access_note(connection, sa.table(CELERY_BEAT_PERIODIC_TASK_TABLE))


def _build_celery_beat_schedules_query() -> Select[Any]:
    import sqlalchemy as sa

    task_columns = (
        *("name", "enabled", "one_off", "total_run_count"),
        *("last_run_at", "start_time", "expires", "date_changed"),
    )
    schedule_columns = {
        "interval": ("every", "period"),
        "crontab": ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone"),
        "clocked": ("clocked_time",),
        "solar": ("event",),
    }
    task = sa.table(
        CELERY_BEAT_PERIODIC_TASK_TABLE, *map(sa.column, (*task_columns, *(f"{kind}_id" for kind in schedule_columns)))
    )
    selected = [task.c[name] for name in task_columns]
    joined: FromClause = task
    for kind, names in schedule_columns.items():
        schedule = sa.table(f"django_celery_beat_{kind}schedule", *map(sa.column, ("id", *names)))
        joined = joined.outerjoin(schedule, task.c[f"{kind}_id"] == schedule.c.id)
        selected += [schedule.c[name] for name in names]
    return sa.select(*selected).select_from(joined).order_by(task.c.name).limit(MAX_CELERY_SCHEDULES + 1)


def _build_celery_beat_job_facts(row: Row[Any], default_zone: str, now: int) -> ScheduledJobFacts:
    """Beat counts an interval from the last run, or from the last change if there was none; Django deletes the last run
    when a schedule is disabled."""
    last_run, start, expires, changed, clocked = (
        parse_database_timestamp_ms(getattr(row, name), default_zone, name) for name in CELERY_BEAT_TIME_COLUMNS
    )
    is_over = (row.one_off and row.total_run_count) or (expires is not None and expires <= now)
    crontab = (row.minute, row.hour, row.day_of_month, row.month_of_year, row.day_of_week)
    return ScheduledJobFacts(
        str(row.name)[:200],
        cron=f"solar {row.event}"
        if row.event is not None
        else ""
        if row.minute is None
        else celery_crontab_to_possibly_invalid_cron_expression(*crontab),
        every=to_plausible_job_interval_ms(row.every * MS_BY_CELERY_BEAT_PERIOD.get(row.period, 0))
        if isinstance(row.every, int)
        else None,
        timezone=str(row.timezone or "UTC"),
        enabled=bool(row.enabled) and not is_over,
        next_due=clocked if clocked is not None and (last_run is None or last_run < clocked) else None,
        last_start=last_run,
        schedule_since=min(max(last_run or changed or 0, start or 0), now),
    )
