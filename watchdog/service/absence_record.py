"""Remembers across restarts, without the database, whom this process has notified of an absence of the database."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from watchdog.domain.model import Json

log = structlog.get_logger()

MAX_PROCESSES_PER_STORE_ABSENCE_RECORD_PATH = 16
"""Processes that may share a path."""
MAX_STORE_ABSENCE_RECORD_BYTES = 1024 * 1024


@dataclass(slots=True)
class SentStoreAbsenceNotice:
    """What a destination was last sent."""

    sent_at: int
    """Epoch ms."""
    named_targets: list[str]
    """The failing targets that it named."""
    sequence: int
    """How many notices it was sent before."""
    receipt: dict[str, Json]


@dataclass(slots=True)
class StoreAbsenceRecord:
    """An absence of the database, and who was notified of it."""

    since: int
    """Epoch ms."""
    member: str
    """The process that noticed it, which its notices name, also those that a later process sends."""
    error: str = ""
    is_damaged: bool = False
    ended_at: int | None = None
    """Epoch ms; None: not yet."""
    notices: dict[str, SentStoreAbsenceNotice] = field(default_factory=dict)
    """By destination: of those that were not notified of its end."""


def encode_store_absence_records(records: Sequence[StoreAbsenceRecord]) -> bytes:
    """The content of the file."""
    return json.dumps([asdict(record) for record in records]).encode() if records else b""


class StoreAbsenceRecordFile:
    """Owns the file `<path>`, and a lock that keeps other processes from using it: they take `<path>-2` and so on.

    If no file can be written, nothing is remembered across restarts.
    """

    def __init__(self, path: Path):
        self.path, self._fd = path, -1

    def load_records(self) -> list[StoreAbsenceRecord]:
        """What the file holds, oldest first; empty: no absence, or none that can be read. Raises nothing."""
        try:
            if self._fd < 0:
                self._fd = self._lock_first_free_file(create=False)
            return [
                StoreAbsenceRecord(
                    **data, notices={name: SentStoreAbsenceNotice(**sent) for name, sent in notices.items()}
                )
                for data in json.loads(os.pread(self._fd, MAX_STORE_ABSENCE_RECORD_BYTES, 0) or b"[]")
                for notices in [data.pop("notices")]
            ]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return []

    def write(self, data: bytes) -> None:
        """Replace what the file holds, and sync it. Logs what prevents it, and raises nothing."""
        try:
            if self._fd < 0:
                self._fd = self._lock_first_free_file(create=True)
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))
            os.fsync(self._fd)
        except OSError as e:
            log.warning("absence_not_remembered", path=str(self.path), error=e.strerror or str(e))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _lock_first_free_file(self, *, create: bool) -> int:
        """A descriptor of the first file that no other process uses. Raises OSError."""
        for number in range(1, MAX_PROCESSES_PER_STORE_ABSENCE_RECORD_PATH + 1):
            path = self.path if number == 1 else self.path.with_name(f"{self.path.name}-{number}")
            if not create and not path.exists():
                continue
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            os.close(fd)
        raise BlockingIOError
