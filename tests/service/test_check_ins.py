"""From the door to the database: nothing that was taken is lost, and nobody waits for a database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.support.polling import wait_until_async
from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.heartbeat import HEARTBEAT_STATE_KEY, CheckInKind
from watchdog.net import SecretMask
from watchdog.service import check_ins as module
from watchdog.service.check_in_log import CheckInLog, CheckInLogError
from watchdog.service.check_ins import MAX_OUTPUT_BYTES, CheckInReceiver
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import alert_states, check_ins, probe_state, schedule
from watchdog.store.write.check_ins import CheckInStore

SECRET = "hush-hush-hush"


class House:
    """A job called backup, and who takes its check-ins."""

    def __init__(self, url: str, folder: Path, *, new: bool = True):
        self.lab = StoreHarness(url, [make_registered_probe("backup", failure_threshold=1)], create_schema=new)
        self.id = self.lab.database_id("backup")
        self.storage = StoreExecutor(self.lab.database)
        self.spool = CheckInLog(folder / "check-ins")
        self.reception = CheckInReceiver(
            check_in_log=self.spool,
            store_executor=self.storage,
            check_in_store=CheckInStore(self.lab.database, self.lab.registry),
            claims=self.lab.slot_claimer,
            probe_by_id={"backup": self.id},
            mask=SecretMask([SECRET]),
            clock=lambda: START_AT,
        )

    async def take(
        self, kind: CheckInKind = CheckInKind.OK, at: int = START_AT, body: bytes = b"", probe: str = "backup"
    ) -> bool:
        return await self.reception.accept_check_in(probe, kind, at, "", 3 if kind is CheckInKind.FAIL else None, body)

    async def tick(self) -> None:
        while True:
            with suppress(Exception):
                await self.reception.flush_check_ins()
            await asyncio.sleep(0.05)

    def stored(self) -> list[dict[str, Any]]:
        return self.lab.select_rows(check_ins)

    def written(self) -> bytes:
        """What is on disk and not in the database."""
        return b"".join(file.read_bytes() for file in self.spool.path.parent.glob("check-ins.*"))

    def due(self) -> int:
        return int(self.lab.select_row(schedule)["next_due"])


@asynccontextmanager
async def open_house(url: str, folder: Path, **more: Any) -> AsyncIterator[House]:
    house = House(url, folder, **more)
    try:
        async with house.reception:
            ticking = asyncio.create_task(house.tick())
            yield house
            ticking.cancel()
    finally:
        house.storage.close()


async def test_they_are_stored_in_batches_soon_after(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        taken = await asyncio.gather(*(house.take(at=START_AT + n) for n in range(600)))
        assert taken == [True] * 600
        await wait_until_async(lambda: len(house.stored()) == 600)
        await wait_until_async(lambda: not house.written())
        (kept,) = house.lab.select_rows(probe_state)
        assert (kept["probe"], kept["key"]) == (house.id, HEARTBEAT_STATE_KEY)
        assert len({row["id"] for row in house.stored()}) == 600


async def test_what_is_taken_is_on_disk(database_url: str, tmp_path: Path) -> None:
    """Before anything else happens: the process may be gone in the next moment."""
    house = House(database_url, tmp_path)
    assert await house.take(CheckInKind.FAIL, body=b"disk full")
    with pytest.raises(CheckInLogError):
        CheckInLog(tmp_path / "check-ins").read_batch(9)  # it is ours alone
    house.spool.close()
    async with open_house(database_url, tmp_path, new=False) as heir:
        (row,) = heir.stored()  # before it takes anything, and before anything is judged
        assert (row["occurred_at"], row["kind"], row["exit_code"], row["output"]) == (START_AT, "fail", 3, "disk full")
    house.storage.close()


async def test_who_asks_for_a_drain_waits_for_the_one_under_way(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(database_url, tmp_path)
    store, inside, most = house.reception._store_batch, 0, 0

    async def watched(batch: Any) -> set[int]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        try:
            return await store(batch)
        finally:
            inside -= 1

    monkeypatch.setattr(house.reception, "_store_batch", watched)
    monkeypatch.setattr(module, "CHECK_IN_BATCH_SIZE", 10)
    async with house.reception:
        await asyncio.gather(*(house.take(at=START_AT + n) for n in range(40)))
        await asyncio.gather(*(house.reception.flush_check_ins() for _ in range(4)))
        assert len(house.stored()) == 40
    assert most == 1
    house.storage.close()


async def test_a_failure_is_looked_at_at_once(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        planned = house.due()
        assert planned > START_AT + 1_001
        await house.take(CheckInKind.OK)
        await wait_until_async(house.stored)
        assert house.due() == planned
        await house.take(CheckInKind.FAIL)
        await wait_until_async(lambda: house.due() < planned)
        assert house.due() == START_AT + 1_001


async def test_any_word_is_when_something_is_wrong(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        planned = house.due()
        with house.lab.database.write_transaction() as connection:
            wrong = {
                "probe": house.id,
                "rule": "job",
                "subject": "Backup",
                "bad_count": 1,
                "good_count": 0,
                "first_bad_slot": START_AT,
                "reason": "x",
            }
            connection.execute(alert_states.insert(), wrong)
        await house.take(CheckInKind.START)
        await wait_until_async(lambda: house.due() < planned)


async def test_the_end_of_a_long_output_is_kept_without_its_secrets(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        long = b"a" * 5_000 + SECRET.encode() + b"\xff\x1b[31m" + "ü".encode() * 4_000 + SECRET.encode() + b"end"
        await house.take(body=long)
        assert SECRET.encode() not in house.written()
        await wait_until_async(house.stored)
        (row,) = house.stored()
        assert row["output"].startswith("a")
        assert row["output"].endswith("ü•••end")
        assert "•••\ufffd\ufffd[31mü" in row["output"]
        assert MAX_OUTPUT_BYTES - 3 <= len(row["output"].encode()) <= MAX_OUTPUT_BYTES


async def test_whose_probe_is_gone_is_dropped_and_said(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        with capture_logs() as logs:
            await house.take(probe="removed")
            await house.take()
            await wait_until_async(house.stored)
        assert [(log["event"], log["probe_id"]) for log in logs if log["event"] == "check_in_dropped"] == [
            ("check_in_dropped", "removed")
        ]
        assert len(house.stored()) == 1


@pytest.mark.parametrize(
    "record",
    [b'["backup", "x-1", 1, "pause"]', b'["backup", "x-1", 1, "ok", "", 0, "", "new"]', b'["backup"]', b"7", b"?"],
)
async def test_one_of_another_version_keeps_no_other_waiting(database_url: str, tmp_path: Path, record: bytes) -> None:
    async with open_house(database_url, tmp_path) as house:
        with capture_logs() as logs:
            house.spool.append([record])
            await house.take()
            await wait_until_async(house.stored)
        assert [log["log_level"] for log in logs if log["event"] == "check_in_dropped"] == ["error"]
        assert len(house.stored()) == 1


async def test_one_that_cannot_be_stored_keeps_no_other_waiting(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        with capture_logs() as logs:
            await house.take(at=START_AT + 1)
            await house.take(at=1 << 70)
            await house.take(at=START_AT + 2)
            await wait_until_async(lambda: len(house.stored()) == 2)
            await wait_until_async(lambda: any(log["event"] == "check_ins_dropped" for log in logs))
        assert [row["occurred_at"] for row in house.stored()] == [START_AT + 1, START_AT + 2]


async def test_a_spool_that_cannot_be_written_takes_nothing_until_it_can(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path / "none") as house:
        with capture_logs() as logs:
            assert [await house.take(), await house.take()] == [False, False]
            (tmp_path / "none").mkdir()
            assert await house.take()
            await wait_until_async(house.stored)
        events = [log["event"] for log in logs if log["event"].startswith("check_in_log")]
        assert events == ["check_in_log_unavailable", "check_in_log_recovered"]
        assert len(house.stored()) == 1


async def test_a_full_spool_takes_nothing_until_there_is_room(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        house.spool.max_bytes = 50
        with capture_logs() as logs:
            assert not await house.take()
            house.spool.max_bytes = 1_000
            assert await house.take()
        assert "is full" in next(log["error"] for log in logs if log["event"] == "check_in_log_unavailable")
        await wait_until_async(lambda: len(house.stored()) == 1)


async def test_told_to_stop_it_stores_what_it_has(database_url: str, tmp_path: Path) -> None:
    async with open_house(database_url, tmp_path) as house:
        await house.take()
    assert not await house.take()
    async with open_house(database_url, tmp_path, new=False) as heir:
        assert len(heir.stored()) == 1


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else writes to the file."""
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def refused(url: str) -> Iterator[None]:
    """The server ends every connection to the database, and takes none."""
    server, _, name = url.replace("+psycopg", "").rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


async def test_nobody_waits_for_a_database_that_is_away(database_url: str, tmp_path: Path) -> None:
    away = locked if database_url.startswith("sqlite") else refused
    async with open_house(database_url, tmp_path) as house:
        await house.take()
        await wait_until_async(house.stored)
        with away(database_url):
            for n in range(20):
                assert await house.take(at=START_AT + n, body=b"still here")
                await asyncio.sleep(0.05)
        await wait_until_async(lambda: len(house.stored()) == 21)
