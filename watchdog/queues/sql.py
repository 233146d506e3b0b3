"""Jobs in a table of the user's own: which column holds what is configured, the facts are one aggregate of it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    FieldValidationError,
    SingleLineText,
    TimezoneName,
    duration_bounds,
)
from watchdog.domain.model import Json
from watchdog.domain.observations import JobFacts, JobSourceSnapshot
from watchdog.net.errors import ProbeError
from watchdog.queues.base import ConnectContext, JobSource, require_modules
from watchdog.queues.clients.dialects import DatabaseUrl, database_from_url
from watchdog.queues.clients.external_database import ExternalDatabase, run_transaction
from watchdog.queues.clients.timestamps import TimestampFormat, parse_timestamp_ms

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select, TableClause

MAX_JOBS = 2_000
"""Job types that are read."""
MAX_ERROR_CHARS = 500
"""Characters of an error that are read."""


# --- configuration


def _validate_column_name(text: str) -> str:
    if not re.fullmatch(r"[^\W\d][\w$]{0,63}", text):
        raise ValueError("expected a column name of letters, digits and '_'")
    return text


def validate_table_name(text: str) -> str:
    if not re.fullmatch(r"([^\W\d][\w$]{0,63}\.)?[^\W\d][\w$]{0,63}", text):
        raise ValueError("expected a table name, or schema.table, of letters, digits and '_'")
    return text


def _coerce_status_to_text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


ColumnName = Annotated[str, AfterValidator(_validate_column_name)]
StatusValue = Annotated[
    SingleLineText,
    BeforeValidator(_coerce_status_to_text),
    WithJsonSchema({"anyOf": [{"type": t} for t in ("string", "integer", "boolean")]}),
]


class ColumnMapping(ConfigModel):
    """The columns of the table, of which each row is a run. Times can be timestamps, epoch seconds or milliseconds, or
    ISO 8601 text. At least one of `scheduled`, `started` and `finished` is required."""

    type: ColumnName
    """The column with the name of the job. Each of its values is monitored as one job."""
    status: ColumnName
    """The column with the status of the run."""
    scheduled: ColumnName | None = None
    """The column with the time at which the run is due."""
    started: ColumnName | None = None
    """The column with the time at which the run started."""
    finished: ColumnName | None = None
    """The column with the time at which the run ended."""
    worker: ColumnName | None = None
    """The column with the name of the worker."""
    error: ColumnName | None = None
    """The column with the error of a failed run."""
    id: ColumnName | None = None
    """The column with the unique id of the run. Required for remediations that use `:id`."""

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


class StatusMapping(ConfigModel):
    """The values of the status column, by meaning. At least one value is required."""

    waiting: tuple[StatusValue, ...] = ()
    """Values for runs that wait."""
    running: tuple[StatusValue, ...] = ()
    """Values for runs in progress."""
    done: tuple[StatusValue, ...] = ()
    """Values for runs that have succeeded."""
    failed: tuple[StatusValue, ...] = ()
    """Values for runs that have failed."""

    @model_validator(mode="after")
    def _require_distinct_statuses(self) -> Self:
        if not self.all_statuses:
            raise ValueError("no status: add values to at least one of waiting, running, done and failed")
        duplicates = [(name, i) for name, i, status in self._iter_statuses() if self.all_statuses.count(status) > 1]
        if duplicates:
            raise FieldValidationError([(duplicates[-1], "this value is listed already: remove one of them")])
        return self

    def _iter_statuses(self) -> Iterator[tuple[str, int, str]]:
        for name, statuses in self.__dict__.items():
            for i, status in enumerate(statuses):
                yield name, i, status

    @property
    def all_statuses(self) -> tuple[str, ...]:
        return tuple(status for _, _, status in self._iter_statuses())


class TableJobSource(JobSource):
    """Jobs in a table. The role needs SELECT on the table only."""

    url: DatabaseUrl
    """`postgresql://user:password@host/database` (requires the extra `postgres`), `mysql://...` (extra `mysql`) or
    `sqlite:///file.db`."""
    table: Annotated[str, AfterValidator(validate_table_name)]
    """The name of the table, as `table` or `schema.table`."""

    @model_validator(mode="after")
    def _require_driver(self) -> Self:
        require_modules(self.database.name, [self.database.driver_module], self.database.pip_extra)
        return self

    @property
    def database(self) -> ExternalDatabase:
        return database_from_url(self.url, self.table)

    @property
    def target(self) -> str:
        return f"{self.database.display_name}/{self.table}"

    @property
    def host(self) -> str:
        return self.database.host

    def prepare(self) -> None:
        import_module("sqlalchemy")
        import_module(self.database.driver_module)

    async def fetch_snapshot(self, context: ConnectContext) -> JobSourceSnapshot:
        snapshot, facts = await run_transaction(self.database, context, self.read_snapshot)
        context.facts.update(facts)
        return snapshot

    @abstractmethod
    def read_snapshot(self, connection: Connection) -> tuple[JobSourceSnapshot, dict[str, Json]]:
        """The jobs, and what else is worth knowing. Raises Fault."""


class SqlJobSource(TableJobSource):
    """A table of PostgreSQL, MySQL, MariaDB or SQLite in which every row is a run. The role needs SELECT on the table
    only."""

    kind: ClassVar[str] = "sql"
    name: ClassVar[str] = "SQL"

    columns: ColumnMapping
    """The columns of the table."""
    statuses: StatusMapping
    """The values of the status column, by meaning."""
    timezone: TimezoneName = "UTC"
    """The time zone of times without one."""
    since: Annotated[Duration, duration_bounds("1h", "3650d")] = 3_024_000_000
    """The period of which runs are read."""

    @property
    def exposes_run_id(self) -> bool:
        return self.columns.id is not None and self.columns.started is not None

    def read_snapshot(self, connection: Connection) -> tuple[JobSourceSnapshot, dict[str, Json]]:

        table, times = self._inspect_table(connection)
        facts = self.database.write_access_evidence(connection, table)
        now = self.database.current_time(connection)
        rows = connection.execute(_JobAggregateQuery(self, table, times, now).statement).all()
        if len(rows) > MAX_JOBS:
            many = f"{self.columns.type} holds over {MAX_JOBS:,} different values: is that the type of a job?"
            raise ProbeError("database.column_invalid", many)
        if unknown := sorted({row.unknown for row in rows if row.unknown is not None}):
            facts["unmapped_statuses"] = f"statuses that stand for nothing: {', '.join(unknown[:5])}"
        return JobSourceSnapshot(now, tuple(self._job_facts(row, times) for row in rows)), facts

    def _inspect_table(self, connection: Connection) -> tuple[TableClause, dict[str, TimestampFormat]]:
        """The table and the columns that hold times, as the database's own catalogue has them. Raises Fault."""
        import sqlalchemy as sa

        schema, _, name = self.table.rpartition(".")
        catalogue = sa.inspect(connection)
        try:
            found = {column["name"]: column["type"] for column in catalogue.get_columns(name, schema or None)}
        except sa.exc.NoSuchTableError:
            near = get_close_matches(name, catalogue.get_table_names(schema or None), 1)
            raise ProbeError("database.table_missing", f"no table {self.table}{_did_you_mean(near)}") from None
        if missing := [column for column in self.columns.all_columns if column not in found]:
            near = [n for n in found if n.lower() == missing[0].lower()] or get_close_matches(missing[0], found, 1)
            raise ProbeError("database.column_missing", f"{self.table} has no column {missing[0]}{_did_you_mean(near)}")
        dialect = connection.dialect.name
        columns = [
            sa.column(column, None if dialect == "sqlite" else found[column]) for column in self.columns.all_columns
        ]
        times = {
            column: TimestampFormat.from_column_type(found[column], column, dialect, self.timezone)
            for column in self.columns.time_columns
        }
        return sa.table(name, *columns, schema=schema or None), times

    def _job_facts(self, row: Row[Any], time_formats: Mapping[str, TimestampFormat]) -> JobFacts:
        told = row._mapping
        at = {
            name: parse_timestamp_ms(told[name], time_formats[column].default_zone, column)
            for name, column in self._iter_time_fields() if name in told
        }  # fmt: skip
        begun = at.get("last_start") or at.get("last_due") or at.get("last_end")
        took = at.get("newest_start"), at.get("newest_end")
        return JobFacts(
            str(told["type"])[:200],
            next_due=at.get("next_due"),
            last_start=begun,
            last_end=at.get("last_end"),
            last_ok=at.get("last_ok"),
            running_since=at.get("running_since"),
            duration=max(took[1] - took[0], 0) if took[0] is not None and took[1] is not None else None,
            failures=int(told["failures"] or 0),
            error=told.get("error") or "",
            worker=told.get("worker") or "",
            run_id=told.get("run") or "",
            schedule_since=begun,
        )

    def _iter_time_fields(self) -> Iterator[tuple[str, str]]:
        """Instant in a row of the aggregate -> the column whose form it has."""
        columns = self.columns
        ended = columns.finished or columns.started or columns.scheduled or ""
        yield from (("last_end", ended), ("last_ok", ended))
        yield from ((name, columns.started or "") for name in ("last_start", "running_since", "newest_start"))
        yield from ((name, columns.scheduled or "") for name in ("last_due", "next_due"))
        yield "newest_end", columns.finished or ""


