"""An hour of `watchdog run` with 34 probes of every kind whose targets fail and recover: what grows, and how fast.

The first 15 minutes are for warming up. Every fault recurs once in a quarter of the rest, so that the first quarter and
the last can be compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression, median
from weakref import WeakKeyDictionary

import httpx

from benchmarks.measurements import Measurement
from benchmarks.soak_targets import CHECK_IN_TOKEN, FAULTS, SoakTargets
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

WARM_UP_S, MEASUREMENT_S = 15 * 60, 45 * 60
CYCLE_S = MEASUREMENT_S / 4
"""In which every fault occurs once."""
BROKEN_FROM, BROKEN_UNTIL = 1 / 3, 2 / 3
"""The part of its turn in which a fault lasts."""
SAMPLE_INTERVAL_S = 10
PRINT_INTERVAL_S = 60
PAGES = ("", "probes", "incidents", "jobs", "readyz", "metrics")
LASTING_TASK_S = 60
"""A task older than this belongs to no run: runs end within seconds, and their number varies from moment to moment."""
TASK_COUNT_VARIABLE = "SOAK_TASK_COUNT_FILE"


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    at_s: float
    """Since the start."""
    rss_mb_by_pid: dict[int, float]
    """Of the process and its children."""
    descriptors: int
    threads: int
    lasting_tasks: int
    """Of asyncio, older than `LASTING_TASK_S`."""

    @property
    def children(self) -> int:
        return len(self.rss_mb_by_pid) - 1


def prove() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="watchdog-soak-") as name:
        folder = Path(name)
        with SoakTargets(folder) as targets:
            samples = observe(folder, targets, WARM_UP_S + MEASUREMENT_S)
        yield from count_rows(folder / "watchdog.db")
    yield from evaluate([sample for sample in samples if sample.at_s >= WARM_UP_S])


def observe(folder: Path, targets: SoakTargets, duration_s: float) -> list[Sample]:
    """Run Watchdog for as long as that, breaking and repairing its targets."""
    config, task_count_file = folder / "watchdog.yaml", folder / "tasks"
    config.write_text(json.dumps(targets.config()))
    command = [sys.executable, "-m", "benchmarks.soak"]
    env = {TASK_COUNT_VARIABLE: str(task_count_file), "PYTHONFAULTHANDLER": "1"}
    samples: list[Sample] = []
    with run_watchdog(config, env, command) as watchdog:
        targets.check_in_url = f"{watchdog.base_url}in/{CHECK_IN_TOKEN}"
        base_url = watchdog.base_url
        start, fault = time.monotonic(), ""
        while (at_s := time.monotonic() - start) < duration_s:
            due = fault_at(at_s)
            if due != fault:
                targets.break_down(due) if due else targets.repair(fault)
                fault = due
            for page in PAGES:
                request_page(base_url + page)
            if (code := watchdog.process.poll()) is not None:
                raise SystemExit(f"watchdog run ended with {code}:\n{''.join(watchdog.stderr_lines[-40:])}")
            samples.append(take_sample(watchdog, at_s, task_count_file))
            if at_s // PRINT_INTERVAL_S != (at_s - SAMPLE_INTERVAL_S) // PRINT_INTERVAL_S:
                print_sample(samples[-1], fault)
            next_s = (at_s // SAMPLE_INTERVAL_S + 1) * SAMPLE_INTERVAL_S
            time.sleep(max(0.0, start + next_s - time.monotonic()))
        print(*watchdog.stderr_lines[-5:], sep="  ", end="", flush=True)
    return samples


def request_page(url: str) -> None:
    """As a browser or a monitoring system would, on a connection of its own."""
    try:
        httpx.get(url, trust_env=False, timeout=30)
    except httpx.HTTPError as e:
        print(f"  {url}: {e!r}", flush=True)


def fault_at(at_s: float) -> str:
    """What is broken at that time; empty if everything works."""
    turn, share = divmod(at_s % CYCLE_S / CYCLE_S * len(FAULTS), 1)
    return FAULTS[int(turn)] if BROKEN_FROM <= share < BROKEN_UNTIL else ""


def take_sample(watchdog: WatchdogProcess, at_s: float, task_count_file: Path) -> Sample:
    root = watchdog.process.pid
    rss_mb_by_pid = {pid: rss for pid in [root, *descendants(root)] if (rss := rss_mb(pid))}
    threads = len(os.listdir(f"/proc/{root}/task"))  # noqa: PTH208 - only their number counts
    descriptors = len(os.listdir(f"/proc/{root}/fd"))  # noqa: PTH208
    return Sample(at_s, rss_mb_by_pid, descriptors, threads, int(task_count_file.read_text() or 0))


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs. Empty if it has ended."""
    try:
        lists = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(child) for text in lists for child in text.split()]
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


