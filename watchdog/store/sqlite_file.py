"""Checks an SQLite file that is open: whether it is still there, the same, and readable.

SQLite goes on with a file that was deleted or replaced, and what it stores is lost at the next start. It reads header
and schema once, so that damage to them shows only at the next start.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from watchdog.store.errors import SQLITE_DAMAGE_MESSAGES, WatchdogDatabaseDamagedError
from watchdog.store.tables import metadata

SQLITE_HEADER_SIZE_BYTES = 100
SQLITE_FILE_MAGIC_BYTES = b"SQLite format 3\0"
SQLITE_WAL_FORMAT_VERSION_BYTES = b"\x02\x02"
"""Bytes 18 and 19 of the header of a database in WAL mode."""
SQLITE_SCHEMA_READ_TIMEOUT_S = 5.0


class SqliteFileWatch:
    """Owns a descriptor of the file as it was opened.

    The descriptor stays open as long as the database does: closing any descriptor of a file releases the locks that
    SQLite holds on it for this process.
    """

    def __init__(self, path: Path):
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._page_bytes = self._read_header()[16:18]
        self._seemed_truncated = False

    def check(self) -> None:
        """Raises WatchdogDatabaseDamagedError, which states what has happened to the file."""
        self.require_file_not_deleted_or_replaced()
        self._require_undamaged_sqlite_header()
        self._require_readable_sqlite_schema()

    def close(self) -> None:
        """Only after the database is closed."""
        os.close(self._fd)

    def require_file_not_deleted_or_replaced(self) -> None:
        """Raises WatchdogDatabaseDamagedError if the file was deleted or replaced."""
        opened = os.fstat(self._fd)
        try:
            current = self.path.stat()
        except FileNotFoundError:
            raise WatchdogDatabaseDamagedError("the database file was deleted") from None
        except OSError as e:
            reason = (e.strerror or str(e)).lower()
            raise WatchdogDatabaseDamagedError(f"the database file cannot be found: {reason}") from None
        if (opened.st_dev, opened.st_ino) != (current.st_dev, current.st_ino):
            raise WatchdogDatabaseDamagedError("the database file was replaced by another one")
        if not self.path.with_name(f"{self.path.name}-wal").exists():  # it exists as long as the database is open
            raise WatchdogDatabaseDamagedError("the write-ahead log of the database file was deleted")

    def _require_undamaged_sqlite_header(self) -> None:
        header = self._read_header()
        if (
            len(header) < SQLITE_HEADER_SIZE_BYTES
            or not header.startswith(SQLITE_FILE_MAGIC_BYTES)
            or header[16:18] != self._page_bytes
            or header[18:20] != SQLITE_WAL_FORMAT_VERSION_BYTES
        ):
            raise WatchdogDatabaseDamagedError("the header of the database file is damaged")
        page_bytes = int.from_bytes(header[16:18], "big")
        page_bytes = 65_536 if page_bytes == 1 else page_bytes
        expected_bytes = int.from_bytes(header[28:32], "big") * page_bytes
        size = os.fstat(self._fd).st_size
        was_truncated, self._seemed_truncated = self._seemed_truncated, size < expected_bytes
        if was_truncated and self._seemed_truncated:  # once: SQLite writes the header first when the file grows
            raise WatchdogDatabaseDamagedError(f"the database file was truncated: {size:,} of {expected_bytes:,} bytes")

    def _require_readable_sqlite_schema(self) -> None:
        """With a new connection: those that are open remember the schema."""
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=SQLITE_SCHEMA_READ_TIMEOUT_S)
            try:
                names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            finally:
                connection.close()
        except sqlite3.OperationalError as e:
            if str(e) not in SQLITE_DAMAGE_MESSAGES:
                return  # it is busy, or cannot be opened at present: the store's other calls show that
            raise WatchdogDatabaseDamagedError(f"the database file is damaged: {e}") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as e:
            raise WatchdogDatabaseDamagedError(f"the database file is damaged: {e}") from None
        if missing := metadata.tables.keys() - names:
            raise WatchdogDatabaseDamagedError(f"the database file lacks the table {min(missing)}")

    def _read_header(self) -> bytes:
        return os.pread(self._fd, SQLITE_HEADER_SIZE_BYTES, 0)
