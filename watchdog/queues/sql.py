"""Jobs in a table of the user's own: which column holds what is configured, the facts are one aggregate of it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema, model_validator

from watchdog.fields import Duration, FieldsError, Line, Model, Zone, between
from watchdog.model import Json
from watchdog.queues.base import JobFacts, JobSource, Reach, Snapshot, installed
from watchdog.queues.database import Database, look
from watchdog.queues.database_kinds import DatabaseUrl, database
from watchdog.queues.instants import Time, instant
from watchdog.wire.faults import Fault

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select, TableClause

MOST = 2_000
"""Job types that are read."""
ERROR = 500
"""Characters of an error that are read."""


# --- configuration


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[^\W\d][\w$]{0,63}", text):
        raise ValueError("expected the name of a column: letters, digits and '_'")
    return text


def table_name(text: str) -> str:
    if not re.fullmatch(r"([^\W\d][\w$]{0,63}\.)?[^\W\d][\w$]{0,63}", text):
        raise ValueError("expected the name of a table, or schema.table: letters, digits and '_'")
    return text


def _status(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


Column = Annotated[str, AfterValidator(_identifier)]
Status = Annotated[
    Line, BeforeValidator(_status), WithJsonSchema({"anyOf": [{"type": t} for t in ("string", "integer", "boolean")]})
]


class Columns(Model):
    """Which column holds what. Times may be timestamps, epoch seconds or milliseconds, or ISO 8601 in text."""

    type: Column
    """What people call the job: each of its values is watched as one job."""
    status: Column
    scheduled: Column | None = None
    """When a run is due."""
    started: Column | None = None
    finished: Column | None = None
    worker: Column | None = None
    """Who works on a run."""
    error: Column | None = None
    """What a failed run said."""
    id: Column | None = None
    """What tells one run from another: a remedy may name it."""

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if not self.times:
            raise ValueError("expected at least one of scheduled, started and finished")
        return self

    @property
    def times(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.scheduled, self.started, self.finished)))

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(filter(None, self.__dict__.values()))


class Statuses(Model):
    """What the status column holds of a run that waits, that is under way, that ended well, that failed."""

    waiting: tuple[Status, ...] = ()
    running: tuple[Status, ...] = ()
    done: tuple[Status, ...] = ()
    failed: tuple[Status, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if not self.all:
            raise ValueError("expected at least one status")
        twice = [(name, i) for name, i, status in self._listed() if self.all.count(status) > 1]
        if twice:
            raise FieldsError([(twice[-1], "this status has another meaning already")])
        return self

    def _listed(self) -> Iterator[tuple[str, int, str]]:
        for name, statuses in self.__dict__.items():
            for i, status in enumerate(statuses):
                yield name, i, status

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(status for _, _, status in self._listed())


class JobTable(JobSource):
    """Jobs in a table. Whoever reads it needs SELECT on the table, no more."""

    url: DatabaseUrl
    """postgresql://user:password@host/database (extra `postgres`), mysql://... (extra `mysql`), sqlite:///file.db."""
    table: Annotated[str, AfterValidator(table_name)]
    """The table, or schema.table."""

    @model_validator(mode="after")
    def _driven(self) -> Self:
        installed(self.database.name, [self.database.module], self.database.extra)
        return self

    @property
    def database(self) -> Database:
        return database(self.url, self.table)

    @property
    def target(self) -> str:
        return f"{self.database.shown}/{self.table}"

    @property
    def host(self) -> str:
        return self.database.host

    def prepare(self) -> None:
        import_module("sqlalchemy")
        import_module(self.database.module)

    async def snapshot(self, reach: Reach) -> Snapshot:
        snapshot, facts = await look(self.database, reach, self.read)
        reach.facts.update(facts)
        return snapshot

    @abstractmethod
    def read(self, connection: Connection) -> tuple[Snapshot, dict[str, Json]]:
        """The jobs, and what else is worth knowing. Raises Fault."""


