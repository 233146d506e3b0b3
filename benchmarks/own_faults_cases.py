"""Cases of own_faults.py: wrong clocks, a database that is away, damaged files, power cuts."""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

from benchmarks import own_faults_clock, own_faults_power_cut
from benchmarks.measurements import Measurement
from benchmarks.own_faults_clock import CLOCK_ERROR_FILE_ENV_VAR
from benchmarks.own_faults_harness import (
    FAULT_S,
    INTERVAL_S,
    MAX_NOTICE_S,
    SETTLE_S,
    Surroundings,
    surrounded,
)
from benchmarks.own_faults_power_cut import restore_remains
from tests.support.away_stores import full_disk, killed_postgres, locked_sqlite, stopped_postgres
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

SHIFTED_CLOCK_COMMAND = (sys.executable, str(Path(own_faults_clock.__file__)))
"""`watchdog` on a machine whose wall clock is wrong by the seconds that a file holds."""
POWER_CUT_COMMAND = (sys.executable, str(Path(own_faults_power_cut.__file__)))
"""`watchdog` on a machine whose power is cut by SIGUSR2."""
SHORT_CLOCK_STEP_S = 20.0
HOUR_S = 3600
POWER_CUT_COUNT, TIME_BETWEEN_POWER_CUTS_S = 5, 10.3
CHECK_INS_BEFORE_POWER_CUT = 10
SQLITE_HEADER = b"SQLite format 3\0"
OWN_INCIDENT_MESSAGES = 2
"""It opens and is resolved."""
MAX_ABSENCE_MESSAGES = 2 + OWN_INCIDENT_MESSAGES + 2
"""Direct notices of its begin and end, the incident afterwards, and the target that failed and recovered."""
MAX_POWER_CUT_MESSAGES = 2 + POWER_CUT_COUNT
"""The target that failed and recovered, and one extra copy after each cut."""


# --- clocks


def measure_clock_step(step_s: float, duration_s: float | None, name: str) -> list[Measurement]:
    """The clock is wrong by `step_s` for `duration_s`; None: to the end, so that the step is followed."""
    with surrounded() as (around, _):
        error_file = around.folder / "clock-error"
        env = {CLOCK_ERROR_FILE_ENV_VAR: str(error_file)}
        with run_watchdog(around.write_config(), env, SHIFTED_CLOCK_COMMAND) as watchdog:
            around.wait_until_healthy()
            error_file.write_text(str(step_s))
            around.pass_time(watchdog, duration_s or 2 * FAULT_S)
            if duration_s is not None:
                error_file.write_text("")
            around.pass_time(watchdog, SETTLE_S)
            return around.measure(name, max_messages=OWN_INCIDENT_MESSAGES)


def measure_fast_replica(name: str) -> list[Measurement]:
    with running_postgres() as server, server.temporary_database() as url, surrounded(database_url=url) as (around, _):
        error_file = around.folder / "clock-error"
        error_file.write_text(str(HOUR_S))
        env = {CLOCK_ERROR_FILE_ENV_VAR: str(error_file)}
        config = around.write_config()
        with run_watchdog(config) as right:
            around.wait_until_healthy()
            with run_watchdog(config, env, SHIFTED_CLOCK_COMMAND):
                around.pass_time(right, FAULT_S)
            around.pass_time(right, SETTLE_S)
            return around.measure(name, max_messages=OWN_INCIDENT_MESSAGES)


# --- the database


def measure_full_disk(name: str) -> list[Measurement]:
    with surrounded() as (around, _):
        return _measure_absence(around, name, lambda watchdog: full_disk(watchdog.process.pid))


def measure_locked_sqlite(name: str) -> list[Measurement]:
    with surrounded() as (around, _):
        return _measure_absence(around, name, lambda _: locked_sqlite(around.folder / "wd.db"))


def measure_killed_postgres(name: str) -> list[Measurement]:
    return _measure_postgres_absence(name, killed_postgres)


