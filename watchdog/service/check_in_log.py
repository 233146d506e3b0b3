"""Check-ins on disk until the database has them. Two files take turns: one is appended to while the other is drained.

A line is the checksum of a record, a space, and the record. An incomplete last line, left by a crash, is ignored.
Synchronous, and for use by one thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

MAX_CHECK_IN_LOG_BYTES = 64 * 1024 * 1024
"""Limit of both files together; beyond it, appending fails."""
MAX_PROCESSES_PER_CHECK_IN_LOG_PATH = 16
"""Processes that may share a path."""
CHECK_IN_LOG_CHUNK_BYTES = 1024 * 1024
"""Bytes read for a batch: far more than the longest record."""

_sync_to_disk = getattr(os, "fdatasync", os.fsync)


class CheckInLogError(Exception):
    """The log cannot be used at present; the message is the reason."""


class _CheckInWriteAheadLogFile:
    """One of the two files."""

    def __init__(self, path: Path):
        self.path, self.fd, self.size = path, -1, 0

    def open(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def append(self, data: bytes) -> None:
        """Write and sync all of it, or raise OSError and leave the file as it was."""
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self.fd, data[written:], self.size + written)
            _sync_to_disk(self.fd)
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size += len(data)

    def truncate(self) -> None:
        os.ftruncate(self.fd, 0)
        self.size = 0

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class CheckInWriteAheadLog:
    """Owns the two files `<path>.0` and `<path>.1`, and a lock that keeps other processes from using them.

    If another process uses them, as on a shared SQLite file, it takes `<path>-2` and so on. What processes that have
    ended left in such files is taken over when a log is opened, and by `take_over_abandoned_check_in_logs`.

    A record that was appended is returned by `read_check_in_batch` until it is acknowledged, across restarts. Records
    keep their order. Methods raise CheckInLogError.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_CHECK_IN_LOG_BYTES):
        self.path, self.max_bytes = path, max_bytes
        self._files = _build_check_in_log_files(path)
        self._append_file, self._drain_file = self._files
        self._acknowledged_offset = self._read_offset = 0
        """Offsets in the file being drained: what is in the database, and what was read."""

    def append(self, records: Iterable[bytes]) -> None:
        """Returns once the records are on disk. Raises CheckInLogError, and then none of them is."""
        self._open_check_in_log_if_closed()
        lines = b"".join(b"%08x %s\n" % (crc32(record), record) for record in records)
        if sum(file.size for file in self._files) + len(lines) > self.max_bytes:
            raise CheckInLogError(f"{self.path} is full: {self.max_bytes >> 20} MiB are waiting for the database")
        try:
            self._append_file.append(lines)
        except OSError as e:
            raise CheckInLogError(f"{self.path} cannot be written: {(e.strerror or str(e)).lower()}") from None

    def read_check_in_batch(self, max_records: int) -> list[bytes]:
        """The oldest records; the same again until they are acknowledged. Raises CheckInLogError.

        Empty if there are none, or once a file is drained. What arrives meanwhile is in the other file, and waits
        there until this one has been cleared.
        """
        self._open_check_in_log_if_closed()
        if not self._drain_file.size:
            self._append_file, self._drain_file = self._drain_file, self._append_file
        while self._acknowledged_offset < self._drain_file.size:
            records = self._read_records(max_records)
            if records:
                return records
            self.acknowledge()  # only an incomplete line that a crash left
        return []

    def acknowledge(self) -> None:
        """Mark the last batch as stored."""
        self._acknowledged_offset = self._read_offset

    def is_drain_file_fully_stored(self) -> bool:
        """Whether everything in a file is stored. Sync the database to disk, then call `truncate_drained_log_file`."""
        return 0 < self._drain_file.size <= self._acknowledged_offset

    def truncate_drained_log_file(self) -> None:
        """Empty the file whose content is stored."""
        self._drain_file.truncate()
        self._acknowledged_offset = self._read_offset = 0

    def close(self) -> None:
        for file in self._files:
            file.close()

    @property
    def is_open(self) -> bool:
        """Whether the log has been used."""
        return self._append_file.fd >= 0

    def _open_check_in_log_if_closed(self) -> None:
        if self.is_open:
            return
        try:
            self._files = self._lock_files_of_first_unused_log()
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            self._drain_file, self._append_file = sorted(
                self._files, key=lambda f: (not f.size, os.fstat(f.fd).st_mtime_ns)
            )
            self._acknowledged_offset = self._read_offset = 0
            if self._append_file.size:
                self._append_file.append(b"\n")  # the next record must not continue an incomplete line
            self._take_over_check_ins_of_ended_processes()
        except OSError as e:
            self.close()
            if isinstance(e, BlockingIOError):
                reason = (
                    f"{MAX_PROCESSES_PER_CHECK_IN_LOG_PATH} other Watchdog processes use it;"
                    " give each its own storage.check_in_log"
                )
            else:
                reason = e.strerror or str(e)
            raise CheckInLogError(f"{self.path} cannot be used: {reason[:1].lower()}{reason[1:]}") from None

    def _list_possible_log_paths(self) -> list[Path]:
        return [
            self.path,
            *(self.path.with_name(f"{self.path.name}-{n}") for n in range(2, MAX_PROCESSES_PER_CHECK_IN_LOG_PATH + 1)),
        ]

    def _lock_files_of_first_unused_log(self) -> tuple[_CheckInWriteAheadLogFile, _CheckInWriteAheadLogFile]:
        """The files of the first log that no other process uses, open and locked. Raises OSError."""
        for path in self._list_possible_log_paths():
            files = _build_check_in_log_files(path)
            if _try_to_open_and_lock_both_log_files(files):
                return files
        raise BlockingIOError

    def take_over_abandoned_check_in_logs(self) -> None:
        """Take over what other logs hold whose process has ended: it may never start again. Opens this log only if
        there is something. Raises CheckInLogError."""
        try:
            if self.is_open:
                self._take_over_check_ins_of_ended_processes()
            elif any(
                _are_log_files_abandoned(_build_check_in_log_files(path)) for path in self._list_possible_log_paths()
            ):
                self._open_check_in_log_if_closed()
        except OSError as e:
            raise CheckInLogError(f"{self.path} cannot be used: {(e.strerror or str(e)).lower()}") from None

    def _take_over_check_ins_of_ended_processes(self) -> None:
        """Append what other logs hold whose process has ended, as far as there is room. Raises OSError."""
        for path in self._list_possible_log_paths():
            files = _build_check_in_log_files(path)
            is_own = path == self._files[0].path.with_suffix("")
            if is_own or not _do_log_files_hold_records(files) or not _try_to_open_and_lock_both_log_files(files):
                continue
            try:
                for file in files:
                    has_room = sum(own.size for own in self._files) + file.size < self.max_bytes
                    if file.size and has_room:
                        self._append_file.append(os.pread(file.fd, file.size, 0) + b"\n")
                        file.truncate()
            finally:
                for file in files:
                    file.close()

    def _read_records(self, max_records: int) -> list[bytes]:
        data = os.pread(self._drain_file.fd, CHECK_IN_LOG_CHUNK_BYTES, self._acknowledged_offset)
        lines = data.split(b"\n", max_records)
        rest = lines.pop()  # beyond the batch, or a line that a crash or the end of the chunk cut off
        complete_bytes = sum(len(line) + 1 for line in lines)
        self._read_offset = self._acknowledged_offset + (complete_bytes or len(data))
        if not lines:
            lines = [rest]
        return [record for line in lines if (record := _extract_record_if_checksum_matches(line)) is not None]