def _did_you_mean(suggestions: Iterable[str]) -> str:
    return "".join(f"; did you mean {name}?" for name in suggestions)


# --- the aggregate


class _JobAggregateQuery:
    """One statement: the newest instants of each type, and beside them what the rows at those instants say."""

    def __init__(
        self, config: SqlJobSource, table: TableClause, time_formats: Mapping[str, TimestampFormat], now: int
    ) -> None:
        self.config, self.columns, self.table, self.time_formats, self.now = (
            config,
            config.columns,
            table,
            time_formats,
            now,
        )

    def as_text(self, column_name: str) -> ColumnElement[str]:
        """A column as text: statuses may be an enum, a number, a switch; errors JSON."""
        import sqlalchemy as sa

        column = self.table.c[column_name]
        plain = isinstance(column.type, sa.String) and not isinstance(column.type, sa.Enum)
        return column if plain else sa.cast(column, sa.String)

    def status_in(self, *statuses: str) -> ColumnElement[bool]:
        import sqlalchemy as sa

        return self.as_text(self.columns.status).in_(statuses) if statuses else sa.false()

    @property
    def finished_at(self) -> ColumnElement[Any]:
        """When a run ended, as well as it is known: failed ones often lack their end."""
        import sqlalchemy as sa

        names = [name for name in (self.columns.finished, self.columns.started, self.columns.scheduled) if name]
        alike = [self.table.c[name] for name in names if self.time_formats[name] == self.time_formats[names[0]]]
        return alike[0] if len(alike) == 1 else sa.func.coalesce(*alike)

    @property
    def is_recent(self) -> ColumnElement[bool]:
        """What is looked at: runs that are not old, and those that are not over."""
        import sqlalchemy as sa

        since, statuses = self.now - self.config.since, self.config.statuses
        recent = [time.not_older_than(self.table.c[name], since) for name, time in self.time_formats.items()]
        return sa.or_(self.status_in(*statuses.waiting, *statuses.running), *recent)

    def newest_per_type(self) -> Select[Any]:
        """Of each type."""
        import sqlalchemy as sa

        config, statuses = self.columns, self.config.statuses
        over, status = self.status_in(*statuses.done, *statuses.failed), self.as_text(config.status)
        asked: dict[str, ColumnElement[Any]] = {
            "last_end": sa.func.max(sa.case((over, self.finished_at))),
            "last_ok": sa.func.max(sa.case((self.status_in(*statuses.done), self.finished_at))),
            "unknown": sa.func.min(sa.case((status.not_in(statuses.all_statuses), status))),
        }
        if config.started:
            started = self.table.c[config.started]
            asked["last_start"] = sa.func.max(started)
            asked["running_since"] = sa.func.min(sa.case((self.status_in(*statuses.running), started)))
        if config.scheduled:
            scheduled = self.table.c[config.scheduled]
            asked["last_due"] = sa.func.max(sa.case((~self.status_in(*statuses.waiting), scheduled)))
            asked["next_due"] = sa.func.min(sa.case((self.status_in(*statuses.waiting), scheduled)))
        kind = self.table.c[config.type]
        columns = [kind.label("type"), *(what.label(name) for name, what in asked.items())]
        return sa.select(*columns).where(self.is_recent, kind.is_not(None)).group_by(kind).limit(MAX_JOBS + 1)

    @property
    def statement(self) -> Select[Any]:
        import sqlalchemy as sa

        config, statuses = self.columns, self.config.statuses
        newest = self.newest_per_type().subquery("newest")
        over = self.status_in(*statuses.done, *statuses.failed)
        last = sa.and_(over, self.finished_at == newest.c.last_end)
        later = sa.or_(newest.c.last_ok.is_(None), self.finished_at > newest.c.last_ok)
        asked: dict[str, ColumnElement[Any]] = {
            name: sa.func.max(column) for name, column in newest.c.items() if name != "type"
        }
        asked["failures"] = sa.func.sum(sa.case((sa.and_(self.status_in(*statuses.failed), later), 1), else_=0))
        if config.started:
            asked["newest_start"] = sa.func.max(sa.case((last, self.table.c[config.started])))
        if config.finished:
            asked["newest_end"] = sa.func.max(sa.case((last, self.table.c[config.finished])))
        if config.error:
            bad = sa.and_(self.status_in(*statuses.failed), last)
            asked["error"] = sa.func.max(sa.case((bad, sa.func.substr(self.as_text(config.error), 1, MAX_ERROR_CHARS))))
        if config.started:
            here = sa.and_(self.status_in(*statuses.running), self.table.c[config.started] == newest.c.running_since)
            for name, column in (("worker", config.worker), ("run", config.id)):
                if column:
                    asked[name] = sa.func.max(sa.case((here, self.as_text(column))))
        kind = newest.c.type
        return (
            sa.select(kind, *(what.label(name) for name, what in asked.items()))
            .join_from(self.table, newest, self.table.c[config.type] == kind, isouter=True)  # keeps SQLite from n*m
            .where(self.is_recent, sa.or_(~over, newest.c.last_ok.is_(None), self.finished_at >= newest.c.last_ok))
            .group_by(kind)
        )
