"""What a disk holds after a power cut: the bytes that were synced, and nothing else.

SQLite's own syncs are observed by a VFS that this module registers with the SQLite library of the process. Syncs of
this process are observed where `os.fsync` and `os.fdatasync` are called. A file that was truncated or deleted stays so,
synced or not: a disk may have done either, and this is the case in which data is lost.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SQLITE_OK = 0
WAL_SUFFIX, SHM_SUFFIX = "-wal", "-shm"


class _IoMethods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("close", "read", "write", "truncate", "sync", "file_size")),
        *((f"method_{n}", ctypes.c_void_p) for n in range(12)),
    ]


class _File(ctypes.Structure):
    """sqlite3_file: its methods, followed by what the VFS adds."""

    _fields_ = [("methods", ctypes.POINTER(_IoMethods))]


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        *((f"method_{n}", ctypes.c_void_p) for n in range(14)),
    ]


_FileP = ctypes.POINTER(_File)
_Open = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, _FileP, ctypes.c_int, ctypes.c_void_p)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, _FileP, ctypes.c_int)
_Read = ctypes.CFUNCTYPE(ctypes.c_int, _FileP, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64)
_FileSize = ctypes.CFUNCTYPE(ctypes.c_int, _FileP, ctypes.POINTER(ctypes.c_int64))


class ObservedDisk:
    """Remembers the synced bytes of every file in `folder`, from the moment at which it is used."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.synced: dict[str, bytes] = {}
        """File name -> bytes. A file that is missing here was never synced."""
        self.on_sync: Callable[[str], None] = lambda name: None

    def record(self, path: Path, content: bytes) -> None:
        if path.parent == self.folder:
            self.synced[path.name] = content
            self.on_sync(path.name)

    def write_remains(self, target: Path) -> None:
        """Write what is left of the files after a power cut at this moment into an empty folder."""
        target.mkdir()
        for name, content in list(self.synced.items()):  # other threads go on
            file = self.folder / name
            if file.exists() and not name.endswith(SHM_SUFFIX):  # SQLite rebuilds its shared memory
                (target / name).write_bytes(content[: file.stat().st_size])


@contextmanager
def observed_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObservedDisk]:
    """Observe the syncs of files in `folder`, of databases opened while this lasts included."""
    disk = ObservedDisk(folder)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, _observing_sync(disk, getattr(os, name)))
    with _sqlite_syncs_observed(disk):
        yield disk


def _observing_sync(disk: ObservedDisk, sync: Callable[[int], None]) -> Callable[[int], None]:
    def observe(fd: int) -> None:
        sync(fd)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_file():
            disk.record(path, os.pread(fd, os.fstat(fd).st_size, 0))

    return observe


@contextmanager
def _sqlite_syncs_observed(disk: ObservedDisk) -> Iterator[None]:
    """Skips the test where Python has its own copy of SQLite."""
    library = find_sqlite_library()
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    original = library.sqlite3_vfs_find(None)
    open_original = _Open(original.contents.open)
    paths: dict[int, Path] = {}
    methods: dict[int, tuple[_IoMethods, Any]] = {}
    """By the address of the original methods: SQLite has several sets. They live as long as a file may be open."""

    def observing_methods(original_methods: Any) -> Any:
        address = ctypes.addressof(original_methods.contents)
        if address not in methods:
            copy = _IoMethods.from_buffer_copy(original_methods.contents)
            sync, read, size = _Sync(copy.sync), _Read(copy.read), _FileSize(copy.file_size)

            def observe_sync(file: Any, flags: int) -> int:
                code = int(sync(file, flags))
                length = ctypes.c_int64()
                if code == size(file, ctypes.byref(length)) == SQLITE_OK:
                    content = ctypes.create_string_buffer(length.value)
                    if not length.value or read(file, content, length.value, 0) == SQLITE_OK:
                        disk.record(paths[ctypes.addressof(file.contents)], content.raw)
                return code

            callback = _Sync(observe_sync)
            copy.sync = ctypes.cast(callback, ctypes.c_void_p)
            methods[address] = copy, callback
        return ctypes.pointer(methods[address][0])

    def observe_open(_: Any, name: int | None, file: Any, flags: int, out_flags: Any) -> int:
        """`name`: a pointer, because SQLite keeps it."""
        code = int(open_original(ctypes.addressof(original.contents), name, file, flags, out_flags))
        if code == SQLITE_OK and name:
            paths[ctypes.addressof(file.contents)] = Path(os.fsdecode(ctypes.string_at(name)))
            file.contents.methods = observing_methods(file.contents.methods)
        return code

    vfs, callback = _Vfs.from_buffer_copy(original.contents), _Open(observe_open)
    vfs.name, vfs.open = b"observed", ctypes.cast(callback, ctypes.c_void_p)
    library.sqlite3_vfs_register(ctypes.byref(vfs), 1)
    try:
        yield
    finally:
        library.sqlite3_vfs_register(original, 1)
        library.sqlite3_vfs_unregister(ctypes.byref(vfs))


def find_sqlite_library() -> ctypes.CDLL:
    """The library that Python's `sqlite3` uses."""
    import _sqlite3

    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libsqlite3" in line}
    if len(libraries) != 1:
        pytest.skip(f"{_sqlite3.__name__} is linked with its own copy of SQLite")
    return ctypes.CDLL(libraries.pop())
