"""A power cut: a check-in that was answered with 200 is on disk, in the check-in log or in the database."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.test_check_ins import CheckInHarness, open_harness
from tests.support.power_cut import observed_disk
from tests.support.store import START_AT
from watchdog.service import check_in_log
from watchdog.store.errors import StoreUnavailableError


async def stored_times(folder: Path) -> list[int]:
    """Of the check-ins that a restart with the files of this folder has."""
    async with open_harness(f"sqlite:///{folder / 'watchdog.db'}", folder, new=False) as harness:
        return [row["occurred_at"] for row in harness.stored_check_ins()]


async def test_no_moment_loses_an_accepted_check_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power is cut at every sync, and after every step."""
    folder = tmp_path / "disk"
    folder.mkdir()
    remains: list[tuple[Path, list[int]]] = []
    accepted: list[int] = []
    with observed_disk(folder, monkeypatch) as disk:
        monkeypatch.setattr(check_in_log, "_sync_to_disk", os.fdatasync)

        def cut_power(_: str = "") -> None:
            target = tmp_path / f"remains-{len(remains)}"
            disk.write_remains(target)
            remains.append((target, list(accepted)))

        harness = CheckInHarness(f"sqlite:///{folder / 'watchdog.db'}", folder)
        harness.store.database.sync_to_disk()  # as after an upgrade of the schema
        async with harness.receiver:
            disk.on_sync = cut_power
            for step in range(4):
                for n in range(3):
                    at = START_AT + step * 1000 + n
                    assert await harness.send_check_in(at=at)
                    accepted.append(at)
                    cut_power()
                if step != 2:
                    await harness.receiver.flush_check_ins()
                    cut_power()
        harness.store_executor.close()
    assert len(remains) > 20
    for target, expected in remains:
        times = await stored_times(target)
        assert set(expected) <= set(times), target.name
        assert len(times) == len(set(times))


async def test_the_log_keeps_check_ins_while_the_database_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = CheckInHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", tmp_path)
    async with harness.receiver:
        assert await harness.send_check_in()
        with monkeypatch.context() as failing:
            failing.setattr(os, "fsync", fail_to_sync)
            for _ in range(2):  # nothing is left to store the second time, but to sync
                with pytest.raises(StoreUnavailableError, match="cannot be synced to disk: input/output error"):
                    await harness.receiver.flush_check_ins()
                assert harness.unstored_bytes()
        assert len(harness.stored_check_ins()) == 1
        await harness.receiver.flush_check_ins()
        assert not harness.unstored_bytes()
    harness.store_executor.close()


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.rename(file.with_name("moved.db"))])
async def test_the_log_keeps_check_ins_that_were_stored_in_a_file_that_is_gone(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """SQLite goes on with the file, and nothing reads it again."""
    harness = CheckInHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", tmp_path)
    harness.store.database.check_file()
    async with harness.receiver:
        damage(tmp_path / "watchdog.db")
        assert await harness.send_check_in(at=START_AT)
        with pytest.raises(StoreUnavailableError, match="the database file was deleted"):
            await harness.receiver.flush_check_ins()
        assert harness.unstored_bytes()
    harness.store_executor.close()
    folder = tmp_path / "restarted"
    folder.mkdir()
    for name in ("check-ins.0", "check-ins.1"):
        (tmp_path / name).rename(folder / name)
    async with open_harness(f"sqlite:///{folder / 'watchdog.db'}", folder) as restarted:
        assert [row["occurred_at"] for row in restarted.stored_check_ins()] == [START_AT]


def fail_to_sync(fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
