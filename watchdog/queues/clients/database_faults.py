"""What an error of another application's database means: the same for all database systems."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    from sqlalchemy.exc import DBAPIError


class DatabaseFault(Enum):
    """The causes that are distinguished."""

    CONNECT_FAILED = auto()
    """No usable connection, for a reason that the server or the driver words."""
    CONNECTION_LOST = auto()
    WRONG_PROTOCOL = auto()
    """The service on the port is no database of this system."""
    LOGIN_TIMEOUT = auto()
    """The server accepts connections, but does not complete the login."""
    LOGIN_REFUSED = auto()
    TLS_FAILED = auto()
    DATABASE_MISSING = auto()
    FILE_UNREADABLE = auto()
    FILE_INVALID = auto()
    """The file is no database, or is damaged."""
    TOO_MANY_CONNECTIONS = auto()
    OUT_OF_RESOURCES = auto()
    NOT_READY = auto()
    """The server is starting, shutting down or recovering."""
    QUERY_TIMEOUT = auto()
    LOCK_TIMEOUT = auto()
    PERMISSION_DENIED = auto()
    TABLE_MISSING = auto()
    COLUMN_MISSING = auto()
    WRITE_REFUSED = auto()
    SEVERAL_STATEMENTS = auto()
    QUERY_INVALID = auto()
    QUERY_FAILED = auto()
    RESULT_TOO_LARGE = auto()


DATABASE_UNAVAILABLE_FAULTS = frozenset(
    {
        DatabaseFault.CONNECT_FAILED,
        DatabaseFault.CONNECTION_LOST,
        DatabaseFault.WRONG_PROTOCOL,
        DatabaseFault.LOGIN_TIMEOUT,
        DatabaseFault.LOGIN_REFUSED,
        DatabaseFault.TLS_FAILED,
        DatabaseFault.DATABASE_MISSING,
        DatabaseFault.FILE_UNREADABLE,
        DatabaseFault.TOO_MANY_CONNECTIONS,
        DatabaseFault.OUT_OF_RESOURCES,
        DatabaseFault.NOT_READY,
    }
)
"""No statement can be executed."""


class DatabaseFaultError(Exception):
    """A database cannot be opened, or refuses a statement."""

    def __init__(self, fault: DatabaseFault, detail: str, ssl_error: ssl.SSLError | None = None) -> None:
        """`detail`: the text of the server or the driver. `ssl_error`: what Python's TLS has raised, if the driver
        uses that."""
        super().__init__(detail)
        self.fault, self.detail, self.ssl_error = fault, detail, ssl_error


# --- PostgreSQL

_FAULT_BY_SQLSTATE = {
    "57014": DatabaseFault.QUERY_TIMEOUT,
    "55P03": DatabaseFault.LOCK_TIMEOUT,
    "42501": DatabaseFault.PERMISSION_DENIED,
    "42P01": DatabaseFault.TABLE_MISSING,
    "3F000": DatabaseFault.TABLE_MISSING,
    "42703": DatabaseFault.COLUMN_MISSING,
    "25006": DatabaseFault.WRITE_REFUSED,
    "0A000": DatabaseFault.QUERY_INVALID,
    "53300": DatabaseFault.TOO_MANY_CONNECTIONS,
}
_FAULT_BY_SQLSTATE_CLASS = {
    "08": DatabaseFault.CONNECTION_LOST,
    "28": DatabaseFault.LOGIN_REFUSED,
    "3D": DatabaseFault.DATABASE_MISSING,
    "53": DatabaseFault.OUT_OF_RESOURCES,
    "57": DatabaseFault.NOT_READY,
    "42": DatabaseFault.QUERY_INVALID,
}
_FAULT_BY_POSTGRES_CONNECT_TEXT = (
    ("too many clients", DatabaseFault.TOO_MANY_CONNECTIONS),
    ("too many connections", DatabaseFault.TOO_MANY_CONNECTIONS),
    ("remaining connection slots", DatabaseFault.TOO_MANY_CONNECTIONS),
    ("password authentication failed", DatabaseFault.LOGIN_REFUSED),
    ("no password supplied", DatabaseFault.LOGIN_REFUSED),
    ("authentication failed", DatabaseFault.LOGIN_REFUSED),
    ("no pg_hba.conf entry", DatabaseFault.LOGIN_REFUSED),
    ("permission denied for database", DatabaseFault.LOGIN_REFUSED),
    ("is not permitted to log in", DatabaseFault.LOGIN_REFUSED),
    ("role ", DatabaseFault.LOGIN_REFUSED),
    ("database system is", DatabaseFault.NOT_READY),
    ("not accepting connections", DatabaseFault.NOT_READY),
    ("database ", DatabaseFault.DATABASE_MISSING),
    ("timeout expired", DatabaseFault.LOGIN_TIMEOUT),
    ("invalid response to SSL negotiation", DatabaseFault.WRONG_PROTOCOL),
    ("expected authentication request", DatabaseFault.WRONG_PROTOCOL),
    ("SSL SYSCALL", DatabaseFault.CONNECTION_LOST),
    ("SSL", DatabaseFault.TLS_FAILED),
    ("certificate", DatabaseFault.TLS_FAILED),
    ("private key", DatabaseFault.TLS_FAILED),
    ("closed the connection unexpectedly", DatabaseFault.CONNECTION_LOST),
    ("could not receive data from server", DatabaseFault.CONNECTION_LOST),
    ("connection is lost", DatabaseFault.CONNECTION_LOST),
)
"""Parts of the text of an error without SQLSTATE, which libpq hides while it connects; the first that occurs applies.
A server whose messages are in another language has only CONNECT_FAILED."""


def classify_postgres_error(error: DBAPIError, message: str) -> DatabaseFault:
    from sqlalchemy.exc import OperationalError

    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if sqlstate == "42601" and "multiple commands" in message:
        return DatabaseFault.SEVERAL_STATEMENTS
    if sqlstate == "0A000" and "data-modifying" in message:
        return DatabaseFault.WRITE_REFUSED
    if sqlstate:
        of_class = _FAULT_BY_SQLSTATE_CLASS.get(sqlstate[:2], DatabaseFault.QUERY_FAILED)
        return _FAULT_BY_SQLSTATE.get(sqlstate, of_class)
    if not isinstance(error, OperationalError):
        return DatabaseFault.QUERY_FAILED
    if type(error.orig).__name__ == "ConnectionTimeout":
        return DatabaseFault.LOGIN_TIMEOUT
    matching = (fault for part, fault in _FAULT_BY_POSTGRES_CONNECT_TEXT if part in message)
    return next(matching, DatabaseFault.CONNECT_FAILED)


# --- MySQL and MariaDB

_FAULT_BY_MYSQL_ERROR_CODE = {
    **dict.fromkeys((1317, 1969, 3024), DatabaseFault.QUERY_TIMEOUT),
    1205: DatabaseFault.LOCK_TIMEOUT,
    **dict.fromkeys((1142, 1143, 1227, 1370), DatabaseFault.PERMISSION_DENIED),
    1146: DatabaseFault.TABLE_MISSING,
    1054: DatabaseFault.COLUMN_MISSING,
    **dict.fromkeys((1792, 1290, 1836), DatabaseFault.WRITE_REFUSED),
    **dict.fromkeys((1044, 1045, 1129, 1130, 1251, 1698, 4151), DatabaseFault.LOGIN_REFUSED),
    1049: DatabaseFault.DATABASE_MISSING,
    **dict.fromkeys((1040, 1203, 1226), DatabaseFault.TOO_MANY_CONNECTIONS),
    1053: DatabaseFault.NOT_READY,
    **dict.fromkeys((2002, 2003, 2005), DatabaseFault.CONNECT_FAILED),
    **dict.fromkeys((2006, 2013), DatabaseFault.CONNECTION_LOST),
    2026: DatabaseFault.TLS_FAILED,
    **dict.fromkeys((1052, 1055, 1060, 1064, 1111, 1305, 1582, 1630), DatabaseFault.QUERY_INVALID),
}


def find_ssl_error(error: DBAPIError) -> ssl.SSLError | None:
    """What Python's TLS has raised; None: something else is the cause."""
    import ssl  # not when a configuration is only read

    original = getattr(error.orig, "original_exception", None)
    return original if isinstance(original, ssl.SSLError) else None


