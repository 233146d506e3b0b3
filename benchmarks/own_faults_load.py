"""Cases of own_faults.py in which Watchdog is busy: targets that hang, visitors, a storm."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.measurements import Measurement
from benchmarks.own_faults_harness import FAULT_S, SETTLE_S, Surroundings, list_named_probes, surrounded
from tests.support.command_line import WATCHDOG_COMMAND
from tests.support.silent_server import SilentServer
from tests.support.visitors import Visitor, hold_connections
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

FEW_DESCRIPTORS = 128
FEW_DESCRIPTORS_COMMAND = ("sh", "-c", f'ulimit -n {FEW_DESCRIPTORS}; exec "$@"', "sh", *WATCHDOG_COMMAND)
VISITOR_COUNT = 300
VISITOR_KINDS = ("sends nothing", "sends a part of a head", "sends many requests and reads no response")
LARGE_FORM_BYTES = 300_000_000
MAX_MEMORY_GROWTH_MB = 30.0
STORM_SIZE, STORM_S = 1_500, 180.0
MAX_HANGING_MESSAGES = 4
MAX_STORM_MESSAGES = 14
MAX_FIRST_MESSAGE_S, MAX_CRITICAL_S, MAX_MESSAGES_PER_MINUTE = 5.0, 10.0, 1


def measure_hanging(
    hanging_count: int, healthy_count: int, name: str, *, command: Sequence[str] = WATCHDOG_COMMAND
) -> list[Measurement]:
    with surrounded(healthy_count) as (around, stack):
        silent = SilentServer()
        stack.callback(silent.close)
        ids = [f"hanging-{number}" for number in range(hanging_count)]
        hanging = [around.build_probe(id, http=f"http://127.0.0.1:{silent.port}/{id}", every="10s") for id in ids]
        with run_watchdog(around.write_config(hanging), command=command) as watchdog:
            around.started_at = time.monotonic()
            around.pass_time(watchdog, 2 * FAULT_S)
            unreported = set(ids) - set(around.list_named_ids())
            return [
                *around.measure(name, max_messages=MAX_HANGING_MESSAGES, is_notified=False),
                Measurement(f"{name}: hanging targets that were not reported", len(unreported), "", 0),
            ]


# --- visitors


def measure_visitors(visitor: Visitor, name: str) -> list[Measurement]:
    with surrounded() as (around, stack), run_watchdog(around.write_config()) as watchdog:
        around.wait_until_healthy()
        port = int(watchdog.base_url.rsplit(":", 1)[1].strip("/"))
        connections = hold_connections(("127.0.0.1", port), visitor, VISITOR_COUNT, lambda _: "127.0.0.2")
        stack.enter_context(connections)
        around.pass_time(watchdog, FAULT_S)
        turned_away = around.attempted_check_ins - around.accepted_check_ins
        return [
            *around.measure(name, max_messages=0, is_notified=False),
            Measurement(f"{name}: check-ins not answered", turned_away, "", 0),
        ]


def measure_large_form(name: str) -> list[Measurement]:
    with surrounded() as (around, _), run_watchdog(around.write_config()) as watchdog:
        around.wait_until_healthy()
        before_mb = _read_memory_mb(watchdog)
        _send_large_form(watchdog)
        around.pass_time(watchdog, SETTLE_S)
        return [
            *around.measure(name, max_messages=0, is_notified=False),
            Measurement(
                f"{name}: memory afterwards, MB", _read_memory_mb(watchdog) - before_mb, "", MAX_MEMORY_GROWTH_MB
            ),
        ]


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


def measure_storm(name: str) -> list[Measurement]:
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
            return list(_measure_storm_messages(around, ids, name))


def _measure_storm_messages(around: Surroundings, ids: list[str], name: str) -> Iterator[Measurement]:
    first_times: dict[str, float] = {}
    for request in around.messages():
        for id in list_named_probes(request.json):
            first_times.setdefault(id, request.received_at)
    first_failure = min(at for id in ids for at in around.targets.request_times[f"/{id}"] if at >= around.started_at)
    critical_failure = min(at for at in around.targets.request_times[f"/{ids[-1]}"] if at >= around.started_at)
    late = around.started_at + FAULT_S
    later = [request for request in around.messages() if request.received_at > late]
    per_minute = len(later) / ((STORM_S - FAULT_S) / 60)
    yield from around.measure(name, max_messages=MAX_STORM_MESSAGES, is_notified=False)
    to_first = min(first_times.values(), default=float("inf")) - first_failure
    yield Measurement(f"{name}: first message, s", to_first, "", MAX_FIRST_MESSAGE_S)
    to_critical = first_times.get(ids[-1], float("inf")) - critical_failure
    yield Measurement(f"{name}: critical one notified, s", to_critical, "", MAX_CRITICAL_S)
    yield Measurement(f"{name}: targets in no message", len(set(ids) - first_times.keys()), "", 0)
    yield Measurement(f"{name}: messages a minute later on", per_minute, "", MAX_MESSAGES_PER_MINUTE)
