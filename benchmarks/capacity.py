"""How much one process can run: the highest rate on one core beside blackbox_exporter's, and many probes at once.

The rate: Watchdog and blackbox_exporter each have a core of their own in turn; nginx and what drives blackbox_exporter
have the other one. A rate is sustained if every check of a minute has passed, none was missed and none is left over.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.load import Load, measure_load
from benchmarks.measurements import Measurement
from benchmarks.pages import read_cpu_ms
from benchmarks.peer import BLACKBOX_EXPORTER_NAME, Target, request_at_rate, running_target
from tests.support.ports import find_free_port
from tests.support.third_party import listening_process

MIN_RATE_RATIO = 1.3
INTERVAL_S, WARM_UP_S, SUSTAINED_S = 4, 15, 60
FIRST_SHARE, GROWTH, PRECISION, MAX_TRIES = 0.9, 1.25, 0.07, 9
"""The search begins at this share of an estimate, grows or shrinks until the outcome changes, and then halves."""
ESTIMATE_RATE, ESTIMATE_S = 300, 10
MAX_DRIVER_DELAY_S = 1.0
"""A rate is not sustained if the last response is later than this."""


def prove() -> Iterator[Measurement]:
    yield from prove_rate()
    load = Load(2_000, 10, 30, 600)
    for each in measure_load(load).list_measurements(load, 20, 150):
        yield replace(each, name=f"2,000 probes @ 10 s: {each.name}")
    small = measure_load(Load(10_000, 60, 10, 60))
    many = Load(100_000, 60, 60, 300)
    figures = measure_load(many)
    for each in figures.list_measurements(many, None, 12 * small.rss):
        yield replace(each, name=f"100,000 probes @ 60 s: {each.name}")
    yield Measurement("10,000 probes: peak memory (RSS)", small.rss, "MiB")
    yield Measurement("10,000 probes: start to first result", small.first_result_s, "s")
    max_s = 12 * small.first_result_s
    yield Measurement("100,000 probes: start to first result", figures.first_result_s, "s", max_s)


def prove_rate() -> Iterator[Measurement]:
    binary = shutil.which(BLACKBOX_EXPORTER_NAME)
    if binary is None:
        raise SystemExit(f"blackbox_exporter is missing: apt-get install {BLACKBOX_EXPORTER_NAME}")
    own_core, other_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {other_core})
    try:
        with tempfile.TemporaryDirectory() as folder, running_target(Path(folder)) as target:
            taskset = ["taskset", "--cpu-list", str(own_core)]
            theirs = find_rate_of_blackbox(Path(folder), [*taskset, binary], target)
            ours = find_rate_of_watchdog(Path(folder), taskset, target)
    finally:
        os.sched_setaffinity(0, {own_core, other_core})
    yield Measurement("blackbox_exporter on one core: highest sustained rate", theirs, "checks/s")
    yield Measurement("Watchdog on one core: highest sustained rate", ours, "checks/s")
    yield Measurement("its inverse share of blackbox_exporter's", theirs / ours, "", 1 / MIN_RATE_RATIO)


def find_highest_rate(name: str, estimate: float, is_sustained: Callable[[int], bool]) -> int:
    """The highest rate that is sustained, to within PRECISION: one that is higher by so much was not."""
    rate, highest, lowest_failed = round(estimate * FIRST_SHARE), 0, 0
    for _ in range(MAX_TRIES):
        sustained = is_sustained(rate)
        print(f"  {name}: {rate}/s is {'' if sustained else 'not '}sustained", flush=True)
        highest, lowest_failed = (rate, lowest_failed) if sustained else (highest, rate)
        if highest and lowest_failed and lowest_failed <= highest * (1 + PRECISION):
            return highest
        rate = round((highest + lowest_failed) / 2)
        if not lowest_failed:
            rate = round(highest * GROWTH)
        elif not highest:
            rate = round(lowest_failed / GROWTH)
    raise RuntimeError(f"the highest rate of {name} was not found in {MAX_TRIES} tries")


def find_rate_of_blackbox(folder: Path, command: list[str], target: Target) -> int:
    port = find_free_port()
    config = folder / "blackbox.yaml"
    module = {"prober": "http", "timeout": "5s", "http": {"preferred_ip_protocol": "ip4"}}
    config.write_text(json.dumps({"modules": {"checked": module}}))
    words = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    path = f"/probe?module=checked&target={target.url_of('http')}"
    with listening_process([*command, *words], port) as process:

        def is_sustained(rate: int, duration_s: int = SUSTAINED_S) -> bool:
            started = time.monotonic()
            uvloop.run(request_at_rate(port, path, rate, duration_s))
            return time.monotonic() - started < duration_s + MAX_DRIVER_DELAY_S

        cpu_ms = read_cpu_ms(process.pid)
        is_sustained(ESTIMATE_RATE, ESTIMATE_S)
        cpu_ms = read_cpu_ms(process.pid) - cpu_ms
        return find_highest_rate("blackbox_exporter", 1000 * ESTIMATE_RATE * ESTIMATE_S / cpu_ms, is_sustained)


def find_rate_of_watchdog(folder: Path, taskset: list[str], target: Target) -> int:
    def run(rate: int, duration_s: int) -> tuple[dict[str, int], float]:
        """The count of stored slots by outcome, and the CPU in ms."""
        database, config = folder / f"watchdog-{time.monotonic_ns()}.db", folder / "watchdog.yaml"
        listen = f"127.0.0.1:{find_free_port()}"
        url = target.url_of("http")
        probes = [{"name": f"Probe {n}", "every": f"{INTERVAL_S}s", "http": url} for n in range(rate * INTERVAL_S)]
        settings = {"storage": {"url": f"sqlite:///{database}"}, "server": {"listen": listen}, "probes": probes}
        config.write_text(json.dumps(settings))
        command = [*taskset, sys.executable, "-m", "watchdog", "run", "-c", str(config)]
        with listening_process(command, int(listen.partition(":")[2])) as process:
            time.sleep(WARM_UP_S)
            since, cpu_ms = round(time.time() * 1000), read_cpu_ms(process.pid)
            time.sleep(duration_s)
            until, cpu_ms = round(time.time() * 1000), read_cpu_ms(process.pid) - cpu_ms
            time.sleep(2)  # until the last of them are stored
        with closing(sqlite3.connect(database)) as connection:
            query = "SELECT outcome, sum(slot_count) FROM results WHERE slot >= ? AND slot < ? GROUP BY outcome"
            return dict(connection.execute(query, (since, until))), cpu_ms

    def is_sustained(rate: int) -> bool:
        counts, _ = run(rate, SUSTAINED_S)
        return counts.keys() == {"pass"} and counts["pass"] >= 0.99 * rate * SUSTAINED_S

    counts, cpu_ms = run(ESTIMATE_RATE, ESTIMATE_S)
    return find_highest_rate("Watchdog", 1000 * counts["pass"] / cpu_ms, is_sustained)
