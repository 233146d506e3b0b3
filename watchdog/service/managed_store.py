"""Reads and replaces the managed file: at once or not at all, and never over a change that is not known.

A failure is a sentence for a person, and leaves the file as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

MAX_MANAGED_FILE_BYTES = 4 * 1024 * 1024
LOCK_TIMEOUT_S = 5.0
LOCK_RETRY_INTERVAL_S = 0.05
NEW_FILE_MODE = 0o640
"""Less what the umask of the process takes away."""


class ManagedStoreError(Exception):
    """The file cannot be read or written; nothing has changed. The message states why and what to do."""


class ManagedFileChangedError(Exception):
    """The file is not the one that the change was made for; nothing has changed."""


def read_managed_file(path: Path) -> bytes:
    """Empty if there is none. Raises ManagedStoreError."""
    try:
        if path.exists() and not path.is_file():
            raise ManagedStoreError(f"{path} is not a regular file: name another one in `managed`")
        with path.open("rb") as file:
            content = file.read(MAX_MANAGED_FILE_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise ManagedStoreError(f"cannot read {path}: {_describe_managed_file_error_with_remedy(e, path)}") from None
    if len(content) > MAX_MANAGED_FILE_BYTES:
        raise ManagedStoreError(f"{path} is larger than 4 MiB: divide it by hand, and `include` the other files")
    return content


def replace_managed_file(path: Path, expected: bytes, content: bytes) -> None:
    """Write the file, if it still holds what is expected. Mode and owner stay, and so does a link that leads to it.
    Raises ManagedStoreError and ManagedFileChangedError."""
    target = Path(os.path.realpath(path))
    try:
        with _lock_folder(target.parent):
            status = _stat_file_and_require_writable(target)
            temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
            try:
                _write_new_file(temporary, content, status, target)
                if read_managed_file(target) != expected:
                    raise ManagedFileChangedError
                temporary.replace(target)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
            with suppress(OSError):  # it is replaced, which some file systems cannot make durable
                _synchronize_folder(target.parent)
    except OSError as e:
        raise ManagedStoreError(
            f"cannot write {path}: {_describe_managed_file_error_with_remedy(e, target)}; nothing was changed"
        ) from None


def _stat_file_and_require_writable(path: Path) -> os.stat_result | None:
    """None if there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not os.access(path, os.W_OK):
        raise ManagedStoreError(f"{path} is write-protected for Watchdog: give its user permission to write it")
    return status


def _write_new_file(path: Path, content: bytes, status: os.stat_result | None, target: Path) -> None:
    """`status`: of the file that this one is to replace."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        if status is not None:
            own = os.fstat(fd)
            if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
                _keep_owner(fd, status, target)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
        file.write(content)
        file.flush()
        os.fsync(fd)


def _keep_owner(fd: int, status: os.stat_result, target: Path) -> None:
    try:
        os.fchown(fd, status.st_uid, status.st_gid)
    except PermissionError:
        message = f"{target} belongs to another user or group, which Watchdog cannot keep: make its own user the owner"
        raise ManagedStoreError(f"{message}; nothing was changed") from None


def _synchronize_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Against other processes on this machine. Where folders cannot be locked, only the comparison protects."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _acquire_lock(fd, folder)
        yield
    finally:
        os.close(fd)


def _acquire_lock(fd: int, folder: Path) -> None:
    deadline = monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                message = f"another process has locked {folder} for {LOCK_TIMEOUT_S:g} s: try again"
                raise ManagedStoreError(message) from None
            sleep(LOCK_RETRY_INTERVAL_S)
        except OSError:
            return None


def _describe_managed_file_error_with_remedy(error: OSError, path: Path) -> str:
    """Why, and what to do."""
    if error.errno == errno.ENOENT:
        return f"the folder {path.parent} does not exist: create it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied: allow the user that Watchdog runs as to use {path} and to write to its folder"
    if error.errno == errno.EROFS:
        return "the file system is read-only: mount the folder writable, or edit the file where it is from"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free space"
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return "it is mounted as a single file and cannot be replaced: mount its folder instead"
    return (error.strerror or str(error)).lower()
