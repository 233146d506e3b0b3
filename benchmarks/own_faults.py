"""Faults of Watchdog itself and of its machine: is anyone notified, is a healthy target blamed, and is anything lost?

Each case runs a real `watchdog run` beside healthy targets that are requested every 5 s, with a receiver and check-ins
every second. "Blind" is the longest time that a healthy target was not requested, less its interval. Prints a table of
all cases; a case that cannot be measured is a figure over its limit, and the others go on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TypeAlias

from benchmarks import own_faults_cases as cases
from benchmarks import own_faults_load as load
from benchmarks.measurements import Measurement
from benchmarks.own_faults_harness import BLIND, FALSE_OUTAGES, LOST, MESSAGES, NOTICE
from benchmarks.own_faults_network import NETWORK_FAULTS, measure_in_namespace
from tests.support.visitors import VISITORS

CaseFunction: TypeAlias = Callable[[str], Sequence[Measurement]]
"""Gets the name of the case, with which the names of its figures begin."""

CONCURRENCY = 4
QUIET_CASES: dict[str, CaseFunction] = {
    "clock +1 h for 20 s": partial(cases.measure_clock_step, cases.HOUR_S, cases.SHORT_CLOCK_STEP_S),
    "clock +1 h": partial(cases.measure_clock_step, cases.HOUR_S, None),
    "clock -2 h": partial(cases.measure_clock_step, -2 * cases.HOUR_S, None),
    "one replica 1 h fast, then killed": cases.measure_fast_replica,
    **dict.fromkeys(NETWORK_FAULTS, measure_in_namespace),
    "disk full for 60 s": cases.measure_full_disk,
    "SQLite locked for 60 s": cases.measure_locked_sqlite,
    "PostgreSQL away for 60 s": cases.measure_killed_postgres,
    "PostgreSQL stopped for 60 s": cases.measure_stopped_postgres,
    "database file deleted": partial(cases.measure_damage, cases.delete, cases.remove_remains),
    "database file replaced": partial(cases.measure_damage, cases.replace, cases.remove_remains),
    "database file corrupted": partial(cases.measure_damage, cases.corrupt_header, cases.repair_header),
    "5 power cuts": cases.measure_power_cuts,
}
"""They mostly wait, so CONCURRENCY of them run at the same time."""
LOAD_CASES: dict[str, CaseFunction] = {
    "40 hanging beside 60": partial(load.measure_hanging, 40, 60),
    "500 hanging beside 150": partial(load.measure_hanging, 500, 150),
    f"out of descriptors ({load.FEW_DESCRIPTORS}): 100 hanging beside 60": partial(
        load.measure_hanging, 100, 60, command=load.FEW_DESCRIPTORS_COMMAND
    ),
    **{f"300 visitors, each {kind}": partial(load.measure_visitors, VISITORS[kind]) for kind in load.VISITOR_KINDS},
    "form of 300 MB": load.measure_large_form,
    "storm of 1,500, one critical": load.measure_storm,
}
"""Each runs by itself."""

COLUMNS = {BLIND: "blind, s", NOTICE: "notified, s", FALSE_OUTAGES: "false", MESSAGES: "messages", LOST: "lost"}
NAME_WIDTH, COLUMN_WIDTH = 58, 13


def prove() -> Iterator[Measurement]:
    print(format_row("case: figure / limit", COLUMNS.values(), "other figures"), flush=True)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        quiet = [pool.submit(run_case, name, measure) for name, measure in QUIET_CASES.items()]
        for finished in as_completed(quiet):
            yield from finished.result()
    for name, measure in LOAD_CASES.items():
        yield from run_case(name, measure)


def run_case(name: str, measure: CaseFunction) -> Sequence[Measurement]:
    """Its figures, printed as a row of the table."""
    try:
        measurements = measure(name)
    except Exception:
        traceback.print_exc()
        measurements = [Measurement(f"{name}: could not be measured", 1, "", 0)]
    figures = {measurement.name.removeprefix(f"{name}: "): measurement for measurement in measurements}
    others = [f"{label} {format_figure(figures[label])}" for label in figures if label not in COLUMNS]
    cells = [format_figure(figures[label]) if label in figures else "" for label in COLUMNS]
    print(format_row(name, cells, "; ".join(others)), flush=True)
    return measurements


def format_row(name: str, cells: Iterable[str], others: str) -> str:
    return f"  {name:<{NAME_WIDTH}} " + "".join(cell.ljust(COLUMN_WIDTH) for cell in cells) + others


def format_figure(measurement: Measurement) -> str:
    """ "0.3 / 30"; "35 / 30 OVER" if it is over its limit."""
    limit = "" if measurement.max_value is None else f" / {measurement.max_value:g}"
    return f"{measurement.value:.3g}{limit}{'' if measurement.within_limit else ' OVER'}"
