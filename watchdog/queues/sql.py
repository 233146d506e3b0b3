"""Jobs in a table of the user's own. The configuration maps its columns and statuses; one aggregate query reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    MultiFieldValidationError,
    SingleLineText,
    TimezoneName,
    create_duration_bounds_validator,
)
from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts
from watchdog.net.errors import ProbeError
from watchdog.queues.clients.job_table import DatabaseTableJobSourceBase
from watchdog.queues.clients.timestamps import ColumnTimestampRepresentationAndZone, parse_database_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select, TableClause

MAX_SQL_JOB_ERROR_CHARS = 500


# --- configuration


def _validate_column_name(text: str) -> str:
    if not re.fullmatch(r"[^\W\d][\w$]{0,63}", text):
        raise ValueError("expected a column name of letters, digits and '_'")
    return text


def _convert_configured_status_to_text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


SqlColumnName = Annotated[str, AfterValidator(_validate_column_name)]
JobStatusValue = Annotated[
    SingleLineText,
    BeforeValidator(_convert_configured_status_to_text),
    WithJsonSchema({"anyOf": [{"type": t} for t in ("string", "integer", "boolean")]}),
]


class JobTableColumns(ConfigModel):
    """The columns of the table. Each row is a run. Times can be timestamps, epoch seconds or milliseconds, or
    ISO 8601 text. At least one of `scheduled`, `started` and `finished` is required."""

    type: SqlColumnName
    """The column with the name of the job. Each of its values is monitored as one job."""
    status: SqlColumnName
    """The column with the status of the run."""
    scheduled: SqlColumnName | None = None
    """The column with the time at which the run is due."""
    started: SqlColumnName | None = None
    """The column with the time at which the run started."""
    finished: SqlColumnName | None = None
    """The column with the time at which the run ended."""
    worker: SqlColumnName | None = None
    """The column with the name of the worker."""
    error: SqlColumnName | None = None
    """The column with the error of a failed run."""
    id: SqlColumnName | None = None
    """The column with the unique id of the run. Required, together with `started`, for remediations that use
    `:id`."""

    @model_validator(mode="after")
    def _require_time_column(self) -> Self:
        if not self.time_columns:
            raise ValueError("no time column: add at least one of scheduled, started and finished")
        return self

    @property
    def time_columns(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.scheduled, self.started, self.finished)))

    @property
    def all_columns(self) -> tuple[str, ...]:
        return tuple(filter(None, self.__dict__.values()))


class JobTableStatuses(ConfigModel):
    """The values of the status column, by meaning. At least one value is required."""

    waiting: tuple[JobStatusValue, ...] = ()
    """Values for waiting runs."""
    running: tuple[JobStatusValue, ...] = ()
    """Values for runs in progress."""
    done: tuple[JobStatusValue, ...] = ()
    """Values for successful runs."""
    failed: tuple[JobStatusValue, ...] = ()
    """Values for failed runs."""

    @model_validator(mode="after")
    def _require_distinct_statuses(self) -> Self:
        if not self.all_statuses:
            raise ValueError("no status: add values to at least one of waiting, running, done and failed")
        duplicates = [(name, i) for name, i, status in self._iter_statuses() if self.all_statuses.count(status) > 1]
        if duplicates:
            raise MultiFieldValidationError([(duplicates[-1], "this value is listed twice: remove one of the two")])
        return self

    def _iter_statuses(self) -> Iterator[tuple[str, int, str]]:
        for name, statuses in self.__dict__.items():
            for i, status in enumerate(statuses):
                yield name, i, status

    @property
    def all_statuses(self) -> tuple[str, ...]:
        return tuple(status for _, _, status in self._iter_statuses())


class SqlTableJobSource(DatabaseTableJobSourceBase):
    """A PostgreSQL, MySQL, MariaDB or SQLite table in which every row is a run. The role needs only SELECT on the
    table."""

    form_fields: ClassVar[tuple[str, ...]] = ("url", "table")
    kind: ClassVar[str] = "sql"
    example: ClassVar[str] = """
        probes:
          - name: Billing jobs
            jobs:
              sql:
                url: "${APP_DB_URL}"
                table: billing.scheduled_jobs
                columns:
                  {id: id, type: kind, status: status, scheduled: scheduled_at, started: started_at, finished: ended_at}
                statuses: {waiting: [pending], running: [running], done: [completed], failed: [failed]}
              watch:
                nightly-invoices: {schedule: "0 6 1 * *", grace: 1h, max_runtime: 2h}
                "*": {max_runtime: 2h, failures: 3}
    """
    name: ClassVar[str] = "SQL"

    columns: JobTableColumns
    """The columns of the table."""
    statuses: JobTableStatuses
    """The values of the status column, by meaning."""
    timezone: TimezoneName = "UTC"
    """The time zone of times that the table stores without a time zone."""
    since: Annotated[Duration, create_duration_bounds_validator("1h", "3650d")] = 3_024_000_000
    """How far back runs are read."""

    @property
    def reports_job_run_ids(self) -> bool:
        return self.columns.id is not None and self.columns.started is not None

    def read_snapshot_and_facts(self, connection: Connection) -> tuple[JobSourceSnapshot, dict[str, Json]]:
        table, time_formats = self._load_job_table_and_time_column_formats(connection)
        facts = self.database.build_write_access_note(connection, table)
        now = self.database.read_external_database_clock_ms(connection)
        rows = connection.execute(_JobAggregateQuery(self, table, time_formats, now).statement).all()
        if len(rows) > self.max_jobs:
            message = f"column {self.columns.type} has over {self.max_jobs:,} different values: they are not job names"
            raise ProbeError("database.column_invalid", message)
        if unknown := sorted({row.unknown for row in rows if row.unknown is not None}):
            facts["unmapped_statuses"] = ", ".join(unknown[:5])
        jobs = tuple(self._build_job_facts(row, time_formats) for row in rows)
        location = "" if rows else self._describe_table_without_recent_runs(connection, table)
        kept_since = self._find_oldest_stored_run_end(rows, time_formats, now)
        return JobSourceSnapshot(now, jobs, location=location, kept_since=kept_since), facts

    def _describe_table_without_recent_runs(self, connection: Connection, table: TableClause) -> str:
        """What a table without recent runs is like."""
        import sqlalchemy as sa

        if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is None:
            return f"table {self.table} is empty"
        return f"table {self.table} contains no runs from the last {format_duration(self.since)}"

    def _find_oldest_stored_run_end(
        self, rows: Sequence[Row[Any]], time_formats: Mapping[str, ColumnTimestampRepresentationAndZone], now: int
    ) -> int:
        """When the oldest run ended that the table still holds: applications delete old ones."""
        column = self.columns.finished or self.columns.started or self.columns.scheduled or ""
        ends = (parse_database_timestamp_ms(row.oldest_end, time_formats[column].default_zone, column) for row in rows)
        return max(now - self.since, min((at for at in ends if at is not None), default=0))

    def _load_job_table_and_time_column_formats(
        self, connection: Connection
    ) -> tuple[TableClause, dict[str, ColumnTimestampRepresentationAndZone]]:
        """The table and the formats of its time columns, from the database's catalog. Raises ProbeError."""
        import sqlalchemy as sa

        schema, _, name = self.table.rpartition(".")
        catalog = sa.inspect(connection)
        try:
            types = {column["name"]: column["type"] for column in catalog.get_columns(name, schema or None)}
        except sa.exc.NoSuchTableError:
            similar = get_close_matches(name, catalog.get_table_names(schema or None), 1)
            message = f"table {self.table} does not exist{_format_suggestions_suffix(similar)}"
            raise ProbeError("database.table_missing", message) from None
        if missing := next((column for column in self.columns.all_columns if column not in types), ""):
            similar = [n for n in types if n.lower() == missing.lower()] or get_close_matches(missing, types, 1)
            message = f"column {missing} of {self.table} does not exist{_format_suggestions_suffix(similar)}"
            raise ProbeError("database.column_missing", message)
        dialect = connection.dialect.name
        columns = [
            sa.column(column, None if dialect == "sqlite" else types[column]) for column in self.columns.all_columns
        ]
        time_formats = {
            column: ColumnTimestampRepresentationAndZone.from_column_type(types[column], column, dialect, self.timezone)
            for column in self.columns.time_columns
        }
        return sa.table(name, *columns, schema=schema or None), time_formats

    def _build_job_facts(
        self, row: Row[Any], time_formats: Mapping[str, ColumnTimestampRepresentationAndZone]
    ) -> ScheduledJobFacts:
        values = row._mapping
        times = {
            name: parse_database_timestamp_ms(values[name], time_formats[column].default_zone, column)
            for name, column in self._iter_query_time_labels_with_columns() if name in values
        }  # fmt: skip
        started_at = times.get("last_start") or times.get("last_due") or times.get("last_end")
        newest_start, newest_end = times.get("newest_start"), times.get("newest_end")
        has_duration = newest_start is not None and newest_end is not None
        has_unknown_status = (times.get("unknown_at") or 0) > (times.get("last_end") or 0)
        return ScheduledJobFacts(
            str(values["type"])[:200],
            next_due=times.get("next_due"),
            last_start=started_at,
            last_end=times.get("last_end"),
            last_ok=times.get("last_ok"),
            running_since=times.get("running_since"),
            newest_running_since=times.get("newest_running_since"),
            duration=max((newest_end or 0) - (newest_start or 0), 0) if has_duration else None,
            failures=int(values["failures"] or 0),
            error=values.get("error") or "",
            worker=values.get("worker") or "",
            run_id=values.get("run_id") or "",
            newest_worker=values.get("newest_worker") or "",
            newest_run_id=values.get("newest_run_id") or "",
            unknown_status=values["unknown_status"] or "" if has_unknown_status else "",
            schedule_since=started_at,
        )

    def _iter_query_time_labels_with_columns(self) -> Iterator[tuple[str, str]]:
        """Label of a time in the query's rows -> the column whose format it has."""
        columns = self.columns
        finished = columns.finished or columns.started or columns.scheduled or ""
        yield from (("last_end", finished), ("last_ok", finished), ("unknown_at", finished))
        starts = ("last_start", "running_since", "newest_running_since", "newest_start")
        yield from ((name, columns.started or "") for name in starts)
        yield from ((name, columns.scheduled or "") for name in ("last_due", "next_due"))
        yield "newest_end", columns.finished or ""


