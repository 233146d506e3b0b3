"""The statements that are executed, and how SQLite would search for their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from watchdog.store.database import Database


@contextmanager
def recorded_statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed, with its values."""
    statements: list[tuple[str, Any]] = []

    def record(_c: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        statements.append((statement, values[0] if isinstance(values, list) else values))

    for engine in (database.writer, database.reader):
        sa.event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        for engine in (database.writer, database.reader):
            sa.event.remove(engine, "before_cursor_execute", record)


def plans(database: Database, statements: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Each line of each plan, with its statement."""
    explained = [(s, v) for s, v in statements if s.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))]
    with database.reader.connect() as connection:
        cursor = connection.connection.cursor()
        lines = []
        for statement, values in explained:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            lines += [(row[3], statement) for row in cursor.fetchall()]
    return lines
