"""What was taken is there after any crash, and what cannot be kept is not taken."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from watchdog.service import check_in_log as module
from watchdog.service.check_in_log import READ_CHUNK_BYTES, CheckInLog, CheckInLogError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "check-ins"


@contextmanager
def opened(path: Path, most: int = 1 << 20) -> Iterator[CheckInLog]:
    """A process of its own, as far as the files know."""
    spool = CheckInLog(path, most)
    try:
        yield spool
    finally:
        spool.close()


def drained(spool: CheckInLog, most: int = 100) -> list[bytes]:
    found = []
    while records := spool.read_batch(most):
        found += records
        spool.acknowledge()
    return found


def files(path: Path) -> list[bytes]:
    return [path.with_name(f"{path.name}.{n}").read_bytes() for n in (0, 1)]


def filled(path: Path) -> Path:
    """The one that holds something."""
    (found,) = (file for file in path.parent.glob("check-ins.*") if file.stat().st_size)
    return found


def test_they_come_back_in_their_order_and_are_gone_once_settled(path: Path) -> None:
    with opened(path) as spool:
        spool.append([b"one", b"two"])
        spool.append(["drei, ü".encode()])
        assert spool.read_batch(2) == [b"one", b"two"] == spool.read_batch(2)
        spool.acknowledge()
        assert drained(spool) == ["drei, ü".encode()]
        assert files(path) == [b"", b""]
        assert spool.read_batch(2) == []


def test_what_is_not_settled_is_there_for_the_next_process(path: Path) -> None:
    with opened(path) as spool:
        spool.append([b"one", b"two", b"three"])
        spool.read_batch(1)
        spool.acknowledge()
        spool.append([b"four"])
        spool.read_batch(1)
    with opened(path) as spool:
        spool.append([b"five"])
        assert sorted(drained(spool)) == [b"five", b"four", b"one", b"three", b"two"]  # one once more: it bears that


def test_what_comes_while_others_are_drained_waits_its_turn(path: Path) -> None:
    found = []
    with opened(path) as spool:
        for n in range(50):
            spool.append([b"%d" % n])
            if n % 7 == 0:
                found += spool.read_batch(3)
                spool.acknowledge()
        found += drained(spool)
    assert found == [b"%d" % n for n in range(50)]


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_line_that_a_crash_cut_off_is_no_record(path: Path, cut: int) -> None:
    with opened(path) as spool:
        spool.append([b"one", b"second"])
    file = filled(path)
    file.write_bytes(file.read_bytes()[:-cut])
    with opened(path) as spool:
        spool.append([b"three"])
        assert drained(spool) == ([b"one", b"second", b"three"] if cut == 1 else [b"one", b"three"])
        assert files(path) == [b"", b""]


def test_both_files_may_end_in_the_middle_of_a_line(path: Path) -> None:
    with opened(path) as spool:
        spool.append([b"one"])
        spool.read_batch(1)
        spool.append([b"two"])
    for n in (0, 1):
        with path.with_name(f"check-ins.{n}").open("ab") as file:
            file.write(b"0bad0bad tor")
    with opened(path) as spool:
        spool.append([b"three"])
        assert sorted(drained(spool)) == [b"one", b"three", b"two"]


@pytest.mark.parametrize("rubbish", [b"\n\n", b"00000000 not ours\n", b"x" * 70, b"y" * (READ_CHUNK_BYTES + 9) + b"\n"])
def test_rubbish_in_the_middle_is_stepped_over(path: Path, rubbish: bytes) -> None:
    with opened(path, 4 << 20) as spool:
        spool.append([b"one"])
        with filled(path).open("ab") as file:
            file.write(rubbish)
    with opened(path, 4 << 20) as spool:
        spool.append([b"two"])
        assert drained(spool) == [b"one", b"two"]


def test_a_full_one_takes_nothing_and_loses_nothing(path: Path) -> None:
    with opened(path, 1000) as spool:
        for _ in range(10):
            spool.append([b"x" * 80])
        with pytest.raises(CheckInLogError, match=r"check-ins is full: 0 MiB are waiting for the database"):
            spool.append([b"x" * 100])
        assert len(drained(spool)) == 10
        spool.append([b"y" * 900])
        assert drained(spool) == [b"y" * 900]


def test_a_full_disk_takes_all_or_nothing(path: Path) -> None:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    with opened(path) as spool:
        spool.append([b"one"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        try:
            with pytest.raises(CheckInLogError, match="cannot be written: file too large"):
                spool.append([b"x" * 100])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert handler is signal.SIG_IGN
        spool.append([b"two"])
        assert drained(spool) == [b"one", b"two"]


def test_nobody_else_writes_to_it(path: Path) -> None:
    with opened(path) as spool:
        spool.append([b"one"])
        with (
            opened(path) as other,
            pytest.raises(CheckInLogError, match=r"another Watchdog process uses it.* storage\.check_in_log"),
        ):
            other.append([b"two"])
        assert drained(spool) == [b"one"]
    with opened(path) as other:
        other.append([b"two"])
        assert drained(other) == [b"two"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with opened(tmp_path / "no" / "check-ins") as spool:
        with pytest.raises(CheckInLogError, match=r"no/check-ins cannot be used: no such file or directory"):
            spool.read_batch(1)
        (tmp_path / "no").mkdir()
        spool.append([b"one"])
        assert spool.read_batch(1) == [b"one"]


def test_only_we_may_read_it(path: Path) -> None:
    with opened(path) as spool:
        spool.append([b"one"])
        assert filled(path).stat().st_mode & 0o777 == 0o600


def test_a_group_is_brought_to_disk_once_before_it_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a process can tell: a machine that loses its power is not to be had here."""
    brought: list[bytes] = []

    def settle(_: int) -> None:
        brought.append(filled(path).read_bytes())

    monkeypatch.setattr(module, "_sync_to_disk", settle)
    with opened(path) as spool:
        spool.append([b"one", b"two"])
        assert brought == [filled(path).read_bytes()]
        spool.append([b"three"])
        assert len(brought) == 2
