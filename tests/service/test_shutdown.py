"""A shutdown ends even if runs, deliveries or tasks hang, and every claimed slot has a result."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until
from tests.support.postgres import PostgresServer
from tests.support.silent_server import SilentServer
from tests.support.watchdog_process import run_watchdog


def write(folder: Path, url: str, probes: str) -> Path:
    file = folder / "watchdog.yaml"
    file.write_text(f"storage: {{url: '{url}'}}\nserver: {{listen: '127.0.0.1:0'}}\nprobes:\n{probes}")
    return file


def test_fifty_runs_in_flight_all_have_a_result(tmp_path: Path) -> None:
    with closing(SilentServer()) as silent:
        probes = "".join(
            f"- {{name: P{i}, every: 2s, timeout: 5m, http: 'http://127.0.1.{i}:{silent.port}/'}}\n"
            for i in range(1, 51)
        )
        with run_watchdog(write(tmp_path, "sqlite:///watchdog.db", probes)) as run:
            wait_until(lambda: len(silent.connections) >= 50)
            assert run.stop() == 0
        of_the_test = "probe IN (SELECT id FROM probes WHERE kind = 'http')"
        with closing(sqlite3.connect(tmp_path / "watchdog.db")) as database:
            claimed = {
                (probe, at)
                for probe, in_flight in database.execute(f"SELECT probe, in_flight FROM schedule WHERE {of_the_test}")
                for at in json.loads(in_flight)
            }
            stored = {
                (probe, slot): reason
                for probe, slot, reason in database.execute(
                    f"SELECT probe, slot, reason FROM results WHERE {of_the_test}"
                )
            }
        assert claimed <= stored.keys()
        assert set(stored.values()) <= {"missed.shutdown_during_run", "missed.shutdown_before_run"}
        assert sum(reason == "missed.shutdown_during_run" for reason in stored.values()) >= 50
        assert not [entry for entry in run.log_entries if entry["level"] == "error"]


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Suspend every session of Watchdog in that database, as if the disk of the server hung."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"
        sessions = [pid for (pid,) in connection.execute(query)]
    assert sessions
    for pid in sessions:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in sessions:
            os.kill(pid, signal.SIGCONT)


def test_a_shutdown_ends_while_the_database_hangs(tmp_path: Path, postgres: PostgresServer) -> None:
    with FakeHttpTarget() as target, postgres.temporary_database() as url:
        config = write(tmp_path, url, f"- {{name: API, every: 1s, http: '{target.url}'}}\n")
        with run_watchdog(config) as run:
            wait_until(lambda: run.get("api/v1/probes").json()["items"][0]["latest"])
            with frozen(url):
                time.sleep(1)
                run.stop()
