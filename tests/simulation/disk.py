"""A disk that can fail, fill up, lock, and forget what was not synced, below the real SQLite library.

The files are in a folder in memory. The library of SQLite gets a VFS whose methods this module replaces where a fault
needs it; Watchdog's own file accesses go through `SimulatedOs`. Files of a dead process can no longer be changed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.simulation.virtual_loop import CURRENT_PROCESS, SimulatedProcess
from tests.support.power_cut import SHM_SUFFIX, find_sqlite_library

SQLITE_OK, SQLITE_BUSY, SQLITE_IOERR, SQLITE_FULL = 0, 5, 10, 13
SQLITE_SHM_LOCK, SQLITE_SHM_EXCLUSIVE = 2, 8
FAULT_CODES = {"full": SQLITE_FULL, "io_error": SQLITE_IOERR}
FAULT_ERRNOS = {"full": errno.ENOSPC, "io_error": errno.EIO}

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_METHOD_NAMES = (
    *("close", "read", "write", "truncate", "sync", "file_size", "lock", "unlock", "check_reserved_lock"),
    *("file_control", "sector_size", "characteristics", "shm_map", "shm_lock", "shm_barrier", "shm_unmap"),
    *("fetch", "unfetch"),
)
_VFS_METHOD_NAMES = (
    *("open", "delete", "access", "full_pathname", "dl_open", "dl_error", "dl_sym", "dl_close", "randomness"),
    *("sleep", "current_time", "last_error", "current_time_int64", "set_call", "get_call", "next_call"),
)
_METHOD_TYPES = {
    "close": ctypes.CFUNCTYPE(_I, _P),
    "read": ctypes.CFUNCTYPE(_I, _P, _P, _I, _L),
    "write": ctypes.CFUNCTYPE(_I, _P, _P, _I, _L),
    "truncate": ctypes.CFUNCTYPE(_I, _P, _L),
    "sync": ctypes.CFUNCTYPE(_I, _P, _I),
    "file_size": ctypes.CFUNCTYPE(_I, _P, ctypes.POINTER(_L)),
    "shm_lock": ctypes.CFUNCTYPE(_I, _P, _I, _I, _I),
}
_KEPT_ALIVE: list[Any] = []
"""A connection that Python has not collected yet still calls these."""
_OPEN = ctypes.CFUNCTYPE(_I, _P, _P, _P, _I, _P)
_DELETE = ctypes.CFUNCTYPE(_I, _P, _P, _I)
_SLEEP = ctypes.CFUNCTYPE(_I, _P, _I)


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = [("version", _I), *((name, _P) for name in _METHOD_NAMES)]


class _File(ctypes.Structure):
    """sqlite3_file."""

    _fields_ = [("methods", ctypes.POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [
        *(("version", _I), ("file_bytes", _I), ("max_path", _I), ("next", _P), ("name", ctypes.c_char_p), ("data", _P)),
        *((name, _P) for name in _VFS_METHOD_NAMES),
    ]


class SimulatedDisk:
    """The disk of the machine. `fault`: what is wrong at present; empty: nothing.

    `full`, `io_error`: writing fails, in Watchdog's files as well; `locked`: another program holds SQLite's write lock.
    """

    def __init__(self, folder: Path):
        self.folder, self._fault = folder, ""
        self.is_off = False
        """Nothing is written any more, not even by a connection of the simulation that is closed now."""
        self.synced: dict[str, bytes] = {}
        self.writes_until_death: tuple[SimulatedProcess, int] | None = None
        """A process that is killed within a transaction, and the writes until then."""
        self.on_mid_write_death: Callable[[SimulatedProcess], None] = lambda process: None
        self.on_sleep: Callable[[float], None] = lambda seconds: None
        self.open_files: dict[int, tuple[str, SimulatedProcess | None, int]] = {}
        """Address of an open file of SQLite -> its name, its process, the address of its original methods."""
        self.open_fds: dict[int, SimulatedProcess | None] = {}

    @property
    def fault(self) -> str:
        return self._fault

    @fault.setter
    def fault(self, fault: str) -> None:
        self._fault = fault
        self.choose_methods()

    def record_sync(self, name: str, content: bytes) -> None:
        self.synced[name] = content

    def find_write_error(self, process: SimulatedProcess | None) -> int:
        """The code with which writing fails; SQLITE_OK: it succeeds."""
        if self.is_off or (process is not None and not process.is_alive):
            return SQLITE_IOERR
        if self.writes_until_death is not None and self.writes_until_death[0] is process:
            victim, left = self.writes_until_death
            self.writes_until_death = (victim, left - 1) if left > 1 else None
            if left <= 1:
                self.on_mid_write_death(victim)
                return SQLITE_IOERR
        return FAULT_CODES.get(self._fault, SQLITE_OK)

    def arm(self, process: SimulatedProcess, writes: int) -> None:
        """Kill the process at its next writes to SQLite."""
        self.writes_until_death = process, writes
        self.choose_methods()

    def choose_methods(self) -> None:
        """Replaced in `simulated_disk`: the methods of each open file follow from the fault and its process."""

    def close_files_of(self, process: SimulatedProcess) -> None:
        for fd in [fd for fd, owner in self.open_fds.items() if owner is process]:
            del self.open_fds[fd]
            os.close(fd)

    def cut_power(self) -> None:
        """Keep what was synced, in new files: SQLite must remember nothing of those that were open."""
        for file in list(self.folder.iterdir()):
            content, size = self.synced.get(file.name), file.stat().st_size
            file.unlink()
            if content is not None and not file.name.endswith(SHM_SUFFIX):
                file.write_bytes(content[:size])


class SimulatedOs:
    """Stands in for the module `os` where Watchdog opens files of its own."""

    def __init__(self, disk: SimulatedDisk):
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _require_working(self, *, writing: bool = True) -> None:
        process = CURRENT_PROCESS.get()
        if process is not None and not process.is_alive:
            raise OSError(errno.EIO, "the process is dead")
        if writing and self._disk.fault in FAULT_ERRNOS:
            code = FAULT_ERRNOS[self._disk.fault]
            raise OSError(code, os.strerror(code))

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self._require_working(writing=False)
        fd = os.open(path, flags, mode)
        self._disk.open_fds[fd] = CURRENT_PROCESS.get()
        return fd

    def close(self, fd: int) -> None:
        if fd in self._disk.open_fds:
            del self._disk.open_fds[fd]
            os.close(fd)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self._require_working()
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, length: int) -> None:
        self._require_working(writing=False)
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        self._require_working()
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_file() and path.parent == self._disk.folder:
            self._disk.record_sync(path.name, os.pread(fd, os.fstat(fd).st_size, 0))

    fdatasync = fsync


class _GuardedMethods:
    """The two sets of methods that replace one of SQLite's: for a disk that works, and for one that may not."""

    def __init__(self, disk: SimulatedDisk, original: _Methods):
        self._disk = disk
        self._native = {name: cast(getattr(original, name)) for name, cast in _METHOD_TYPES.items()}
        self.working, self.guarded = _Methods.from_buffer_copy(original), _Methods.from_buffer_copy(original)
        self._callbacks: list[Any] = []
        for methods, names in (
            (self.working, ("close", "sync")),
            (self.guarded, ("close", "sync", "write", "truncate", "shm_lock")),
        ):
            for name in names:
                callback = _METHOD_TYPES[name](getattr(self, f"_{name}"))
                self._callbacks.append(callback)
                setattr(methods, name, ctypes.cast(callback, _P))

    def _process(self, file: int) -> SimulatedProcess | None:
        return self._disk.open_files[file][1]

    def _close(self, file: int) -> int:
        self._disk.open_files.pop(file, None)
        return int(self._native["close"](file))

    def _write(self, file: int, data: int, length: int, offset: int) -> int:
        return self._disk.find_write_error(self._process(file)) or int(
            self._native["write"](file, data, length, offset)
        )

    def _truncate(self, file: int, length: int) -> int:
        return self._disk.find_write_error(self._process(file)) or int(self._native["truncate"](file, length))

    def _shm_lock(self, file: int, offset: int, count: int, flags: int) -> int:
        is_write_lock = offset == 0 and flags & SQLITE_SHM_LOCK and flags & SQLITE_SHM_EXCLUSIVE
        if is_write_lock and self._disk.fault == "locked":
            return SQLITE_BUSY
        return int(self._native["shm_lock"](file, offset, count, flags))

    def _sync(self, file: int, flags: int) -> int:
        if error := self._disk.find_write_error(self._process(file)):
            return error
        code, length = int(self._native["sync"](file, flags)), _L()
        if code == SQLITE_OK and self._native["file_size"](file, ctypes.byref(length)) == SQLITE_OK:
            content = ctypes.create_string_buffer(length.value)
            if not length.value or self._native["read"](file, content, length.value, 0) == SQLITE_OK:
                self._disk.record_sync(self._disk.open_files[file][0], content.raw)
        return code


