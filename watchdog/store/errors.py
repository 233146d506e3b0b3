"""The errors of the store.

    StoreUnavailableError  the database cannot serve the call now; the same call may succeed later
    WatchdogDatabaseDamagedError   as above, because the SQLite file is damaged
    ClockSteppedError      as above, because the time that the call was given is of an earlier clock generation
    WatchdogDatabaseSchemaError    the schema is missing, newer, or not Watchdog's: an operator has to act

All are raised by the transactions of `Database`, which is the only place that interprets what a driver raises.
Any other `sqlalchemy.exc.DBAPIError` is a fault of the statement or of its values and passes through unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

UNDEFINED_TABLE_SQLSTATE, UNDEFINED_COLUMN_SQLSTATE = "42P01", "42703"
OPERATOR_FIXABLE_SQLSTATES = ("42501", "25006", "3F000")
"""Missing privilege, read-only server, missing schema: an operator can repair these while Watchdog runs."""
SQLITE_DAMAGE_MESSAGES = ("unsupported file format",)
"""What SQLite reports about a damaged header without a code of its own."""
LIMIT_EXCEEDED_SQLSTATE_CLASS = "54"
"""A limit of the server, such as a value too long for an index. The driver reports it as operational, yet a retry never
succeeds."""


class StoreUnavailableError(Exception):
    """The database cannot serve the call: out of reach, busy, locked, full, read-only or damaged.

    The same call may succeed later. The text is the first line of the driver's message; it may contain parts of the
    URL, so mask it before it is shown.
    """


class WatchdogDatabaseDamagedError(StoreUnavailableError):
    """The SQLite file is damaged, or no database. Only a backup helps."""


class ClockSteppedError(StoreUnavailableError):
    """The clock was set, and the database is in another clock generation than the call."""


class WatchdogDatabaseSchemaError(Exception):
    """The schema of the database is missing, newer than this version, or another program's tables are in the way."""


@contextmanager
def translate_store_driver_errors() -> Iterator[None]:
    """Raises StoreUnavailableError or WatchdogDatabaseSchemaError for errors of the driver that mean one of these."""
    try:
        yield
    except sa.exc.TimeoutError as e:  # every connection of the pool is in use
        raise StoreUnavailableError(str(e).splitlines()[0]) from e
    except UnicodeDecodeError as e:  # SQLite's own messages quote the schema
        raise WatchdogDatabaseDamagedError("the file is damaged: its schema is not text") from e
    except DBAPIError as e:
        if type(e.orig) is sqlite3.DatabaseError or str(e.orig) in SQLITE_DAMAGE_MESSAGES:
            raise WatchdogDatabaseDamagedError(_extract_store_driver_message(e)) from e
        if _is_store_unavailable_error(e):
            raise StoreUnavailableError(_extract_store_driver_message(e)) from e
        if _is_schema_missing_error(e):
            raise WatchdogDatabaseSchemaError(
                "the database has no schema of this version: run `watchdog db upgrade`"
            ) from e
        raise


def _is_store_unavailable_error(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        operational = isinstance(error.orig, sqlite3.OperationalError)
        return operational and getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if sqlstate in OPERATOR_FIXABLE_SQLSTATES:
        return True
    limit_exceeded = sqlstate.startswith(LIMIT_EXCEEDED_SQLSTATE_CLASS)
    return isinstance(error, OperationalError | InterfaceError) and not limit_exceeded


def _is_schema_missing_error(error: DBAPIError) -> bool:
    undefined = getattr(error.orig, "sqlstate", None) in (UNDEFINED_TABLE_SQLSTATE, UNDEFINED_COLUMN_SQLSTATE)
    return undefined or str(error.orig).startswith(("no such table", "no such column"))


def describe_store_error_unmasked(error: Exception) -> str:
    """The type and message of any error. Of a driver's error only the first line: the others quote values."""
    if isinstance(error, StoreUnavailableError):
        return str(error)
    message = _extract_store_driver_message(error) if isinstance(error, DBAPIError) else str(error)
    return f"{type(error).__name__}: {message}".strip(": ")


def _extract_store_driver_message(error: DBAPIError) -> str:
    return (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