class SqlJobs(JobTable):
    """Jobs in a table of PostgreSQL, MySQL, MariaDB or SQLite. Whoever reads it needs SELECT on the table, no more."""

    name: ClassVar[str] = "SQL"

    columns: Columns
    statuses: Statuses
    timezone: Zone = "UTC"
    """The time zone of times that carry none."""
    since: Annotated[Duration, between("1h", "3650d")] = 3_024_000_000
    """How far back runs are looked at."""

    @property
    def names_runs(self) -> bool:
        return self.columns.id is not None and self.columns.started is not None

    def read(self, connection: Connection) -> tuple[Snapshot, dict[str, Json]]:
        import sqlalchemy as sa

        table, times = self._found(connection)
        facts = self.database.rights(connection, table)
        now = instant(connection.execute(sa.text(self.database.now)).scalar(), "UTC", "the clock") or 0
        rows = connection.execute(_Aggregate(self, table, times, now).statement).all()
        if len(rows) > MOST:
            many = f"{self.columns.type} holds over {MOST:,} different values: is that the type of a job?"
            raise Fault("database.column_invalid", many)
        if unknown := sorted({row.unknown for row in rows if row.unknown is not None}):
            facts["unmapped"] = f"statuses that stand for nothing: {', '.join(unknown[:5])}"
        return Snapshot(now, tuple(self._job(row, times) for row in rows)), facts

    def _found(self, connection: Connection) -> tuple[TableClause, dict[str, Time]]:
        """The table and the columns that hold times, as the database's own catalogue has them. Raises Fault."""
        import sqlalchemy as sa

        schema, _, name = self.table.rpartition(".")
        catalogue = sa.inspect(connection)
        try:
            found = {column["name"]: column["type"] for column in catalogue.get_columns(name, schema or None)}
        except sa.exc.NoSuchTableError:
            near = get_close_matches(name, catalogue.get_table_names(schema or None), 1)
            raise Fault("database.table_missing", f"no table {self.table}{_hint(near)}") from None
        if missing := [column for column in self.columns.all if column not in found]:
            near = [n for n in found if n.lower() == missing[0].lower()] or get_close_matches(missing[0], found, 1)
            raise Fault("database.column_missing", f"{self.table} has no column {missing[0]}{_hint(near)}")
        dialect = connection.dialect.name
        columns = [sa.column(column, None if dialect == "sqlite" else found[column]) for column in self.columns.all]
        times = {column: Time.of(found[column], column, dialect, self.timezone) for column in self.columns.times}
        return sa.table(name, *columns, schema=schema or None), times

    def _job(self, row: Row[Any], times: Mapping[str, Time]) -> JobFacts:
        told = row._mapping
        at = {
            name: instant(told[name], times[column].zone, column)
            for name, column in self._holds() if name in told
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
            run=told.get("run") or "",
            since=begun,
        )

    def _holds(self) -> Iterator[tuple[str, str]]:
        """Instant in a row of the aggregate -> the column whose form it has."""
        columns = self.columns
        ended = columns.finished or columns.started or columns.scheduled or ""
        yield from (("last_end", ended), ("last_ok", ended))
        yield from ((name, columns.started or "") for name in ("last_start", "running_since", "newest_start"))
        yield from ((name, columns.scheduled or "") for name in ("last_due", "next_due"))
        yield "newest_end", columns.finished or ""


def _hint(near: Iterable[str]) -> str:
    return "".join(f"; did you mean {name}?" for name in near)


# --- the aggregate