@contextmanager
def simulated_disk(folder: Path) -> Iterator[SimulatedDisk]:
    """Files of SQLite in this folder are on the simulated disk if they are opened while this lasts."""
    disk, library = SimulatedDisk(folder), find_sqlite_library()
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    original = library.sqlite3_vfs_find(None)
    native_open, native_delete = _OPEN(original.contents.open), _DELETE(original.contents.delete)
    vfs_address = ctypes.addressof(original.contents)
    sets: dict[int, _GuardedMethods] = {}

    def choose(file: int) -> None:
        _, process, address = disk.open_files[file]
        is_dead = process is not None and not process.is_alive
        may_fail = disk.fault or disk.is_off or is_dead or disk.writes_until_death
        methods = sets[address].guarded if may_fail else sets[address].working
        _File.from_address(file).methods = ctypes.pointer(methods)

    def open_file(_: Any, name: int | None, file: int, flags: int, out_flags: Any) -> int:
        code = int(native_open(vfs_address, name, file, flags, out_flags))
        if code == SQLITE_OK and name:
            path = Path(os.fsdecode(ctypes.string_at(name)))
            if path.parent == disk.folder:
                address = ctypes.addressof(_File.from_address(file).methods.contents)
                if address not in sets:
                    sets[address] = _GuardedMethods(disk, _Methods.from_address(address))
                disk.open_files[file] = path.name, CURRENT_PROCESS.get(), address
                choose(file)
        return code

    def delete_file(_: Any, name: int, sync_folder: int) -> int:
        process = CURRENT_PROCESS.get()
        if disk.is_off or (process is not None and not process.is_alive):
            return SQLITE_IOERR
        disk.synced.pop(Path(os.fsdecode(ctypes.string_at(name))).name, None)
        return int(native_delete(vfs_address, name, sync_folder))

    def sleep(_: Any, microseconds: int) -> int:
        disk.on_sleep(microseconds / 1e6)
        return microseconds

    def choose_all() -> None:
        for file in list(disk.open_files):
            choose(file)

    disk.choose_methods = choose_all  # type: ignore[method-assign]
    vfs = _Vfs.from_buffer_copy(original.contents)
    callbacks = _OPEN(open_file), _DELETE(delete_file), _SLEEP(sleep)
    vfs.name = b"simulated"
    vfs.open, vfs.delete, vfs.sleep = (ctypes.cast(callback, _P) for callback in callbacks)
    _KEPT_ALIVE.append((vfs, callbacks, sets))
    library.sqlite3_vfs_register(ctypes.byref(vfs), 1)
    try:
        yield disk
    finally:
        library.sqlite3_vfs_register(original, 1)
        library.sqlite3_vfs_unregister(ctypes.byref(vfs))
