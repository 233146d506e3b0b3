"""Check-ins on disk, until the database has them. Two files take turns: one is appended to while the other is drained.

A line is the checksum of a record, a space, and the record. What a crash left of a last line is no record. Synchronous,
and for one thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

MAX_LOG_BYTES = 64 * 1024 * 1024
"""Bytes on disk; beyond it nothing is taken."""
READ_CHUNK_BYTES = 1024 * 1024
"""Bytes looked at for a batch: far more than the longest record."""

_sync_to_disk = getattr(os, "fdatasync", os.fsync)


class CheckInLogError(Exception):
    """Nothing can be kept at the moment; the text says why."""


class _LogFile:
    """One of the two."""

    def __init__(self, path: Path):
        self.path, self.fd, self.size = path, -1, 0

    def open(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def append(self, data: bytes) -> None:
        """All of it is on disk, or none."""
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


class CheckInLog:
    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES):
        self.path, self.max_bytes = path, max_bytes
        self._files = tuple(_LogFile(path.with_name(f"{path.name}.{n}")) for n in (0, 1))
        self._append_file, self._drain_file = self._files
        self._acknowledged_offset = self._read_offset = 0
        """How much of the one that is drained is in the database, and how much of it was read."""

    def append(self, records: Iterable[bytes]) -> None:
        """Returns once they are on disk. Raises SpoolError, and then none of them is."""
        self._open()
        lines = b"".join(b"%08x %s\n" % (crc32(record), record) for record in records)
        if sum(file.size for file in self._files) + len(lines) > self.max_bytes:
            raise CheckInLogError(f"{self.path} is full: {self.max_bytes >> 20} MiB wait for the database")
        try:
            self._append_file.append(lines)
        except OSError as e:
            raise CheckInLogError(f"{self.path} cannot be written: {(e.strerror or str(e)).lower()}") from None

    def read_batch(self, max_records: int) -> list[bytes]:
        """The oldest records, at most so many; the same again until they are `settled`. Raises SpoolError."""
        self._open()
        while self._drain_file.size or self._append_file.size:
            if not self._drain_file.size:
                self._append_file, self._drain_file = self._drain_file, self._append_file
            records = self._read_records(max_records)
            if records:
                return records
            self.acknowledge()  # nothing but what a crash left of a line
        return []

    def acknowledge(self) -> bool:
        """What was read last is in the database. Returns whether more is in the same file: what comes meanwhile is in
        the other one, and may gather there."""
        self._acknowledged_offset = self._read_offset
        if self._acknowledged_offset < self._drain_file.size:
            return True
        self._drain_file.truncate()
        self._acknowledged_offset = self._read_offset = 0
        return False

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _open(self) -> None:
        if self._append_file.fd >= 0:
            return
        try:
            for file in self._files:
                file.open()
            fcntl.flock(self._files[0].fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            self._drain_file, self._append_file = sorted(
                self._files, key=lambda f: (not f.size, os.fstat(f.fd).st_mtime_ns)
            )
            self._acknowledged_offset = self._read_offset = 0
            if self._append_file.size:
                self._append_file.append(b"\n")  # what comes must not be joined to a line that a crash cut off
        except OSError as e:
            self.close()
            taken = isinstance(e, BlockingIOError)
            why = (
                "another Watchdog uses it: give each a storage.check_in_log of its own"
                if taken
                else e.strerror or str(e)
            )
            raise CheckInLogError(f"{self.path} cannot be used: {why[:1].lower()}{why[1:]}") from None

    def _read_records(self, max_records: int) -> list[bytes]:
        data = os.pread(self._drain_file.fd, READ_CHUNK_BYTES, self._acknowledged_offset)
        lines = data.split(b"\n", max_records)
        rest = lines.pop()  # beyond the batch, or what was cut off by a crash or by the end of what we looked at
        whole = sum(len(line) + 1 for line in lines)
        self._read_offset = self._acknowledged_offset + (whole or len(data))
        if not lines:
            lines = [rest]
        return [record for line in lines if (record := _parse_line(line)) is not None]


def _parse_line(line: bytes) -> bytes | None:
    checksum, _, record = line.partition(b" ")
    return record if record and checksum == b"%08x" % crc32(record) else None
