"""The managed file is replaced at once or not at all, and each failure is a sentence with a remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from watchdog.service import managed_store
from watchdog.service.managed_store import (
    ManagedFileChangedError,
    ManagedStoreError,
    read_managed_file,
    replace_managed_file,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "managed.yaml"
    path.write_bytes(b"old")
    return path


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_replaced_with_its_mode_and_owner(file: Path) -> None:
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 12_345, 23_456)
    before = file.stat()
    replace_managed_file(file, b"old", b"new")
    after = file.stat()
    assert file.read_bytes() == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino, "a reader of the old file still reads all of it"
    assert list_names(file.parent) == ["managed.yaml"]


def test_it_is_created(tmp_path: Path) -> None:
    assert read_managed_file(tmp_path / "new.yaml") == b""
    replace_managed_file(tmp_path / "new.yaml", b"", b"new")
    assert (tmp_path / "new.yaml").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "new.yaml").stat().st_mode) & 0o111 == 0


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links/managed.yaml"
    link.symlink_to(file)
    replace_managed_file(link, b"old", b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert list_names(link.parent) == ["managed.yaml"]


@pytest.mark.parametrize("expected", [b"", b"other", b"old\n"])
def test_a_file_that_has_changed_is_left_alone(file: Path, expected: bytes) -> None:
    with pytest.raises(ManagedFileChangedError):
        replace_managed_file(file, expected, b"new")
    assert file.read_bytes() == b"old"
    assert list_names(file.parent) == ["managed.yaml"]


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        ("open", errno.EROFS, "the file system is read-only: mount the folder writable"),
        ("open", errno.EACCES, "permission denied: allow the user that Watchdog runs as"),
        ("fsync", errno.ENOSPC, "the disk is full: free space"),
        ("fsync", errno.EDQUOT, "the disk is full: free space"),
        ("fsync", errno.EIO, "input/output error"),
        ("rename", errno.EBUSY, "it is mounted as a single file and cannot be replaced: mount its folder instead"),
        ("rename", errno.EXDEV, "it is mounted as a single file"),
    ],
)
def test_a_failure_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, message: str
) -> None:
    original = os.open

    def fail(*arguments: Any, **_: Any) -> Any:
        if function == "open" and not str(arguments[0]).endswith(".tmp"):
            return original(*arguments)
        raise OSError(code, os.strerror(code))

    if function == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(os, function, fail)
    with pytest.raises(ManagedStoreError) as caught:
        replace_managed_file(file, b"old", b"new")
    monkeypatch.undo()
    assert f"cannot write {file}: {message}" in str(caught.value)
    assert str(caught.value).endswith("; nothing was changed")
    assert file.read_bytes() == b"old"
    assert list_names(file.parent) == ["managed.yaml"]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ManagedStoreError, match=r"the folder .*/no does not exist: create it; nothing was changed"):
        replace_managed_file(tmp_path / "no/managed.yaml", b"", b"new")


def test_a_file_system_that_is_read_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.statvfs(file)
    read_only = os.statvfs_result((*status[:8], status.f_flag | os.ST_RDONLY, status.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    with pytest.raises(ManagedStoreError, match="the file system is read-only: mount the folder writable"):
        replace_managed_file(file, b"old", b"new")


def test_a_file_that_is_protected(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ManagedStoreError, match="write-protected for Watchdog: give its user permission"):
        replace_managed_file(file, b"old", b"new")


def test_an_owner_that_cannot_be_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(
        managed_store,
        "_stat_file_and_require_writable",
        lambda _: os.stat_result((0o100600, 1, 1, 1, 7, 7, 3, 0, 0, 0)),
    )
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(ManagedStoreError, match="belongs to another user or group, which Watchdog cannot keep"):
        replace_managed_file(file, b"old", b"new")
    assert list_names(file.parent) == ["managed.yaml"]


def test_a_folder_that_another_process_has_locked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_store, "LOCK_TIMEOUT_S", 0)
    fd = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(ManagedStoreError, match="another process has locked"):
            replace_managed_file(file, b"old", b"new")
    finally:
        os.close(fd)
    replace_managed_file(file, b"old", b"new")


def test_what_cannot_be_read(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ManagedStoreError, match="not a regular file: name another one in `managed`"):
        read_managed_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManagedStoreError, match="not a regular file"):
        read_managed_file(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ManagedStoreError, match="cannot read"):
        read_managed_file(tmp_path / "loop")
    monkeypatch.setattr(managed_store, "MAX_MANAGED_FILE_BYTES", 2)
    with pytest.raises(ManagedStoreError, match="larger than 4 MiB"):
        read_managed_file(file)
