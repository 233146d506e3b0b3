"""What a fault leaves behind: systems are broken and repaired while a service watches them.

Figures: the time until the incident, the causes at the first three slots, the time until it resolves, incidents about
anything else, and incidents that open again.

- Canaries and queues, one system at a time: the worker is killed; a sentinel is lost with its worker; the broker is
  killed. An API and an MCP server stand for their own broker: they refuse what is sent to them.
- Sources of scheduled jobs, all at the same time, because some take minutes to show a fault. Each has servers of its
  own, and a job that no fault concerns.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import structlog

from benchmarks.aftermath_canaries import running_systems
from benchmarks.aftermath_harness import BrokenSystem, Observer, measure_fault, watching
from benchmarks.aftermath_sources import running_job_systems
from benchmarks.measurements import Measurement


def prove() -> Iterator[Measurement]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for measure in (measure_canaries, measure_job_sources):
        with tempfile.TemporaryDirectory() as folder:
            yield from asyncio.run(measure(Path(folder)))


async def measure_canaries(folder: Path) -> list[Measurement]:
    async with running_systems() as systems:
        probes = [probe for system in systems for probe in system.probes()]
        async with watching(folder, probes) as app:
            return [figure for system in systems for figure in await _measure_faults(Observer(app), system)]


async def measure_job_sources(folder: Path) -> list[Measurement]:
    async with running_job_systems() as systems:
        probes = [probe for system in systems for probe in system.probes()]
        async with watching(folder, probes) as app:
            observers = [Observer(app, f"{system.name}.") for system in systems]
            figures = await asyncio.gather(*map(_measure_faults, observers, systems))
            return [figure for of_system in figures for figure in of_system]


async def _measure_faults(observer: Observer, system: BrokenSystem) -> list[Measurement]:
    return [figure for fault in system.faults() for figure in await measure_fault(observer, system, fault)]
