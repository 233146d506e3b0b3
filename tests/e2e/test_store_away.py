"""The store goes away while Watchdog runs, in each way in which it can: it is noticed, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.away_stores import full_disk, killed_postgres, locked_sqlite, stopped_postgres
from tests.support.command_line import run_command
from tests.support.fakes import FakeHttpTarget, FakeWebhookReceiver
from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

TOKEN = "t0ken-of-the-nightly-backup"
IMPATIENT_COMMAND = (sys.executable, "-m", "tests.support.impatient_watchdog")
POSTGRES_WAYS = ("stopped", "killed")


class RunningStore:
    """Watchdog with a store of its own, which goes away in one way."""

    def __init__(
        self,
        folder: Path,
        way: str,
        receiver: FakeWebhookReceiver,
        url: str = "sqlite:///wd.db",
        *,
        target_url: str = "http://127.0.0.1:9/",
        server: PostgresServer | None = None,
    ):
        self.folder, self.way, self.receiver, self.url, self.server = folder, way, receiver, url, server
        self.target_url = target_url

    def notices(self, severity: str = "critical") -> list[str]:
        """The events of Watchdog's own that the receiver got: directly (critical), or as an incident (warning)."""
        bodies = [request.json for request in self.receiver.received]
        is_notice = "watchdog.store_away", severity
        return [b["event"] for b in bodies if (b["incident"]["reason"], b["incident"]["severity"]) == is_notice]

    def config(self, **sections: Any) -> Path:
        config = {
            "server": {"listen": "127.0.0.1:0"},
            "storage": {"url": self.url, "check_in_log": str(self.folder / "check-ins")},
            "probes": [
                {"name": "Backup", "heartbeat": {"token": TOKEN, "every": "1h"}},
                {"name": "API", "http": self.target_url, "every": "1s"},
            ],
            "receivers": {"ops": {"webhook": {"url": self.receiver.url}}},
            **sections,
        }
        (self.folder / "watchdog.yaml").write_text(json.dumps(config))
        return self.folder / "watchdog.yaml"

    def away(self, watchdog: WatchdogProcess) -> AbstractContextManager[None]:
        if self.server is not None:
            return stopped_postgres(self.server) if self.way == "stopped" else killed_postgres(self.server)
        return locked_sqlite(self.folder / "wd.db") if self.way == "locked" else full_disk(watchdog.process.pid)

    def count_rows(self, condition: str) -> int:
        """`condition`: a table, or a table with a WHERE clause."""
        return int(self.query(f"SELECT count(*) FROM {condition}")[0][0])

    def query(self, query: str) -> list[tuple[Any, ...]]:
        if self.server is None:
            return sqlite3.connect(self.folder / "wd.db").execute(query).fetchall()
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def target() -> Iterator[FakeHttpTarget]:
    with FakeHttpTarget() as target:
        yield target


@pytest.fixture(params=["locked", "full", *POSTGRES_WAYS])
def store(request: pytest.FixtureRequest, tmp_path: Path, target: FakeHttpTarget) -> Iterator[RunningStore]:
    if request.param == "full" and sys.platform != "linux":
        pytest.skip("prlimit exists on Linux alone")
    with FakeWebhookReceiver() as receiver:
        if request.param not in POSTGRES_WAYS:
            yield RunningStore(tmp_path, request.param, receiver, target_url=target.url)
            return
        server: PostgresServer = request.getfixturevalue("own_postgres")
        with server.temporary_database() as url:
            yield RunningStore(tmp_path, request.param, receiver, url, target_url=target.url, server=server)


@contextmanager
def store_away(store: RunningStore, watchdog: WatchdogProcess) -> Iterator[None]:
    """Lasts from when the absence was noticed."""
    wait_until(lambda: watchdog.get("readyz").status_code == 200)
    with store.away(watchdog):
        reason = "the database has been unavailable for"
        wait_until(lambda: watchdog.get("readyz").json().get("reason", "").startswith(reason))
        assert watchdog.get("readyz").status_code == 503
        yield


def test_an_absence_is_noticed_and_nothing_is_lost(store: RunningStore, target: FakeHttpTarget) -> None:
    with run_watchdog(store.config(), command=IMPATIENT_COMMAND) as watchdog:
        with store_away(store, watchdog):
            assert [entry for entry in watchdog.log_entries if entry["event"] == "store_unavailable"]
            assert watchdog.get("healthz").status_code == 200
            assert "1 of 3 probes go on" in watchdog.get("readyz").json()["reason"]
            count = target.request_count
            wait_until(lambda: target.request_count > count + 3)
            wait_until(lambda: store.notices() == ["opened"])
            if store.way != "full":  # the disk of the check-in log is full as well
                assert httpx.post(f"{watchdog.base_url}in/{TOKEN}", timeout=60, trust_env=False).status_code == 200
        wait_until(lambda: watchdog.get("readyz").status_code == 200)
        assert httpx.post(f"{watchdog.base_url}in/{TOKEN}", timeout=60, trust_env=False).status_code == 200
        wait_until(lambda: store.count_rows("check_ins") == (1 if store.way == "full" else 2))
        wait_until(lambda: [entry for entry in watchdog.log_entries if entry["event"] == "store_available_again"])
        wait_until(lambda: store.notices() == ["opened", "resolved"])
        wait_until(lambda: store.notices("warning") == ["opened"])
        assert store.count_rows("results WHERE outcome = 'pass'") > count + 3
        assert store.count_rows("incidents WHERE rule <> 'service'") == 0
        assert watchdog.stop() == 0


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the database file was deleted": Path.unlink,
    "the header of the database file is damaged": lambda file: overwrite(file, 0, bytes(100)),
}


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


@pytest.mark.parametrize("reason", DAMAGES)
def test_damage_to_the_open_file_is_noticed(tmp_path: Path, reason: str) -> None:
    with FakeWebhookReceiver() as receiver:
        store = RunningStore(tmp_path, "damaged", receiver)
        with run_watchdog(store.config(), command=IMPATIENT_COMMAND) as watchdog:
            wait_until(lambda: watchdog.get("readyz").status_code == 200)
            DAMAGES[reason](tmp_path / "wd.db")
            wait_until(lambda: watchdog.get("readyz").json().get("reason", "").startswith(reason))
            wait_until(lambda: store.notices() == ["opened"])
            messages = [request.json["incident"]["message"] for request in receiver.received]
            assert [message for message in messages if reason in message]


def test_starting_on_a_damaged_file_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    with FakeWebhookReceiver() as receiver:
        config = RunningStore(tmp_path, "damaged", receiver).config()
    for content in (
        b"no database, and long enough not to be taken for an empty file" * 20,
        b"SQLite format 3\0" + bytes(500),
    ):
        (tmp_path / "wd.db").write_bytes(content)
        done = run_command("run", "-c", str(config), cwd=tmp_path)
        assert done.exit_code == 3
        (line,) = done.stderr.splitlines()
        assert line.startswith("watchdog: cannot use the database wd.db: file is not a database; restore a backup")
