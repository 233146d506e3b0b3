"""APScheduler 3: jobs in a table. Their pickled state is not read, because unpickling runs code."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.net.errors import ProbeError
from watchdog.queues.clients.job_table import DatabaseTableJobSourceBase, SqlTableName
from watchdog.queues.clients.timestamps import parse_database_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection


class ApschedulerJobSource(DatabaseTableJobSourceBase):
    """The APScheduler 3 job store. It holds the next run of each job but no past runs, so Watchdog reports only jobs
    that are overdue or gone, and a scheduler that is not running. APScheduler removes a one-off job after its run.
    Therefore, if a job disappears after its run was due, Watchdog reports it as gone only if more than one run of the
    job has been observed. The role needs only SELECT on the table."""

    form_fields: ClassVar[tuple[str, ...]] = ("url", "table")
    kind: ClassVar[str] = "apscheduler"
    example: ClassVar[str] = """
        probes:
          - name: APScheduler jobs
            jobs: {apscheduler: {url: "${APP_DB_URL}"}}
    """
    name: ClassVar[str] = "APScheduler"

    table: SqlTableName = "apscheduler_jobs"
    """The name of the table, as `table` or `schema.table`."""

    def read_snapshot_and_facts(self, connection: Connection) -> tuple[JobSourceSnapshot, dict[str, Json]]:
        """A job without a next run is paused."""
        import sqlalchemy as sa

        schema, _, name = self.table.rpartition(".")
        if not sa.inspect(connection).has_table(name, schema=schema or None):
            message = f"table {self.table} does not exist: APScheduler creates it when it starts"
            raise ProbeError("database.table_missing", message)
        jobs = sa.table(name, sa.column("id"), sa.column("next_run_time"), schema=schema or None)
        rows = connection.execute(
            sa.select(jobs.c.id, jobs.c.next_run_time).order_by(jobs.c.id).limit(self.max_jobs + 1)
        ).all()
        facts = (
            ScheduledJobFacts(
                str(id), enabled=due is not None, next_due=parse_database_timestamp_ms(due, "UTC", "next_run_time")
            )
            for id, due in rows
        )
        snapshot = JobSourceSnapshot(
            self.database.read_external_database_clock_ms(connection),
            tuple(facts),
            SchedulerLiveness("APScheduler"),
            location=f"table {self.table} is empty",
            drops_one_off_jobs=True,
        )
        return snapshot, self.database.build_write_access_note(connection, jobs)
