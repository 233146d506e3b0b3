"""Simulations of the whole service for as long as an hour allows, and the mutants that they find.

Each worker process runs seeds one after the other. `PROVE_SIMULATE_SEEDS` and `PROVE_SIMULATE_MINUTES` limit the run.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from benchmarks.measurements import Measurement
from tests.simulation.faults import FAULT_CLASSES
from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import SIMULATED_S, SimulationReport, simulate

MAX_SEEDS = int(os.environ.get("PROVE_SIMULATE_SEEDS", "10000"))
MAX_SEED_MINUTES = float(os.environ.get("PROVE_SIMULATE_MINUTES", "50"))
MAX_MUTANT_SEEDS = 500
MAX_PERCENT_WITHOUT = 99.0
"""A class of faults in fewer than 1% of the seeds shows nothing."""
PRINTED_VIOLATIONS = 5


def prove() -> Iterator[Measurement]:
    started = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn"), _silence_logs) as pool:
        reports = list(_run_seeds(pool, started + MAX_SEED_MINUTES * 60))
        searches = {name: pool.submit(_find_mutant, name) for name in MUTANTS}
        yield from _measure_reports(reports, time.monotonic() - started)
        for name, future in searches.items():
            yield Measurement(f"mutant `{name}`: found by seed", future.result(), "", MAX_MUTANT_SEEDS)


def _silence_logs() -> None:
    logging.disable(logging.CRITICAL)


def _simulate_without_trace(seed: int) -> SimulationReport:
    """A report that is small enough to be sent back."""
    report = simulate(seed)
    report.trace = []
    return report


def _find_mutant(name: str) -> float:
    """The first seed that finds it; infinite if none does."""
    seeds = range(1, MAX_MUTANT_SEEDS + 1)
    return next((seed for seed in seeds if simulate(seed, MUTANTS[name]).violations), float("inf"))


def _run_seeds(pool: ProcessPoolExecutor, deadline: float) -> Iterator[SimulationReport]:
    pending: set[Future[SimulationReport]] = set()
    seeds = iter(range(1, MAX_SEEDS + 1))
    while True:
        while len(pending) < 2 * (os.cpu_count() or 1) and time.monotonic() < deadline:
            if (seed := next(seeds, None)) is None:
                break
            pending.add(pool.submit(_simulate_without_trace, seed))
        if not pending:
            return
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            report = future.result()
            for violation in report.violations[:PRINTED_VIOLATIONS]:
                print(f"  seed {report.seed}: {violation}", flush=True)
            yield report


def _measure_reports(reports: list[SimulationReport], elapsed_s: float) -> Iterator[Measurement]:
    yield Measurement("seeds", len(reports))
    yield Measurement("simulated time of each", SIMULATED_S / 3600, "h")
    yield Measurement("time for all", elapsed_s / 60, "min")
    yield Measurement("incidents", sum(report.incidents for report in reports))
    yield Measurement("messages taken by receivers", sum(report.deliveries for report in reports))
    yield Measurement("seeds with a violation", sum(bool(report.violations) for report in reports), "", 0)
    seeds_by_class = Counter(name for report in reports for name, count in report.faults.items() if count)
    for name in FAULT_CLASSES:
        percent = 100 * (1 - seeds_by_class[name] / max(len(reports), 1))
        yield Measurement(f"seeds without: {name} ({seeds_by_class[name]} with it)", percent, "%", MAX_PERCENT_WITHOUT)
