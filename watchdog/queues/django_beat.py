"""django-celery-beat: the schedules of Celery beat in the database of a Django application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchdog.model import Json
from watchdog.queues.base import JobFacts, Snapshot
from watchdog.queues.beat import MOST, cron, idle_since, interval
from watchdog.queues.instants import instant
from watchdog.wire.faults import Fault
from watchdog.words import DAY, HOUR, MINUTE, SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

    from watchdog.queues.database import Database

PERIODS = {"days": DAY, "hours": HOUR, "minutes": MINUTE, "seconds": SECOND, "microseconds": 0.001}
LAG = 190_000
"""Beat writes down every 180 s what it has sent, at the end of a round of 5 s."""
TABLE = "django_celery_beat_periodictask"
TIMES = ("last_run_at", "start_time", "expires", "date_changed", "clocked_time")


def read(connection: Connection, there: Database, zone: str) -> tuple[Snapshot, dict[str, Json]]:
    """The jobs, and what else is worth knowing. `zone`: that of times that carry none. Raises Fault."""
    import sqlalchemy as sa

    if not sa.inspect(connection).has_table(TABLE):
        raise Fault("database.table_missing", f"no table {TABLE}: django-celery-beat makes it when the application is migrated")
    now = instant(connection.execute(sa.text(there.now)).scalar(), "UTC", "the clock") or 0
    jobs = tuple(_job(row, zone, now) for row in connection.execute(_schedules()))
    return Snapshot(now, jobs, idle_since(jobs, now), LAG), there.rights(connection, sa.table(TABLE))


def _schedules() -> Select[Any]:
    import sqlalchemy as sa

    own = ("name", "enabled", "one_off", "total_run_count", "last_run_at", "start_time", "expires", "date_changed")
    others = {
        "interval": ("every", "period"),
        "crontab": ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone"),
        "clocked": ("clocked_time",),
    }
    task = sa.table(TABLE, *map(sa.column, (*own, *(f"{kind}_id" for kind in others))))
    asked, joined = [task.c[name] for name in own], task
    for kind, names in others.items():
        other = sa.table(f"django_celery_beat_{kind}schedule", *map(sa.column, ("id", *names)))
        joined = joined.outerjoin(other, task.c[f"{kind}_id"] == other.c.id)  # type: ignore[assignment] # a join is one
        asked += [other.c[name] for name in names]
    return sa.select(*asked).select_from(joined).order_by(task.c.name).limit(MOST)


def _job(row: Row[Any], zone: str, now: int) -> JobFacts:
    """Beat reckons from the last run, or from the last change where there was none: after one was disabled, too."""
    last, start, expires, changed, clocked = (instant(getattr(row, name), zone, name) for name in TIMES)
    over = (row.one_off and row.total_run_count) or (expires is not None and expires <= now)
    days = (row.minute, row.hour, row.day_of_month, row.month_of_year, row.day_of_week)
    return JobFacts(
        str(row.name)[:200],
        cron="" if row.minute is None else cron(*days),
        every=interval(row.every * PERIODS.get(row.period, 0)) if isinstance(row.every, int) else None,
        timezone=str(row.timezone or "UTC"),
        enabled=bool(row.enabled) and not over,
        next_due=clocked if clocked is not None and (last is None or last < clocked) else None,
        last_start=last,
        since=min(max(last or changed or 0, start or 0), now),
    )
