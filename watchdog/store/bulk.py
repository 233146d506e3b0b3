"""Executes statements for hundreds of rows or ids at once, without the work of SQLAlchemy for each of them.

A statement is compiled once. Its rows are passed to the driver unchanged, so their values must be of types that need no
conversion: numbers, text and Booleans.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

MAX_COMPILED_BULK_STATEMENTS = 32


def execute_for_rows(connection: sa.Connection, statement: sa.UpdateBase, rows: Sequence[Mapping[str, Any]]) -> int:
    """Executes a statement once for each row, and returns how many rows of the table it has changed. `statement`: a
    constant; each row has a value for each of its parameters."""
    compiled = _compile(statement, connection.dialect)
    names = compiled.positiontup
    values = rows if names is None else [tuple([row[name] for name in names]) for row in rows]
    return connection.exec_driver_sql(compiled.string, values).rowcount


@lru_cache(MAX_COMPILED_BULK_STATEMENTS)
def _compile(statement: sa.UpdateBase, dialect: sa.Dialect) -> Any:
    return statement.compile(dialect=dialect)


class _IdList(sa.types.TypeDecorator[Collection[int]]):
    """Any number of ids as one parameter."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        is_postgres = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.ARRAY(sa.BigInteger) if is_postgres else sa.Text())

    def process_bind_param(self, value: Collection[int] | None, dialect: sa.Dialect) -> Any:
        ids = list(value or ())
        return ids if dialect.name == "postgresql" else json.dumps(ids)


class _IdRows(FunctionElement[int]):
    """A table with a column `value`, which has a row for each id."""

    type = sa.BigInteger()
    inherit_cache = True


def has_id_of(column: sa.ColumnElement[int], ids: Collection[int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these ids. With one parameter for each id, the statement would be compiled
    and parsed again for each number of ids."""
    rows = _IdRows(sa.bindparam(None, ids, type_=_IdList(), unique=True))
    return column.in_(sa.select(sa.column("value")).select_from(rows))


@compiles(_IdRows)
def _compile_for_sqlite(element: _IdRows, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_IdRows, "postgresql")
def _compile_for_postgres(element: _IdRows, compiler: Any, **options: Any) -> str:
    return f"unnest({compiler.process(element.clauses, **options)}) AS id_rows(value)"