def rss_mb(pid: int) -> float:
    """0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def print_sample(sample: Sample, fault: str) -> None:
    figures = {name: value for name, value in asdict(sample).items() if name not in ("at_s", "rss_mb_by_pid")}
    rss = next(iter(sample.rss_mb_by_pid.values()))
    text = ", ".join(f"{name} {value}" for name, value in {**figures, "children": sample.children}.items())
    print(f"  {sample.at_s / 60:5.1f} min: RSS {rss:.1f} MB, {text}, broken: {fault or 'nothing'}", flush=True)


def evaluate(samples: Sequence[Sample]) -> Iterator[Measurement]:
    """`samples`: after warming up."""
    lasting = set.intersection(*(set(sample.rss_mb_by_pid) for sample in samples))
    minutes = [sample.at_s / 60 for sample in samples]
    rss = [sum(sample.rss_mb_by_pid[pid] for pid in lasting) for sample in samples]
    yield Measurement("memory (RSS) at the end, lasting children included", rss[-1], "MB")
    yield Measurement("growth of memory (RSS)", linear_regression(minutes, rss).slope, "MB/min", 0.1)
    # A sample may find one run more in progress than another: a connection, a server over stdio.
    yield Measurement("growth of open descriptors", growth([s.descriptors for s in samples]), "", 2)
    yield Measurement("growth of lasting asyncio tasks", growth([s.lasting_tasks for s in samples]), "", 0)
    yield Measurement("growth of child processes", growth([s.children for s in samples]), "", 1)
    # The event loop's pool starts one more, up to six, when all of its threads are busy: on a machine under load.
    yield Measurement("growth of threads", growth([s.threads for s in samples]), "", 1)


def growth(values: Sequence[int]) -> float:
    """From the median of the first quarter to that of the last."""
    quarter = len(values) // 4
    return median(values[-quarter:]) - median(values[:quarter])


def count_rows(file: Path) -> Iterator[Measurement]:
    """What Watchdog did meanwhile: nothing would grow if it did nothing."""
    with closing(sqlite3.connect(file)) as database:
        for name, query in {
            "runs that passed": "SELECT sum(slot_count) FROM results WHERE outcome = 'pass'",
            "runs that failed": "SELECT sum(slot_count) FROM results WHERE outcome = 'fail'",
            "incidents opened": "SELECT count(*) FROM incidents",
            "incidents resolved": "SELECT count(*) FROM incidents WHERE resolved_at IS NOT NULL",
        }.items():
            yield Measurement(name, database.execute(query).fetchone()[0] or 0)


def run_and_count_tasks(task_count_file: Path) -> None:
    """`watchdog run` as on the command line; its event loop also writes how many of its tasks last."""
    import uvloop

    from watchdog.cli.main import cli_app

    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = create_loop()
        first_counted_at: WeakKeyDictionary[asyncio.Task[object], float] = WeakKeyDictionary()

        def write_task_count() -> None:
            ages_s = [loop.time() - first_counted_at.setdefault(task, loop.time()) for task in asyncio.all_tasks(loop)]
            task_count_file.write_text(str(sum(age_s >= LASTING_TASK_S for age_s in ages_s)))
            loop.call_later(1, write_task_count)

        loop.call_soon(write_task_count)
        return loop

    create_loop, uvloop.new_event_loop = uvloop.new_event_loop, new_event_loop  # type: ignore[assignment] # observed
    cli_app()


if __name__ == "__main__":
    run_and_count_tasks(Path(os.environ[TASK_COUNT_VARIABLE]))