def _format_suggestions_suffix(suggestions: Iterable[str]) -> str:
    return "".join(f"; did you mean {name}?" for name in suggestions)


# --- the query


class _JobAggregateQuery:
    """One statement with a row per job: its newest times, joined with what the rows at these times contain."""

    def __init__(
        self,
        config: SqlTableJobSource,
        table: TableClause,
        time_formats: Mapping[str, ColumnTimestampRepresentationAndZone],
        now: int,
    ) -> None:
        self.config, self.columns, self.table = config, config.columns, table
        self.time_formats, self.now = time_formats, now

    @property
    def statement(self) -> Select[Any]:
        import sqlalchemy as sa

        columns, statuses = self.columns, self.config.statuses
        newest = self.build_newest_times_query().subquery("newest")
        is_finished = self.build_status_in_condition(*statuses.done, *statuses.failed)
        is_last = sa.and_(is_finished, self.finished_at == newest.c.last_end)
        is_after_last_ok = sa.or_(newest.c.last_ok.is_(None), self.finished_at > newest.c.last_ok)
        selected: dict[str, ColumnElement[Any]] = {
            name: sa.func.max(column) for name, column in newest.c.items() if name != "type"
        }
        is_newest_unknown = sa.and_(self.unknown_status_sql_condition, self.finished_at == newest.c.unknown_at)
        selected["unknown_status"] = sa.func.max(sa.case((is_newest_unknown, self.cast_column_to_text(columns.status))))
        is_new_failure = sa.and_(self.build_status_in_condition(*statuses.failed), is_after_last_ok)
        selected["failures"] = sa.func.sum(sa.case((is_new_failure, 1), else_=0))
        if columns.started:
            selected["newest_start"] = sa.func.max(sa.case((is_last, self.table.c[columns.started])))
        if columns.finished:
            selected["newest_end"] = sa.func.max(sa.case((is_last, self.table.c[columns.finished])))
        if columns.error:
            text = sa.func.substr(self.cast_column_to_text(columns.error), 1, MAX_SQL_JOB_ERROR_CHARS)
            is_last_failure = sa.and_(self.build_status_in_condition(*statuses.failed), is_last)
            selected["error"] = sa.func.max(sa.case((is_last_failure, text)))
        if columns.started:
            for prefix, started_at in (("", newest.c.running_since), ("newest_", newest.c.newest_running_since)):
                is_running = sa.and_(
                    self.build_status_in_condition(*statuses.running), self.table.c[columns.started] == started_at
                )
                for label, column in (("worker", columns.worker), ("run_id", columns.id)):
                    if column:
                        selected[prefix + label] = sa.func.max(sa.case((is_running, self.cast_column_to_text(column))))
        type_column = newest.c.type
        return (
            sa.select(type_column, *(value.label(label) for label, value in selected.items()))
            # An outer join, because SQLite would otherwise scan the table once per job.
            .join_from(self.table, newest, self.table.c[columns.type] == type_column, isouter=True)
            .where(
                self.is_recent_or_unfinished_condition,
                sa.or_(~is_finished, newest.c.last_ok.is_(None), self.finished_at >= newest.c.last_ok),
            )
            .group_by(type_column)
        )

    def build_newest_times_query(self) -> Select[Any]:
        """A row per job with its newest times."""
        import sqlalchemy as sa

        columns, statuses = self.columns, self.config.statuses
        is_finished, status = (
            self.build_status_in_condition(*statuses.done, *statuses.failed),
            self.cast_column_to_text(columns.status),
        )
        is_unknown = self.unknown_status_sql_condition
        selected: dict[str, ColumnElement[Any]] = {
            "last_end": sa.func.max(sa.case((is_finished, self.finished_at))),
            "last_ok": sa.func.max(sa.case((self.build_status_in_condition(*statuses.done), self.finished_at))),
            "oldest_end": sa.func.min(sa.case((is_finished, self.finished_at))),
            "unknown": sa.func.min(sa.case((is_unknown, status))),
            "unknown_at": sa.func.max(sa.case((is_unknown, self.finished_at))),
        }
        if columns.started:
            started = self.table.c[columns.started]
            selected["last_start"] = sa.func.max(started)
            running_started = sa.case((self.build_status_in_condition(*statuses.running), started))
            selected["running_since"] = sa.func.min(running_started)
            selected["newest_running_since"] = sa.func.max(running_started)
        if columns.scheduled:
            scheduled = self.table.c[columns.scheduled]
            selected["last_due"] = sa.func.max(sa.case((~self.build_status_in_condition(*statuses.waiting), scheduled)))
            selected["next_due"] = sa.func.min(sa.case((self.build_status_in_condition(*statuses.waiting), scheduled)))
        type_column = self.table.c[columns.type]
        return (
            sa.select(type_column.label("type"), *(value.label(label) for label, value in selected.items()))
            .where(self.is_recent_or_unfinished_condition, type_column.is_not(None))
            .group_by(type_column)
            .limit(self.config.max_jobs + 1)
        )

    def cast_column_to_text(self, column_name: str) -> ColumnElement[str]:
        """A column as text: a status may be an enum, a number or a boolean, an error JSON."""
        import sqlalchemy as sa

        column = self.table.c[column_name]
        is_text = isinstance(column.type, sa.String) and not isinstance(column.type, sa.Enum)
        return column if is_text else sa.cast(column, sa.String)

    def build_status_in_condition(self, *statuses: str) -> ColumnElement[bool]:
        import sqlalchemy as sa

        return self.cast_column_to_text(self.columns.status).in_(statuses) if statuses else sa.false()

    @property
    def unknown_status_sql_condition(self) -> ColumnElement[bool]:
        """A row with a status that the configuration does not list."""
        return self.cast_column_to_text(self.columns.status).not_in(self.config.statuses.all_statuses)

    @property
    def finished_at(self) -> ColumnElement[Any]:
        """When a run ended. Failed runs often have no end: then the start or the due time, if in the same format."""
        import sqlalchemy as sa

        names = [name for name in (self.columns.finished, self.columns.started, self.columns.scheduled) if name]
        same_format = [self.table.c[name] for name in names if self.time_formats[name] == self.time_formats[names[0]]]
        return same_format[0] if len(same_format) == 1 else sa.func.coalesce(*same_format)

    @property
    def is_recent_or_unfinished_condition(self) -> ColumnElement[bool]:
        """The rows that count: runs since `since`, and runs that have not ended."""
        import sqlalchemy as sa

        since, statuses = self.now - self.config.since, self.config.statuses
        in_window = [
            time.build_not_older_than_condition(self.table.c[name], since) for name, time in self.time_formats.items()
        ]
        return sa.or_(self.build_status_in_condition(*statuses.waiting, *statuses.running), *in_window)
