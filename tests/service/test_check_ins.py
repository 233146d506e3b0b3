"""From the check-in endpoint to the database: no accepted check-in is lost, and no sender waits for a database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.support.polling import HANG_S, wait_until_async
from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.heartbeat import HEARTBEAT_STATE_KEY, CheckInKind, ReceivedCheckIn
from watchdog.net import SecretMask
from watchdog.service import check_ins as module
from watchdog.service.check_in_log import CheckInWriteAheadLog
from watchdog.service.check_ins import (
    ENDED_PROCESS_CHECK_IN_LOG_SEARCH_INTERVAL_MS,
    MAX_CHECK_IN_OUTPUT_BYTES,
    DurableCheckInReceiver,
)
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import check_ins, probe_state, schedule
from watchdog.store.write.check_ins import CheckInStore

SECRET = "hush-hush-hush"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk is not what these tests are about."""
    monkeypatch.setattr(module, "CHECK_IN_FLUSH_TIMEOUT_S", HANG_S)


class CheckInHarness:
    """A heartbeat named backup, and the receiver of its check-ins."""

    def __init__(self, url: str, folder: Path, *, new: bool = True):
        self.store = StoreHarness(url, [make_registered_probe("backup", failure_threshold=1)], create_schema=new)
        self.id = self.store.database_id("backup")
        self.store_executor = StoreExecutor(self.store.database, lambda: self.now)
        self.check_in_log = CheckInWriteAheadLog(folder / "check-ins")
        self.receiver = DurableCheckInReceiver(
            check_in_log=self.check_in_log,
            store_executor=self.store_executor,
            check_in_store=CheckInStore(self.store.database),
            claims=self.store.slot_claimer,
            database_id_by_probe={"backup": self.id},
            mask=SecretMask([SECRET]),
            clock=lambda: self.now,
        )
        self.now = START_AT

    async def send_check_in(
        self, kind: CheckInKind = CheckInKind.OK, at: int = START_AT, body: bytes = b"", probe: str = "backup"
    ) -> bool:
        exit_code = 3 if kind is CheckInKind.FAIL else None
        return await self.receiver.accept_check_in(probe, ReceivedCheckIn(kind, at, exit_code=exit_code, output=body))

    async def flush_forever(self) -> None:
        while True:
            with suppress(Exception):
                await self.receiver.flush_check_ins()
            await asyncio.sleep(0.05)

    def stored_check_ins(self) -> list[dict[str, Any]]:
        return self.store.select_rows(check_ins)

    def unstored_bytes(self) -> bytes:
        """What is on disk and not in the database."""
        return b"".join(file.read_bytes() for file in self.check_in_log.path.parent.glob("check-ins.*"))

    def next_due(self) -> int:
        return int(self.store.select_row(schedule)["next_due"])


@asynccontextmanager
async def open_harness(url: str, folder: Path, **more: Any) -> AsyncIterator[CheckInHarness]:
    harness = CheckInHarness(url, folder, **more)
    try:
        async with harness.receiver:
            flushing = asyncio.create_task(harness.flush_forever())
            yield harness
            flushing.cancel()
    finally:
        harness.store_executor.close()


