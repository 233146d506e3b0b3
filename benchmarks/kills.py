"""kill -9 at nine named points, each on the way of an `opened` and of a `resolved`, on both databases, three times; the
points from the outbox on once for each of Slack bot, Slack webhook and email."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.table import Measurement
from tests.support import postgres
from tests.support.crash_harness import (
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
"""Cases wait far more than they work."""


def prove() -> Iterator[Measurement]:
    events = (IncidentEvent.OPENED, IncidentEvent.RESOLVED)
    cases = [KillCase(point, event, "hook") for point in STORE_KILL_POINTS for event in events]
    cases += [
        KillCase(point, event, kind)  # type: ignore[arg-type] # the literals of KillCase
        for point in SENDING_KILL_POINTS
        for event in events
        for kind in NOTIFIER_KINDS
    ]
    with postgres.running_postgres() as server, ThreadPoolExecutor(CONCURRENCY) as pool:
        asked = [(case, database) for case in cases for database in ("sqlite", "postgres") for _ in range(REPETITIONS)]
        verdicts = list(pool.map(lambda one: (one[0], _run_case(one[0], one[1], server)), asked))
    by_point: dict[str, list[KillCaseResult]] = defaultdict(list)
    for case, verdict in verdicts:
        by_point[case.point].append(verdict)
        if not verdict.passed:
            print(f"  {case}: {verdict}", flush=True)
    for point, came in by_point.items():
        yield Measurement(f"{point}: kills, each shown to have hit", len(came))
        yield Measurement(f"{point}: kills that missed their point", sum(not v.killed_at_point for v in came), "", 0)
        yield Measurement(f"{point}: notifications lost", sum(v.lost_count for v in came), "", 0)
        yield Measurement(f"{point}: extra copies, worst of one kill", max(v.duplicate_count for v in came), "", 1)
        yield Measurement(f"{point}: resolved before opened", sum(not v.in_order for v in came), "", 0)
        yield Measurement(f"{point}: left unsent", sum(v.unsent_count != 0 for v in came), "", 0)


def _run_case(case: KillCase, database: str, server: postgres.PostgresServer) -> KillCaseResult:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = (
            f"sqlite:///{folder}/watchdog.db"
            if database == "sqlite"
            else stack.enter_context(server.temporary_database())
        )
        with CrashHarness(Path(folder), url, case.receiver_kind) as bench:
            return bench.run_kill_case(case.kill_point, case.event)
