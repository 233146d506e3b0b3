"""kill -9 at nine named points, each on the way of an `opened` and of a `resolved`, on both databases, three times; the
points from the outbox on once for each of Slack bot, Slack webhook and email."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.table import Figure
from tests import postgres
from tests.crash.harness import NOTIFIERS, SENDING, STORE, Bench, Case, Verdict
from watchdog.model import Event

TIMES = 3
SIDE_BY_SIDE = 4
"""Cases wait far more than they work."""


def prove() -> Iterator[Figure]:
    events = (Event.OPENED, Event.RESOLVED)
    cases = [Case(point, event, "hook") for point in STORE for event in events]
    cases += [Case(point, event, kind) for point in SENDING for event in events for kind in NOTIFIERS]  # type: ignore[arg-type] # the literals of Case
    with postgres.running() as server, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        asked = [(case, database) for case in cases for database in ("sqlite", "postgres") for _ in range(TIMES)]
        verdicts = list(pool.map(lambda one: (one[0], _one(one[0], one[1], server)), asked))
    by_point: dict[str, list[Verdict]] = defaultdict(list)
    for case, verdict in verdicts:
        by_point[case.point].append(verdict)
        if not verdict.fine:
            print(f"  {case}: {verdict}", flush=True)
    for point, came in by_point.items():
        yield Figure(f"{point}: kills, each shown to have hit", len(came))
        yield Figure(f"{point}: kills that missed their point", sum(not v.hit for v in came), "", 0)
        yield Figure(f"{point}: notifications lost", sum(v.lost for v in came), "", 0)
        yield Figure(f"{point}: extra copies, worst of one kill", max(v.extra for v in came), "", 1)
        yield Figure(f"{point}: resolved before opened", sum(not v.in_order for v in came), "", 0)
        yield Figure(f"{point}: left unsent", sum(v.waiting != 0 for v in came), "", 0)


def _one(case: Case, database: str, server: postgres.Postgres) -> Verdict:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/watchdog.db" if database == "sqlite" else stack.enter_context(server.fresh())
        with Bench(Path(folder), url, case.kind) as bench:
            return bench.kill_at(case.point, case.event)