async def test_check_ins_are_stored_in_batches(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        accepted = await asyncio.gather(*(harness.send_check_in(at=START_AT + n) for n in range(600)))
        assert accepted == [True] * 600
        await wait_until_async(lambda: len(harness.stored_check_ins()) == 600)
        await wait_until_async(lambda: not harness.unstored_bytes())
        (state,) = harness.store.select_rows(probe_state)
        assert (state["probe"], state["key"]) == (harness.id, HEARTBEAT_STATE_KEY)
        assert len({row["id"] for row in harness.stored_check_ins()}) == 600


async def test_an_accepted_check_in_is_on_disk(database_url: str, tmp_path: Path) -> None:
    """The process may be killed right after the response."""
    harness = CheckInHarness(database_url, tmp_path)
    assert await harness.send_check_in(CheckInKind.FAIL, body=b"disk full")
    with closing(CheckInWriteAheadLog(tmp_path / "check-ins")) as log:
        assert log.read_check_in_batch(9) == []  # the first process holds the lock
    harness.check_in_log.close()
    async with open_harness(database_url, tmp_path, new=False) as next_harness:
        (row,) = next_harness.stored_check_ins()  # before it accepts check-ins, and before anything is evaluated
        assert (row["occurred_at"], row["kind"], row["exit_code"], row["output"]) == (START_AT, "fail", 3, "disk full")
    harness.store_executor.close()


async def test_concurrent_flushes_wait_for_each_other(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = CheckInHarness(database_url, tmp_path)
    store_batch, concurrent, max_concurrent = harness.receiver._store_check_in_batch_and_list_probes_to_run, 0, 0

    async def counting_store_batch(batch: Any) -> set[int]:
        nonlocal concurrent, max_concurrent
        concurrent += 1
        max_concurrent = max(max_concurrent, concurrent)
        await asyncio.sleep(0)
        try:
            return await store_batch(batch)
        finally:
            concurrent -= 1

    monkeypatch.setattr(harness.receiver, "_store_check_in_batch_and_list_probes_to_run", counting_store_batch)
    monkeypatch.setattr(module, "CHECK_IN_BATCH_SIZE", 10)
    async with harness.receiver:
        await asyncio.gather(*(harness.send_check_in(at=START_AT + n) for n in range(40)))
        await asyncio.gather(*(harness.receiver.flush_check_ins() for _ in range(4)))
        assert len(harness.stored_check_ins()) == 40
    assert max_concurrent == 1
    harness.store_executor.close()


@pytest.mark.parametrize("kind", [CheckInKind.START, CheckInKind.OK, CheckInKind.FAIL])
async def test_the_start_and_the_end_of_a_run_run_the_probe_immediately(
    database_url: str, tmp_path: Path, kind: CheckInKind
) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        planned_due = harness.next_due()
        assert planned_due > START_AT + 1_001
        await harness.send_check_in(CheckInKind.LOG)
        await wait_until_async(harness.stored_check_ins)
        assert harness.next_due() == planned_due
        await harness.send_check_in(kind)
        await wait_until_async(lambda: harness.next_due() < planned_due)
        assert harness.next_due() == START_AT + 1_001


async def test_the_end_of_a_long_output_is_stored_without_secrets(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        output = b"a" * 5_000 + SECRET.encode() + b"\xff\x1b[31m" + "ü".encode() * 4_000 + SECRET.encode() + b"end"
        await harness.send_check_in(body=output)
        assert SECRET.encode() not in harness.unstored_bytes()
        await wait_until_async(harness.stored_check_ins)
        (row,) = harness.stored_check_ins()
        assert row["output"].startswith("a")
        assert row["output"].endswith("ü•••end")
        assert "•••\ufffd\ufffd[31mü" in row["output"]
        assert MAX_CHECK_IN_OUTPUT_BYTES - 3 <= len(row["output"].encode()) <= MAX_CHECK_IN_OUTPUT_BYTES


async def test_what_a_process_that_was_killed_left_is_stored_by_one_that_runs(
    database_url: str, tmp_path: Path
) -> None:
    """It was answered with 2xx, and its process may never start again."""
    async with open_harness(database_url, tmp_path) as running:
        await running.send_check_in(at=START_AT + 1)
        await wait_until_async(lambda: len(running.stored_check_ins()) == 1)
        killed = CheckInHarness(database_url, tmp_path, new=False)
        assert await killed.send_check_in(CheckInKind.FAIL, at=START_AT + 2)
        killed.check_in_log.close()
        await asyncio.sleep(0.2)
        assert len(running.stored_check_ins()) == 1, "it looks every 30 seconds"
        running.now += ENDED_PROCESS_CHECK_IN_LOG_SEARCH_INTERVAL_MS
        await wait_until_async(lambda: len(running.stored_check_ins()) == 2)
        killed.store_executor.close()


async def test_a_process_without_heartbeats_stores_what_its_predecessor_left(database_url: str, tmp_path: Path) -> None:
    """The heartbeat was moved to the configuration of another process, perhaps on another machine."""
    killed = CheckInHarness(database_url, tmp_path)
    assert await killed.send_check_in()
    killed.check_in_log.close()
    successor = CheckInHarness(database_url, tmp_path, new=False)
    successor.receiver.database_id_by_probe = {}
    async with successor.receiver:
        assert len(successor.stored_check_ins()) == 1
    killed.store_executor.close()
    successor.store_executor.close()


async def test_a_check_in_of_a_removed_probe_is_dropped_and_logged(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        with capture_logs() as logs:
            await harness.send_check_in(probe="removed")
            await harness.send_check_in()
            await wait_until_async(harness.stored_check_ins)
        assert [(log["event"], log["probe_id"]) for log in logs if log["event"] == "check_in_dropped"] == [
            ("check_in_dropped", "removed")
        ]
        assert len(harness.stored_check_ins()) == 1


@pytest.mark.parametrize(
    "record",
    [b'["backup", "x-1", 1, "pause"]', b'["backup", "x-1", 1, "ok", "", 0, "", "new"]', b'["backup"]', b"7", b"?"],
)
async def test_a_record_of_another_version_blocks_no_other(database_url: str, tmp_path: Path, record: bytes) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        with capture_logs() as logs:
            harness.check_in_log.append([record])
            await harness.send_check_in()
            await wait_until_async(harness.stored_check_ins)
        assert [log["log_level"] for log in logs if log["event"] == "check_in_dropped"] == ["error"]
        assert len(harness.stored_check_ins()) == 1


async def test_a_check_in_that_cannot_be_stored_blocks_no_other(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        with capture_logs() as logs:
            await harness.send_check_in(at=START_AT + 1)
            await harness.send_check_in(at=1 << 70)
            await harness.send_check_in(at=START_AT + 2)
            await wait_until_async(lambda: len(harness.stored_check_ins()) == 2)
            await wait_until_async(lambda: any(log["event"] == "check_ins_dropped" for log in logs))
        assert [row["occurred_at"] for row in harness.stored_check_ins()] == [START_AT + 1, START_AT + 2]


async def test_nothing_is_accepted_while_the_log_cannot_be_written(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path / "none") as harness:
        with capture_logs() as logs:
            assert [await harness.send_check_in(), await harness.send_check_in()] == [False, False]
            (tmp_path / "none").mkdir()
            assert await harness.send_check_in()
            await wait_until_async(harness.stored_check_ins)
        events = [log["event"] for log in logs if log["event"].startswith("check_in_log")]
        assert events == ["check_in_log_unavailable", "check_in_log_recovered"]
        assert len(harness.stored_check_ins()) == 1


async def test_nothing_is_accepted_while_the_log_is_full(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        harness.check_in_log.max_bytes = 50
        with capture_logs() as logs:
            assert not await harness.send_check_in()
            harness.check_in_log.max_bytes = 1_000
            assert await harness.send_check_in()
        assert "is full" in next(log["error"] for log in logs if log["event"] == "check_in_log_unavailable")
        await wait_until_async(lambda: len(harness.stored_check_ins()) == 1)


async def test_a_shutdown_stores_what_is_left(database_url: str, tmp_path: Path) -> None:
    async with open_harness(database_url, tmp_path) as harness:
        await harness.send_check_in()
    assert not await harness.send_check_in()
    async with open_harness(database_url, tmp_path, new=False) as next_harness:
        assert len(next_harness.stored_check_ins()) == 1


@contextmanager
def locked_sqlite(url: str) -> Iterator[None]:
    """Another process holds the write lock of the file."""
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def refusing_postgres(url: str) -> Iterator[None]:
    """The server closes every connection to the database, and accepts no new one."""
    server, _, name = url.replace("+psycopg", "").rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


async def test_no_sender_waits_for_an_unavailable_database(database_url: str, tmp_path: Path) -> None:
    unavailable = locked_sqlite if database_url.startswith("sqlite") else refusing_postgres
    async with open_harness(database_url, tmp_path) as harness:
        await harness.send_check_in()
        await wait_until_async(harness.stored_check_ins)
        with unavailable(database_url):
            for n in range(20):
                assert await harness.send_check_in(at=START_AT + n, body=b"still here")
                await asyncio.sleep(0.05)
        await wait_until_async(lambda: len(harness.stored_check_ins()) == 21)
