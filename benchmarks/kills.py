"""kill -9 at nine points on the path of an `opened` and of a `resolved` notification, on both databases, three times.

The points of delivery are repeated for the Slack bot, the Slack webhook and email, and for the second and the last
message of a group of incidents.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measurements import Measurement
from tests.support import postgres
from tests.support.crash_harness import (
    GROUP_SIZE,
    NOTIFIER_KINDS,
    SENDING_KILL_POINTS,
    STORE_KILL_POINTS,
    CrashHarness,
    KillCase,
    KillCaseResult,
)
from watchdog.domain.model import IncidentEvent

REPETITIONS = 3
CONCURRENCY = 4
"""Cases mostly wait."""


def prove() -> Iterator[Measurement]:
    events = (IncidentEvent.OPENED, IncidentEvent.RESOLVED)
    cases = [KillCase(point, event, "hook") for point in STORE_KILL_POINTS for event in events]
    cases += [
        KillCase(point, event, kind)  # type: ignore[arg-type] # the literals of KillCase
        for point in SENDING_KILL_POINTS
        for event in events
        for kind in NOTIFIER_KINDS
    ]
    cases += [
        KillCase(point, event, "hook", GROUP_SIZE)
        for point in SENDING_KILL_POINTS
        for event in (IncidentEvent.CHANGED, IncidentEvent.RESOLVED)
    ]
    with postgres.running_postgres() as server, ThreadPoolExecutor(CONCURRENCY) as pool:
        runs = [(case, database) for case in cases for database in ("sqlite", "postgres") for _ in range(REPETITIONS)]
        results = list(pool.map(lambda run: (run[0], _run_case(run[0], run[1], server)), runs))
    by_point: dict[str, list[KillCaseResult]] = defaultdict(list)
    for case, result in results:
        point = f"{case.kill_point}, messages of a group" if case.probe_count > 1 else case.kill_point
        by_point[point].append(result)
        if not result.passed:
            print(f"  {case}: {result}", flush=True)
    for point, of_point in by_point.items():
        missed = sum(not result.killed_at_point for result in of_point)
        yield Measurement(f"{point}: kills", len(of_point))
        yield Measurement(f"{point}: kills that missed their point", missed, "", 0)
        yield Measurement(f"{point}: notifications lost", sum(result.lost_count for result in of_point), "", 0)
        yield Measurement(f"{point}: extra copies after one kill", max(r.duplicate_count for r in of_point), "", 1)
        yield Measurement(f"{point}: resolved before opened", sum(not result.in_order for result in of_point), "", 0)
        yield Measurement(f"{point}: left unsent", sum(result.unsent_count != 0 for result in of_point), "", 0)


def _run_case(case: KillCase, database: str, server: postgres.PostgresServer) -> KillCaseResult:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = (
            f"sqlite:///{folder}/watchdog.db"
            if database == "sqlite"
            else stack.enter_context(server.temporary_database())
        )
        with CrashHarness(Path(folder), url, case.receiver_kind, case.probe_count) as harness:
            return harness.run_kill_case(case.kill_point, case.event)
