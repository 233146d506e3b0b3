"""Appended records survive any crash; records that cannot be written are refused."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from watchdog.service import check_in_log as module
from watchdog.service.check_in_log import CHECK_IN_LOG_CHUNK_BYTES, CheckInLogError, CheckInWriteAheadLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "check-ins"


@contextmanager
def open_log(path: Path, limit: int = 1 << 20) -> Iterator[CheckInWriteAheadLog]:
    """Open the log as another process would."""
    log = CheckInWriteAheadLog(path, limit)
    try:
        yield log
    finally:
        log.close()


def drain(log: CheckInWriteAheadLog, limit: int = 100) -> list[bytes]:
    records_read = []
    while (records := log.read_check_in_batch(limit)) or log.is_drain_file_fully_stored():
        records_read += records
        log.acknowledge()
        if log.is_drain_file_fully_stored():
            log.truncate_drained_log_file()
    return records_read


def files(path: Path) -> list[bytes]:
    return [path.with_name(f"{path.name}.{n}").read_bytes() for n in (0, 1)]


def non_empty_file(path: Path) -> Path:
    """The file that holds records."""
    (file,) = (file for file in path.parent.glob("check-ins.*") if file.stat().st_size)
    return file


def test_records_are_read_in_order_until_they_are_acknowledged(path: Path) -> None:
    with open_log(path) as log:
        log.append([b"one", b"two"])
        log.append(["drei, ü".encode()])
        assert log.read_check_in_batch(2) == [b"one", b"two"] == log.read_check_in_batch(2)
        log.acknowledge()
        assert drain(log) == ["drei, ü".encode()]
        assert files(path) == [b"", b""]
        assert log.read_check_in_batch(2) == []


def test_a_file_is_kept_until_it_is_cleared(path: Path) -> None:
    """Its records are in the database, but not yet synced to disk."""
    with open_log(path) as log:
        log.append([b"one"])
        assert not log.is_drain_file_fully_stored()
        assert log.read_check_in_batch(9) == [b"one"]
        log.acknowledge()
        log.append([b"two"])
        assert log.is_drain_file_fully_stored()
        assert log.read_check_in_batch(9) == []
    with open_log(path) as log:
        assert sorted(drain(log)) == [b"one", b"two"]
        assert not log.is_drain_file_fully_stored()


def test_the_next_process_reads_what_is_not_acknowledged(path: Path) -> None:
    with open_log(path) as log:
        log.append([b"one", b"two", b"three"])
        log.read_check_in_batch(1)
        log.acknowledge()
        log.append([b"four"])
        log.read_check_in_batch(1)
    with open_log(path) as log:
        log.append([b"five"])
        assert sorted(drain(log)) == [b"five", b"four", b"one", b"three", b"two"]


def test_records_appended_during_a_drain_keep_their_order(path: Path) -> None:
    records_read = []
    with open_log(path) as log:
        for n in range(50):
            log.append([b"%d" % n])
            if n % 7 == 0:
                records_read += log.read_check_in_batch(3)
                log.acknowledge()
                if log.is_drain_file_fully_stored():
                    log.truncate_drained_log_file()
        records_read += drain(log)
    assert records_read == [b"%d" % n for n in range(50)]


@pytest.mark.parametrize("cut", range(1, 15))
def test_an_incomplete_line_is_ignored(path: Path, cut: int) -> None:
    with open_log(path) as log:
        log.append([b"one", b"second"])
    file = non_empty_file(path)
    file.write_bytes(file.read_bytes()[:-cut])
    with open_log(path) as log:
        log.append([b"three"])
        assert drain(log) == ([b"one", b"second", b"three"] if cut == 1 else [b"one", b"three"])
        assert files(path) == [b"", b""]


def test_both_files_may_end_with_an_incomplete_line(path: Path) -> None:
    with open_log(path) as log:
        log.append([b"one"])
        log.read_check_in_batch(1)
        log.append([b"two"])
    for n in (0, 1):
        with path.with_name(f"check-ins.{n}").open("ab") as file:
            file.write(b"0bad0bad tor")
    with open_log(path) as log:
        log.append([b"three"])
        assert sorted(drain(log)) == [b"one", b"three", b"two"]


@pytest.mark.parametrize(
    "invalid", [b"\n\n", b"00000000 not ours\n", b"x" * 70, b"y" * (CHECK_IN_LOG_CHUNK_BYTES + 9) + b"\n"]
)
def test_invalid_bytes_are_skipped(path: Path, invalid: bytes) -> None:
    with open_log(path, 4 << 20) as log:
        log.append([b"one"])
        with non_empty_file(path).open("ab") as file:
            file.write(invalid)
    with open_log(path, 4 << 20) as log:
        log.append([b"two"])
        assert drain(log) == [b"one", b"two"]


def test_a_full_log_refuses_records_and_loses_none(path: Path) -> None:
    with open_log(path, 1000) as log:
        for _ in range(10):
            log.append([b"x" * 80])
        with pytest.raises(CheckInLogError, match=r"check-ins is full: 0 MiB are waiting for the database"):
            log.append([b"x" * 100])
        assert len(drain(log)) == 10
        log.append([b"y" * 900])
        assert drain(log) == [b"y" * 900]


def test_a_full_disk_stores_all_records_or_none(path: Path) -> None:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    with open_log(path) as log:
        log.append([b"one"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        try:
            with pytest.raises(CheckInLogError, match="cannot be written: file too large"):
                log.append([b"x" * 100])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert handler is signal.SIG_IGN
        log.append([b"two"])
        assert drain(log) == [b"one", b"two"]


def test_a_second_process_has_files_of_its_own(path: Path) -> None:
    """As on a shared SQLite file. Neither reads what the other has accepted."""
    with open_log(path) as log, open_log(path) as other:
        log.append([b"one"])
        other.append([b"two"])
        assert drain(log) == [b"one"]
        assert drain(other) == [b"two"]


def test_what_a_process_that_has_ended_left_is_taken_over(path: Path) -> None:
    with open_log(path) as first:
        first.append([b"one"])
        with open_log(path) as second, open_log(path) as third:
            second.append([b"two"])
            assert second.read_check_in_batch(10) == [b"two"]
            second.append([b"three"])  # into the other file, then kill -9
            third.append([b"four"])
            second.close()
            with open_log(path) as restarted:
                assert sorted(drain(restarted)) == [b"three", b"two"], "its own files"
                restarted.append([b"five"])
        assert drain(first) == [b"one"]
    with open_log(path) as alone:
        assert sorted(drain(alone)) == [b"five", b"four"]
    with open_log(path) as again:
        assert drain(again) == []


def test_a_running_process_takes_over_what_one_that_was_killed_left(path: Path) -> None:
    """It may run for months, and the other one may never start again."""
    with open_log(path) as killed, open_log(path) as running, open_log(path) as alive:
        killed.append([b"one"])
        running.append([b"two"])
        alive.append([b"three"])
        assert drain(running) == [b"two"]
        running.take_over_abandoned_check_in_logs()
        assert drain(running) == [], "the others still run"
        killed.close()
        running.append([b"four"])
        running.take_over_abandoned_check_in_logs()
        assert sorted(drain(running)) == [b"four", b"one"]
        running.take_over_abandoned_check_in_logs()
        assert drain(running) == [], "once"
        assert drain(alive) == [b"three"]


def test_a_process_without_check_ins_of_its_own_takes_over_as_well(path: Path) -> None:
    with open_log(path) as idle:
        idle.take_over_abandoned_check_in_logs()
        assert (idle.is_open, list(path.parent.iterdir())) == (False, []), "no files without need"
        with open_log(path) as killed, open_log(path) as second:
            killed.append([b"one"])
            second.append([b"two"])
        idle.take_over_abandoned_check_in_logs()
        assert sorted(drain(idle)) == [b"one", b"two"]


def test_what_does_not_fit_is_left_where_it_is(path: Path) -> None:
    with open_log(path) as killed, open_log(path, limit=100) as running:
        killed.append([b"x" * 200])
        running.append([b"y" * 50])
        killed.close()
        running.take_over_abandoned_check_in_logs()
        assert drain(running) == [b"y" * 50]
        with open_log(path) as restarted:
            assert drain(restarted) == [b"x" * 200]


def test_too_many_processes_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROCESSES_PER_CHECK_IN_LOG_PATH", 2)
    with open_log(path) as first, open_log(path) as second, open_log(path) as third:
        first.append([b"one"])
        second.append([b"two"])
        with pytest.raises(CheckInLogError, match=r"2 other Watchdog processes use it.* storage\.check_in_log"):
            third.append([b"three"])


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with open_log(tmp_path / "no" / "check-ins") as log:
        with pytest.raises(CheckInLogError, match=r"no/check-ins cannot be used: no such file or directory"):
            log.read_check_in_batch(1)
        (tmp_path / "no").mkdir()
        log.append([b"one"])
        assert log.read_check_in_batch(1) == [b"one"]


def test_the_file_is_private(path: Path) -> None:
    with open_log(path) as log:
        log.append([b"one"])
        assert non_empty_file(path).stat().st_mode & 0o777 == 0o600


def test_a_group_is_synced_once_before_it_is_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure cannot be tested here, so this checks the call that protects against it."""
    synced: list[bytes] = []

    def record_sync(_: int) -> None:
        synced.append(non_empty_file(path).read_bytes())

    monkeypatch.setattr(module, "_sync_to_disk", record_sync)
    with open_log(path) as log:
        log.append([b"one", b"two"])
        assert synced == [non_empty_file(path).read_bytes()]
        log.append([b"three"])
        assert len(synced) == 2
