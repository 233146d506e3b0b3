"""Faults of Watchdog itself and of its machine: is anyone notified, is a healthy target blamed, and is anything lost?

Each case runs a real `watchdog run` beside healthy targets that are requested every 5 s, with a receiver and check-ins
every second. "Blind" is the longest time that a healthy target was not requested, less its interval.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from benchmarks.measurements import Measurement
from benchmarks.own_faults_clock import CLOCK_ERROR_FILE_ENV_VAR
from benchmarks.own_faults_harness import (
    HEALTHY_COUNT,
    INTERVAL_S,
    MAX_NOTICE_S,
    SHIFTED_CLOCK_COMMAND,
    Surroundings,
    list_named_probes,
)
from tests.support.away_stores import full_disk, killed_postgres, locked_sqlite, stopped_postgres
from tests.support.command_line import WATCHDOG_COMMAND
from tests.support.postgres import running_postgres
from tests.support.silent_server import SilentServer
from tests.support.visitors import VISITORS, hold_connections
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

FAULT_S, SETTLE_S = 60.0, 45.0
SHORT_CLOCK_STEP_S = 20.0
HOUR_S = 3600
STORM_SIZE, STORM_S = 1_500, 180.0
MAX_CRITICAL_S, MAX_MESSAGES_PER_MINUTE = 10.0, 1
FEW_DESCRIPTORS = 128
LARGE_FORM_BYTES = 300_000_000
MAX_MEMORY_GROWTH_MB = 30.0


def prove() -> Iterator[Measurement]:
    for case in (prove_clocks, prove_hanging_targets, prove_store_away, prove_files, prove_visitors, prove_storm):
        yield from case()


@contextmanager
def surrounded(
    healthy_count: int = HEALTHY_COUNT, database_url: str = "sqlite:///wd.db"
) -> Iterator[tuple[Surroundings, ExitStack]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield stack.enter_context(Surroundings(Path(folder), healthy_count, database_url)), stack


# --- clocks


def prove_clocks() -> Iterator[Measurement]:
    yield from _measure_clock_step("clock +1 h for 20 s", HOUR_S, SHORT_CLOCK_STEP_S)
    yield from _measure_clock_step("clock +1 h", HOUR_S, 2 * FAULT_S)
    yield from _measure_clock_step("clock -2 h", -2 * HOUR_S, 2 * FAULT_S)
    yield from _measure_fast_replica()


def _measure_clock_step(name: str, step_s: float, duration_s: float) -> list[Measurement]:
    with surrounded() as (around, _):
        error_file = around.folder / "clock-error"
        env = {CLOCK_ERROR_FILE_ENV_VAR: str(error_file)}
        with run_watchdog(around.write_config(), env, SHIFTED_CLOCK_COMMAND) as watchdog:
            around.wait_until_healthy()
            error_file.write_text(str(step_s))
            around.pass_time(watchdog, duration_s)
            if duration_s == SHORT_CLOCK_STEP_S:
                error_file.write_text("")
            around.pass_time(watchdog, SETTLE_S)
            return around.measure(name)


def _measure_fast_replica() -> list[Measurement]:
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
            return around.measure("one replica 1 h fast, then killed")


# --- targets that hang


def prove_hanging_targets() -> Iterator[Measurement]:
    yield from _measure_hanging("40 hanging beside 60", 40, 60, WATCHDOG_COMMAND)
    yield from _measure_hanging("500 hanging beside 150", 500, 150, WATCHDOG_COMMAND)
    few = ("sh", "-c", f'ulimit -n {FEW_DESCRIPTORS}; exec "$@"', "sh", *WATCHDOG_COMMAND)
    yield from _measure_hanging(f"100 hanging beside 60, {FEW_DESCRIPTORS} descriptors", 100, 60, few)


def _measure_hanging(
    name: str, hanging_count: int, healthy_count: int, command: tuple[str, ...] | list[str]
) -> list[Measurement]:
    with surrounded(healthy_count) as (around, stack):
        silent = SilentServer()
        stack.callback(silent.close)
        ids = [f"hanging-{number}" for number in range(hanging_count)]
        hanging = [around.build_probe(id, http=f"http://127.0.0.1:{silent.port}/{id}", every="10s") for id in ids]
        with run_watchdog(around.write_config(hanging), command=command) as watchdog:
            around.started_at = time.monotonic()
            around.pass_time(watchdog, 2 * FAULT_S)
            blamed = set(around.list_named_ids())
            return [
                *around.measure(name, is_notified=False),
                Measurement(f"{name}: hanging targets that were not reported", len(set(ids) - blamed), "", 0),
            ]


# --- the store


def prove_store_away() -> Iterator[Measurement]:
    with surrounded() as (around, _):
        yield from _measure_absence(around, "disk full 60 s", lambda watchdog: full_disk(watchdog.process.pid))
    with surrounded() as (around, _):
        yield from _measure_absence(around, "SQLite locked 60 s", lambda _: locked_sqlite(around.folder / "wd.db"))
    for name, take_away in (("stopped", stopped_postgres), ("away", killed_postgres)):
        with (
            running_postgres() as server,
            server.temporary_database() as url,
            surrounded(database_url=url) as (around, _),
        ):
            yield from _measure_absence(around, f"PostgreSQL {name} 60 s", lambda _: take_away(server))  # noqa: B023 - in this pass


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
        is_resolved = any(
            request.json["event"] == "resolved"
            for request in around.messages()
            if request.json["probe"]["id"] == "outage"
        )
        return [
            *around.measure(name),
            Measurement(f"{name}: outage and recovery meanwhile, not reported", not is_resolved, "", 0),
        ]


# --- the database file


def prove_files() -> Iterator[Measurement]:
    for name, damage in (("deleted", _delete), ("replaced", _replace), ("header corrupted", _corrupt_header)):
        with surrounded() as (around, _), run_watchdog(around.write_config()) as watchdog:
            around.wait_until_healthy()
            damage(around.folder / "wd.db")
            is_always_ready = True
            while time.monotonic() < around.started_at + MAX_NOTICE_S + SETTLE_S:
                around.pass_time(watchdog, INTERVAL_S)
                is_always_ready &= watchdog.get("readyz").status_code == 200
            label = f"database file {name}"
            yield Measurement(f"{label}: until people are notified", around.seconds_until_notice(), "s", MAX_NOTICE_S)
            yield Measurement(f"{label}: false outages", around.false_outages(), "", 0)
            yield Measurement(f"{label}: always ready", is_always_ready, "", 0)


def _delete(file: Path) -> None:
    file.unlink()


def _replace(file: Path) -> None:
    copy = file.with_name("copy.db")
    copy.write_bytes(file.read_bytes())
    copy.replace(file)


def _corrupt_header(file: Path) -> None:
    with file.open("r+b") as database:
        database.write(b"no database")


# --- visitors


def prove_visitors() -> Iterator[Measurement]:
    for kind in ("sends nothing", "sends a part of a head", "sends many requests and reads no response"):
        with surrounded() as (around, stack), run_watchdog(around.write_config()) as watchdog:
            around.wait_until_healthy()
            port = int(watchdog.base_url.rsplit(":", 1)[1].strip("/"))
            attempts_before = around.attempted_check_ins
            stack.enter_context(hold_connections(("127.0.0.1", port), VISITORS[kind], 300, lambda _: "127.0.0.2"))
            around.pass_time(watchdog, FAULT_S)
            turned_away = around.attempted_check_ins - attempts_before - around.accepted_check_ins
            label = f"300 visitors, each {kind}"
            yield from around.measure(label, is_notified=False)
            yield Measurement(f"{label}: check-ins not answered", turned_away, "", 0)
    with surrounded() as (around, _), run_watchdog(around.write_config()) as watchdog:
        around.wait_until_healthy()
        before_mb = _read_memory_mb(watchdog)
        _send_large_form(watchdog)
        around.pass_time(watchdog, SETTLE_S)
        yield from around.measure("form of 300 MB", is_notified=False)
        growth_mb = _read_memory_mb(watchdog) - before_mb
        yield Measurement("form of 300 MB: memory afterwards", growth_mb, "MB", MAX_MEMORY_GROWTH_MB)


def _read_memory_mb(watchdog: WatchdogProcess) -> float:
    pages = int(Path(f"/proc/{watchdog.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _send_large_form(watchdog: WatchdogProcess) -> None:
    chunk = b"x" * 1_000_000
    with suppress(httpx.HTTPError):
        httpx.post(
            f"{watchdog.base_url}login",
            content=(chunk for _ in range(LARGE_FORM_BYTES // len(chunk))),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            timeout=60,
            trust_env=False,
        )


# --- a storm


def prove_storm() -> Iterator[Measurement]:
    """1,500 targets on as many addresses fail at once, the critical one among them."""
    with surrounded() as (around, _):
        ids = [f"storm-{number}" for number in range(STORM_SIZE)]
        probes = []
        for number, id in enumerate(ids):
            url = f"http://127.0.{number // 250 + 1}.{number % 250 + 1}:{around.targets.port}/{id}"
            is_critical = number == STORM_SIZE - 1
            alert = {"failure_threshold": 1, "severity": "critical" if is_critical else "warning"}
            probes.append(around.build_probe(id, http=url, every="30s", alert=alert))
        with run_watchdog(around.write_config(probes)) as watchdog:
            around.wait_until_healthy()
            around.pass_time(watchdog, SETTLE_S)
            around.started_at = time.monotonic()
            around.targets.failing_paths.update(f"/{id}" for id in ids)
            around.pass_time(watchdog, STORM_S)
            yield from _measure_storm(around, ids)


def _measure_storm(around: Surroundings, ids: list[str]) -> Iterator[Measurement]:
    first_times: dict[str, float] = {}
    for request in around.messages():
        for id in list_named_probes(request.json):
            first_times.setdefault(id, request.received_at)
    first_failure = min(at for id in ids for at in around.targets.request_times[f"/{id}"] if at >= around.started_at)
    critical_failure = min(at for at in around.targets.request_times[f"/{ids[-1]}"] if at >= around.started_at)
    late = around.started_at + FAULT_S
    later = [request for request in around.messages() if request.received_at > late]
    per_minute = len(later) / ((STORM_S - FAULT_S) / 60)
    storm = f"storm of {STORM_SIZE:,}"
    yield from around.measure(storm, is_notified=False)
    yield Measurement(f"{storm}: until the first message", min(first_times.values()) - first_failure, "s", 5)
    to_critical = first_times.get(ids[-1], float("inf")) - critical_failure
    yield Measurement(f"{storm}: until the critical one is notified", to_critical, "s", MAX_CRITICAL_S)
    yield Measurement(f"{storm}: targets in no message", len(set(ids) - first_times.keys()), "", 0)
    yield Measurement(f"{storm}: messages a minute after the first", per_minute, "", MAX_MESSAGES_PER_MINUTE)