class _Aggregate:
    """One statement: the newest instants of each type, and beside them what the rows at those instants say."""

    def __init__(self, config: SqlJobs, table: TableClause, times: Mapping[str, Time], now: int) -> None:
        self.config, self.columns, self.table, self.times, self.now = config, config.columns, table, times, now

    def text(self, name: str) -> ColumnElement[str]:
        """A column as text: statuses may be an enum, a number, a switch; errors JSON."""
        import sqlalchemy as sa

        column = self.table.c[name]
        plain = isinstance(column.type, sa.String) and not isinstance(column.type, sa.Enum)
        return column if plain else sa.cast(column, sa.String)

    def among(self, *statuses: str) -> ColumnElement[bool]:
        import sqlalchemy as sa

        return self.text(self.columns.status).in_(statuses) if statuses else sa.false()

    @property
    def ended(self) -> ColumnElement[Any]:
        """When a run ended, as well as it is known: failed ones often lack their end."""
        import sqlalchemy as sa

        names = [name for name in (self.columns.finished, self.columns.started, self.columns.scheduled) if name]
        alike = [self.table.c[name] for name in names if self.times[name] == self.times[names[0]]]
        return alike[0] if len(alike) == 1 else sa.func.coalesce(*alike)

    @property
    def recent(self) -> ColumnElement[bool]:
        """What is looked at: runs that are not old, and those that are not over."""
        import sqlalchemy as sa

        since, statuses = self.now - self.config.since, self.config.statuses
        recent = [time.recent(self.table.c[name], since) for name, time in self.times.items()]
        return sa.or_(self.among(*statuses.waiting, *statuses.running), *recent)

    def newest(self) -> Select[Any]:
        """Of each type."""
        import sqlalchemy as sa

        config, statuses = self.columns, self.config.statuses
        over, status = self.among(*statuses.done, *statuses.failed), self.text(config.status)
        asked: dict[str, ColumnElement[Any]] = {
            "last_end": sa.func.max(sa.case((over, self.ended))),
            "last_ok": sa.func.max(sa.case((self.among(*statuses.done), self.ended))),
            "unknown": sa.func.min(sa.case((status.not_in(statuses.all), status))),
        }
        if config.started:
            started = self.table.c[config.started]
            asked["last_start"] = sa.func.max(started)
            asked["running_since"] = sa.func.min(sa.case((self.among(*statuses.running), started)))
        if config.scheduled:
            scheduled = self.table.c[config.scheduled]
            asked["last_due"] = sa.func.max(sa.case((~self.among(*statuses.waiting), scheduled)))
            asked["next_due"] = sa.func.min(sa.case((self.among(*statuses.waiting), scheduled)))
        kind = self.table.c[config.type]
        columns = [kind.label("type"), *(what.label(name) for name, what in asked.items())]
        return sa.select(*columns).where(self.recent, kind.is_not(None)).group_by(kind).limit(MOST + 1)

    @property
    def statement(self) -> Select[Any]:
        import sqlalchemy as sa

        config, statuses = self.columns, self.config.statuses
        newest = self.newest().subquery("newest")
        over = self.among(*statuses.done, *statuses.failed)
        last = sa.and_(over, self.ended == newest.c.last_end)
        later = sa.or_(newest.c.last_ok.is_(None), self.ended > newest.c.last_ok)
        asked: dict[str, ColumnElement[Any]] = {
            name: sa.func.max(column) for name, column in newest.c.items() if name != "type"
        }
        asked["failures"] = sa.func.sum(sa.case((sa.and_(self.among(*statuses.failed), later), 1), else_=0))
        if config.started:
            asked["newest_start"] = sa.func.max(sa.case((last, self.table.c[config.started])))
        if config.finished:
            asked["newest_end"] = sa.func.max(sa.case((last, self.table.c[config.finished])))
        if config.error:
            bad = sa.and_(self.among(*statuses.failed), last)
            asked["error"] = sa.func.max(sa.case((bad, sa.func.substr(self.text(config.error), 1, ERROR))))
        if config.started:
            here = sa.and_(self.among(*statuses.running), self.table.c[config.started] == newest.c.running_since)
            for name, column in (("worker", config.worker), ("run", config.id)):
                if column:
                    asked[name] = sa.func.max(sa.case((here, self.text(column))))
        kind = newest.c.type
        return (
            sa.select(kind, *(what.label(name) for name, what in asked.items()))
            .join_from(self.table, newest, self.table.c[config.type] == kind, isouter=True)  # keeps SQLite from n*m
            .where(self.recent, sa.or_(~over, newest.c.last_ok.is_(None), self.ended >= newest.c.last_ok))
            .group_by(kind)
        )