def measure_stopped_postgres(name: str) -> list[Measurement]:
    return _measure_postgres_absence(name, stopped_postgres)


def _measure_postgres_absence(
    name: str, take_away: Callable[[PostgresServer], AbstractContextManager[None]]
) -> list[Measurement]:
    with running_postgres() as server, server.temporary_database() as url, surrounded(database_url=url) as (around, _):
        return _measure_absence(around, name, lambda _: take_away(server))


def _measure_absence(
    around: Surroundings, name: str, take_away: Callable[[WatchdogProcess], AbstractContextManager[None]]
) -> list[Measurement]:
    """A target fails and recovers while the store is away: that becomes an incident afterwards."""
    with run_watchdog(around.write_config()) as watchdog:
        around.wait_until_healthy()
        with take_away(watchdog):
            around.pass_time(watchdog, FAULT_S / 6)
            around.targets.failing_paths.add("/outage")
            around.pass_time(watchdog, FAULT_S / 2)
            around.targets.failing_paths.clear()
            around.pass_time(watchdog, FAULT_S / 3)
        around.pass_time(watchdog, SETTLE_S)
        return [
            *around.measure(name, max_messages=MAX_ABSENCE_MESSAGES),
            _measure_unreported_outage(around, name),
        ]


# --- the database file


def measure_damage(damage: Callable[[Path], None], repair: Callable[[Path], None], name: str) -> list[Measurement]:
    """What was accepted after the damage must be in the database after the repair and a restart."""
    with surrounded() as (around, _):
        config, file = around.write_config(), around.folder / "wd.db"
        with run_watchdog(config) as watchdog:
            around.wait_until_healthy()
            damage(file)
            is_always_ready = True
            while time.monotonic() < around.started_at + MAX_NOTICE_S + SETTLE_S:
                around.pass_time(watchdog, INTERVAL_S)
                is_always_ready &= watchdog.get("readyz").status_code == 200
            watchdog.stop()
        repair(file)
        with run_watchdog(config):
            return [
                *around.measure(name, max_messages=MAX_ABSENCE_MESSAGES),
                Measurement(f"{name}: always ready", is_always_ready, "", 0),
            ]


def delete(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.replace(file)


def remove_remains(file: Path) -> None:
    """What the old file left beside the new one."""
    for suffix in ("-wal", "-shm"):
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)


def corrupt_header(file: Path) -> None:
    _write_header(file, b"no database")


def repair_header(file: Path) -> None:
    _write_header(file, SQLITE_HEADER)


def _write_header(file: Path, header: bytes) -> None:
    with file.open("r+b") as database:
        database.write(header)


# --- power


def measure_power_cuts(name: str) -> list[Measurement]:
    """A target fails and recovers between the power cuts."""
    with surrounded() as (around, _):
        config = around.write_config()
        for number in range(POWER_CUT_COUNT):
            with run_watchdog(config, command=POWER_CUT_COMMAND) as watchdog:
                if not number:
                    around.wait_until_healthy()
                around.pass_time(watchdog, TIME_BETWEEN_POWER_CUTS_S)
                if number == 1:
                    around.targets.failing_paths.add("/outage")
                elif number == POWER_CUT_COUNT - 2:
                    around.targets.failing_paths.clear()
                for _ in range(CHECK_INS_BEFORE_POWER_CUT):
                    around.check_in(watchdog)
                watchdog.process.send_signal(signal.SIGUSR2)
                watchdog.process.wait(30)
            restore_remains(around.folder)
        with run_watchdog(config) as watchdog:
            around.pass_time(watchdog, SETTLE_S)
            return [
                *around.measure(name, max_messages=MAX_POWER_CUT_MESSAGES, is_notified=False),
                _measure_unreported_outage(around, name),
            ]


def _measure_unreported_outage(around: Surroundings, name: str) -> Measurement:
    events = {request.json["event"] for request in around.messages() if request.json["probe"]["id"] == "outage"}
    return Measurement(f"{name}: outage and recovery meanwhile, not reported", "resolved" not in events, "", 0)