def _build_check_in_log_files(path: Path) -> tuple[_CheckInWriteAheadLogFile, _CheckInWriteAheadLogFile]:
    return _CheckInWriteAheadLogFile(path.with_name(f"{path.name}.0")), _CheckInWriteAheadLogFile(
        path.with_name(f"{path.name}.1")
    )


def _do_log_files_hold_records(files: tuple[_CheckInWriteAheadLogFile, _CheckInWriteAheadLogFile]) -> bool:
    return any(file.path.exists() and file.path.stat().st_size for file in files)


def _are_log_files_abandoned(files: tuple[_CheckInWriteAheadLogFile, _CheckInWriteAheadLogFile]) -> bool:
    """Whether the files hold records, and no process uses them. Raises OSError."""
    if not _do_log_files_hold_records(files) or not _try_to_open_and_lock_both_log_files(files):
        return False
    for file in files:
        file.close()
    return True


def _try_to_open_and_lock_both_log_files(files: tuple[_CheckInWriteAheadLogFile, _CheckInWriteAheadLogFile]) -> bool:
    """Open both files; False, with both closed, if another process has locked them. Raises OSError."""
    try:
        for file in files:
            file.open()
        fcntl.flock(files[0].fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        for file in files:
            file.close()
        if isinstance(e, BlockingIOError):
            return False
        raise
    return True


def _extract_record_if_checksum_matches(line: bytes) -> bytes | None:
    checksum, _, record = line.partition(b" ")
    return record if record and checksum == b"%08x" % crc32(record) else None