def classify_mysql_error(error: DBAPIError, message: str) -> DatabaseFault:
    if find_ssl_error(error) is not None:
        return DatabaseFault.TLS_FAILED
    if "timed out" in message:
        return DatabaseFault.LOGIN_TIMEOUT
    if "Packet sequence number wrong" in message:
        return DatabaseFault.WRONG_PROTOCOL
    return _FAULT_BY_MYSQL_ERROR_CODE.get(_get_mysql_error_code(error), DatabaseFault.QUERY_FAILED)


def _get_mysql_error_code(error: DBAPIError) -> int:
    first: Any = next(iter(getattr(error.orig, "args", ())), 0)
    return first if isinstance(first, int) else 0


# --- SQLite

_FAULT_BY_SQLITE_ERROR_NAME_PREFIX = (
    ("SQLITE_INTERRUPT", DatabaseFault.QUERY_TIMEOUT),
    ("SQLITE_BUSY", DatabaseFault.LOCK_TIMEOUT),
    ("SQLITE_LOCKED", DatabaseFault.LOCK_TIMEOUT),
    ("SQLITE_CANTOPEN", DatabaseFault.CONNECT_FAILED),
    ("SQLITE_NOTADB", DatabaseFault.FILE_INVALID),
    ("SQLITE_CORRUPT", DatabaseFault.FILE_INVALID),
    ("SQLITE_READONLY", DatabaseFault.WRITE_REFUSED),
    ("SQLITE_AUTH", DatabaseFault.WRITE_REFUSED),
    ("SQLITE_TOOBIG", DatabaseFault.RESULT_TOO_LARGE),
)
_FAULT_BY_SQLITE_TEXT = (
    ("no such table", DatabaseFault.TABLE_MISSING),
    ("no such column", DatabaseFault.COLUMN_MISSING),
    ("one statement at a time", DatabaseFault.SEVERAL_STATEMENTS),
    ("not authorized", DatabaseFault.WRITE_REFUSED),
)


def classify_sqlite_error(error: DBAPIError, message: str) -> DatabaseFault:
    name = getattr(error.orig, "sqlite_errorname", "")
    matching = (
        *(fault for prefix, fault in _FAULT_BY_SQLITE_ERROR_NAME_PREFIX if name.startswith(prefix)),
        *(fault for part, fault in _FAULT_BY_SQLITE_TEXT if part in message),
    )
    return next(iter(matching), DatabaseFault.QUERY_INVALID if name == "SQLITE_ERROR" else DatabaseFault.QUERY_FAILED)
