"""A simulated week of the whole service with all faults every day: broken promises, and what the process accumulates.

Results are kept for two days, so the database and the process should be as large after the week as after two days.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import CORO_CLOSED, getcoroutinestate
from pathlib import Path
from typing import Any

from benchmarks.measurements import Measurement
from benchmarks.soak import descendants, rss_mb
from tests.simulation.configuration import HEARTBEATS, TARGETS
from tests.simulation.faults import FAULT_CLASSES
from tests.simulation.simulation import SimulationReport, simulate_days

SEED, DAYS, WARM_UP_DAYS = 1, 7, 2
PRINTED_VIOLATIONS = 20
MAX_RSS_GROWTH_MB = 15.0
"""In five days: 3 MB a day. The simulation itself remembers what happened to each target."""
MAX_DESCRIPTOR_GROWTH = 4
"""SQLite's pool has one to three connections that read, each with two descriptors."""


@dataclass(frozen=True)
class Sample:
    """The simulating process at the end of a day, after garbage was collected."""

    rss_mb: float
    tasks: int
    descriptors: int
    children: int


def prove() -> Iterator[Measurement]:
    logging.disable(logging.CRITICAL)
    samples: list[Sample] = []

    def take_sample() -> None:
        gc.collect()
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        children = len(descendants(os.getpid()))
        samples.append(Sample(rss_mb(os.getpid()), _count_living_tasks(), descriptors, children))
        print(f"  day {len(samples)}: {samples[-1]}", flush=True)

    try:
        report = simulate_days(SEED, DAYS, take_sample)
    finally:
        logging.disable(logging.NOTSET)
    print(*(f"  {violation}" for violation in report.violations[:PRINTED_VIOLATIONS]), sep="\n")
    yield from _measure_report(report)
    if samples:
        yield from _measure_growth(samples[min(WARM_UP_DAYS, len(samples)) - 1], samples[-1])


def _count_living_tasks() -> int:
    """Without those of killed processes, which never end: their coroutines are closed."""
    coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    return sum(getcoroutinestate(coroutine) != CORO_CLOSED for coroutine in coroutines)


def _measure_report(report: SimulationReport) -> Iterator[Measurement]:
    yield Measurement("simulated days", DAYS)
    yield Measurement("probes, of 5 kinds", len(TARGETS) + len(HEARTBEATS))
    yield Measurement("classes of faults that did not occur every day", _count_rare_classes(report), "", 0)
    yield Measurement("faults and outages of targets", sum(report.faults.values()))
    yield Measurement("incidents", report.incidents)
    yield Measurement("messages taken by receivers", report.deliveries)
    yield Measurement("violations", len(report.violations), "", 0)


def _count_rare_classes(report: SimulationReport) -> int:
    return sum(report.faults[name] < DAYS for name in FAULT_CLASSES)


def _measure_growth(before: Sample, after: Sample) -> Iterator[Measurement]:
    days = f"days {WARM_UP_DAYS + 1} to {DAYS}"
    yield Measurement("memory (RSS) at the end", after.rss_mb, "MB")
    yield Measurement(f"growth of memory (RSS), {days}", after.rss_mb - before.rss_mb, "MB", MAX_RSS_GROWTH_MB)
    yield Measurement(f"growth of asyncio tasks, {days}", after.tasks - before.tasks, "", 1)
    yield Measurement(
        f"growth of open descriptors, {days}", after.descriptors - before.descriptors, "", MAX_DESCRIPTOR_GROWTH
    )
    yield Measurement(f"growth of child processes, {days}", after.children - before.children, "", 0)
